//! What is shipped beside the binary: manual pages, and how hosts run as services.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::cli::Cli;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn shipped(name: &str) -> String {
    let path = root().join("docs/deploy").join(name);
    std::fs::read_to_string(&path).unwrap()
}

/// Fails unless these are arguments that a host starts with: it gets as far as to NATS.
fn assert_starts(args: &[String]) {
    let cli = Cli::new();
    let mut command = cli.command(&[]);
    let output = command.args(args).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("cannot connect to NATS"), "{args:?}: {told}");
}

/// The credentials file of a login that nothing accepts.
fn credentials(cli: &Cli) -> String {
    let seed = nkeys::KeyPair::new_user().seed().unwrap();
    cli.write(
        "nats.creds",
        format!("-----BEGIN NATS USER JWT-----\nx\n-----END-----\n-----BEGIN USER NKEY SEED-----\n{seed}\n"),
    );
    cli.path("nats.creds").display().to_string()
}

#[test]
fn the_systemd_unit_starts_a_host_and_is_clean() {
    let unit = shipped("wasmbay-host.service");
    let line = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/wasmbay "))
        .unwrap();
    let files = Cli::new();
    let creds = credentials(&files);
    let given = |arg: &str| match arg {
        "127.0.0.1:8080" | "127.0.0.1:8090" => "127.0.0.1:0".to_owned(),
        "%l" => "machine".to_owned(),
        "${CREDENTIALS_DIRECTORY}/nats.creds" => creds.clone(),
        "${CACHE_DIRECTORY}" => files.path("cache").display().to_string(),
        other => other.to_owned(),
    };
    let nats = ["--nats", "nats://127.0.0.1:1"].map(str::to_owned);
    let args: Vec<_> = line.split(' ').map(given).chain(nats).collect();
    assert_starts(&args);

    // It names the binary where `make install` puts it, which is not there.
    let binary = env!("CARGO_BIN_EXE_wasmbay");
    files.write(
        "wasmbay-host.service",
        unit.replace("/usr/local/bin/wasmbay", binary),
    );
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(files.path("wasmbay-host.service"))
        .output()
        .expect("`apt-get install systemd` installs systemd-analyze");
    let told = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && told.is_empty(), "{told}");
}

#[test]
fn the_deployment_starts_a_host_and_gives_it_time_to_drain() {
    let manifest = shipped("kubernetes.yaml");
    let (_, args) = manifest.split_once("          args:\n").unwrap();
    let args = args
        .lines()
        .map_while(|line| line.strip_prefix("            - "));
    let files = Cli::new();
    let creds = credentials(&files);
    let args: Vec<String> = args
        .map(|arg| match arg {
            "--gateway=$(POD_IP):8080" => "--gateway=127.0.0.1:0".to_owned(),
            "--admin=$(POD_IP):8090" => "--admin=127.0.0.1:0".to_owned(),
            "--nats=nats://nats:4222" => "--nats=nats://127.0.0.1:1".to_owned(),
            "--nats-creds=/nats/nats.creds" => format!("--nats-creds={creds}"),
            "--admin-token-file=/admin/token" => {
                files.write("token", "0123456789abcdef");
                format!("--admin-token-file={}", files.path("token").display())
            }
            "--cache=/cache" => format!("--cache={}", files.path("cache").display()),
            other => other.replace("$(POD_NAME)", "wasmbay-6d4b75cb6d-hx2zp"),
        })
        .collect();
    assert!(args.len() > 5, "{args:?}");
    assert_starts(&args);
    let number = |text: &str| -> u64 {
        let (_, rest) = manifest.split_once(text).unwrap();
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    };
    assert!(number("terminationGracePeriodSeconds: ") >= number("--grace=") + 2);
    let version = format!("wasmbay:{}\n", env!("CARGO_PKG_VERSION"));
    assert!(manifest.contains(&version), "{version}");
}

#[test]
fn the_image_is_built_of_what_is_there() {
    let ignored = std::fs::read_to_string(root().join(".dockerignore")).unwrap();
    let file = shipped("Dockerfile");
    let copied = file.lines().filter_map(|line| line.strip_prefix("COPY "));
    let copied = copied.filter(|line| !line.starts_with("--from"));
    let mut sources = 0;
    for line in copied {
        let all: Vec<_> = line.split(' ').collect();
        for source in &all[..all.len() - 1] {
            assert!(root().join(source).exists(), "{source}");
            assert!(ignored.contains(&format!("!{source}\n")), "{source}");
            sources += 1;
        }
    }
    assert!(sources > 3);
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, version) = manifest.split_once("rust-version = \"").unwrap();
    let version = version.split('"').next().unwrap();
    assert!(file.contains(&format!("FROM rust:{version}-")), "{version}");
}

/// Runs a target of the Makefile with the binary that is tested, from this home.
fn make(home: &Cli, args: &[&str]) {
    let binary = format!("BINARY={}", env!("CARGO_BIN_EXE_wasmbay"));
    let made = Command::new("make")
        .arg("-C")
        .arg(root())
        .args(args)
        .arg(binary)
        .env("HOME", home.path(""))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{args:?}: {told}");
}

/// What a shell prints in a folder, with nothing of this process's surroundings.
fn sh(folder: &Path, line: &str) -> String {
    let output = Command::new("bash")
        .args(["-ec", line])
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", folder)
        .output()
        .unwrap();
    let (out, told) = (output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{line}: {told}");
    String::from_utf8(out).unwrap()
}

/// Fails unless binary, completions and manual pages are below a folder, and work.
fn assert_installed(prefix: &Path) {
    let version = format!("wasmbay {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(sh(prefix, "bin/wasmbay --version"), version);
    let completed = "source share/bash-completion/completions/wasmbay; complete -p wasmbay";
    assert!(sh(prefix, completed).contains("wasmbay"));
    for (file, text) in [
        ("share/zsh/site-functions/_wasmbay", "#compdef wasmbay"),
        (
            "share/fish/vendor_completions.d/wasmbay.fish",
            "complete -c wasmbay",
        ),
        ("share/man/man1/wasmbay.1", ".TH wasmbay 1"),
        ("share/man/man1/wasmbay-deploy.1", ".SH NAME"),
    ] {
        let written = std::fs::read_to_string(prefix.join(file)).unwrap();
        assert!(written.contains(text), "{file}: {text}");
    }
}

#[test]
fn what_is_installed_works_from_an_empty_home() {
    let home = Cli::new();
    let prefix = home.path(".local");
    make(&home, &["install", &format!("PREFIX={}", prefix.display())]);
    assert_installed(&prefix);
    // As those do who make packages.
    let staged = home.path("stage");
    let destination = format!("DESTDIR={}", staged.display());
    make(&home, &["install", "PREFIX=/usr", &destination]);
    assert_installed(&staged.join("usr"));
}

#[test]
fn the_archive_has_what_its_checksums_say() {
    let home = Cli::new();
    let dist = format!("DISTDIR={}", home.path("dist").display());
    make(&home, &["dist", &dist]);
    let dist = home.path("dist");
    let checked = sh(&dist, "sha256sum -c ./*.tar.gz.sha256");
    assert!(checked.ends_with(".tar.gz: OK\n"), "{checked}");
    let fresh = home.path("fresh");
    std::fs::create_dir(&fresh).unwrap();
    let name = sh(&fresh, "tar -xzf ../dist/*.tar.gz; ls");
    let name = name.trim();
    assert!(name.starts_with(&format!("wasmbay-{}-", env!("CARGO_PKG_VERSION"))));
    let unpacked = fresh.join(name);
    assert_installed(&unpacked);
    let checked = sh(&unpacked, "sha256sum -c SHA256SUMS; find * -type f | wc -l");
    let (checked, files) = checked.trim().rsplit_once('\n').unwrap();
    assert!(
        checked.lines().all(|line| line.ends_with(": OK")),
        "{checked}"
    );
    // All but the list itself.
    assert_eq!(checked.lines().count() + 1, files.parse::<usize>().unwrap());
    for file in [
        "LICENSE",
        "deploy/wasmbay-host.service",
        "deploy/kubernetes.yaml",
    ] {
        assert!(unpacked.join(file).exists(), "{file}");
    }
    let before = sh(&dist, "cat ./*.sha256");
    make(&home, &["dist", &format!("DISTDIR={}", dist.display())]);
    assert_eq!(
        sh(&dist, "cat ./*.sha256"),
        before,
        "it is not the same again"
    );
}

#[test]
fn there_is_a_manual_page_for_each_verb() {
    let cli = Cli::new();
    let folder = cli.path("man/man1");
    let written = cli.run(&["man", "man/man1"]);
    assert!(written.ends_with("[exit 0]"), "{written}");
    let page = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let main = page("wasmbay.1");
    let output = cli.command(&["--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let (_, verbs) = help.split_once("Commands:\n").unwrap();
    let verbs = verbs.lines().take_while(|line| !line.is_empty());
    let verbs = verbs.filter_map(|line| line.split_whitespace().next());
    for verb in verbs.filter(|verb| *verb != "help") {
        let name = format!("wasmbay\\-{verb}(1)");
        assert!(main.contains(&name), "{name}");
        assert!(
            page(&format!("wasmbay-{verb}.1")).contains(".SH NAME"),
            "{verb}"
        );
    }
    assert!(page("wasmbay-dlq-replay.1").contains("\\-\\-rate"));
    let again = cli.run(&["man", "man/man1"]);
    assert!(again.ends_with("[exit 0]"), "{again}");
}
