//! Components in a real registry: pushed, pulled, pinned and run.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;
use wasmbay::manifest::Digest;

use crate::support::PATIENCE;
use crate::support::cli::Cli;
use crate::support::components::GUEST;
use crate::support::registry::{Registry, oras};
use crate::support::until_ok_blocking_within;

mod hostile;

/// The guest with another letter in `repeat`.
fn letter(letter: char) -> Vec<u8> {
    let other = format!("i32.const {}", u32::from(letter));
    wat::parse_str(GUEST.replace("i32.const 120", &other)).unwrap()
}

fn app(component: &str) -> String {
    format!("name = \"app\"\n[service.guest]\ncomponent = \"oci://{component}\"\n")
}

/// Runs a verb that ends well; returns all that was seen.
#[track_caller]
fn done(cli: &Cli, args: &[&str]) -> String {
    let seen = cli.run(args);
    assert!(seen.ends_with("[exit 0]"), "{seen}");
    seen
}

/// Runs a verb that fails, and says all of this.
#[track_caller]
fn refused(cli: &Cli, args: &[&str], code: u8, said: &[&str]) {
    let seen = cli.run(args);
    assert!(seen.ends_with(&format!("[exit {code}]")), "{seen}");
    for text in said {
        assert!(seen.contains(text), "{text:?}: {seen}");
    }
}

#[track_caller]
fn printed(cli: &Cli, args: &[&str]) -> Value {
    let output = cli
        .command(&[args, &["--output", "json"]].concat())
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Pushes the guest with this letter; returns the digest of the manifest.
fn push(cli: &Cli, character: char, reference: &str) -> String {
    cli.write("pushed.wasm", letter(character));
    let pushed = printed(cli, &["push", "pushed.wasm", reference]);
    pushed["digest"].as_str().unwrap().to_owned()
}

fn lock(cli: &Cli) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(cli.path("wasmbay.lock")).unwrap();
    let entries: BTreeMap<String, BTreeMap<String, String>> = toml::from_str(&text).unwrap();
    let entries = entries.into_iter();
    entries
        .map(|(name, mut entry)| (name, entry.remove("digest").unwrap()))
        .collect()
}

/// The digest of the component of the app's one service.
fn inspected(cli: &Cli) -> Value {
    printed(cli, &["inspect", "guest"])["digest"].clone()
}

fn digest_of(character: char) -> Value {
    Digest::of(&letter(character)).to_string().into()
}

#[test]
fn what_is_pushed_is_pulled() {
    let (registry, cli) = (Registry::open(), Cli::new());
    let reference = registry.at("acme/guest:1.0.0");
    cli.write("guest.wasm", letter('a'));
    let seen = done(&cli, &["push", "guest.wasm", &reference]);
    let pushed = printed(&cli, &["push", "guest.wasm", &format!("oci://{reference}")]);
    let digest = pushed["digest"].as_str().unwrap();
    assert!(seen.contains(&format!("{reference}@{digest}\n")), "{seen}");
    assert_eq!(pushed["component"], digest_of('a'));
    assert_eq!(pushed["size"], letter('a').len());

    // The same bytes have the same digest under another name, and another one at another time.
    let other = registry.at("other/guest:1.0.0");
    assert_eq!(push(&cli, 'a', &other), digest);
    let mut at = cli.command(&["push", "guest.wasm", &other, "--output", "json"]);
    let output = at.env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap();
    let timed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_ne!(timed["digest"], digest);
    let mut at = cli.command(&["push", "guest.wasm", &other]);
    let output = at.env("SOURCE_DATE_EPOCH", "today").output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");

    let pinned = registry.at(&format!("acme/guest@{digest}"));
    for name in [&reference, &pinned] {
        let pulled = printed(&cli, &["pull", name, "-o", "pulled.wasm"]);
        assert_eq!(pulled["digest"], digest);
        assert_eq!(std::fs::read(cli.path("pulled.wasm")).unwrap(), letter('a'));
        std::fs::remove_file(cli.path("pulled.wasm")).unwrap();
    }
    // By its name in this folder, unless something else has it.
    done(&cli, &["pull", &reference]);
    cli.write("guest.wasm", letter('b'));
    refused(
        &cli,
        &["pull", &reference],
        1,
        &["guest.wasm is there already", "hint: `-o FILE`"],
    );
    done(&cli, &["pull", &reference, "-o", "guest.wasm"]);
    assert_eq!(std::fs::read(cli.path("guest.wasm")).unwrap(), letter('a'));

    let gone = registry.at("acme/guest:2.0.0");
    let said = format!("there is no acme/guest:2.0.0 in {}", registry.address());
    refused(&cli, &["pull", &gone], 1, &[&said, "docker login"]);
    let large = std::fs::File::create(cli.path("large.wasm")).unwrap();
    large.set_len((256 << 20) + 1).unwrap();
    let said = "268435457 bytes are more than a component may have";
    refused(&cli, &["push", "large.wasm", &reference], 78, &[said]);
    cli.write("core.wasm", b"\0asm\x01\0\0\0");
    refused(
        &cli,
        &["push", "core.wasm", &reference],
        78,
        &["it is a core WebAssembly module"],
    );
    refused(&cli, &["pull", "guest:1"], 2, &["names no registry"]);
}

#[test]
fn another_client_reads_what_is_pushed_and_pushes_what_is_read() {
    let (registry, cli) = (Registry::open(), Cli::new());
    let reference = registry.at("acme/guest:1.0.0");
    let annotation = "org.opencontainers.image.licenses=MIT";
    cli.write("guest.wasm", letter('a'));
    done(
        &cli,
        &["push", "guest.wasm", &reference, "--annotation", annotation],
    );
    let folder = cli.path("");
    let fetched = oras(&folder, &["manifest", "fetch", "--plain-http", &reference]);
    let manifest: Value = serde_json::from_str(&fetched).unwrap();
    assert_eq!(
        manifest["config"]["mediaType"],
        "application/vnd.wasm.config.v0+json"
    );
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    assert_eq!(
        manifest["annotations"]["org.opencontainers.image.version"],
        "1.0.0"
    );
    assert_eq!(
        manifest["annotations"]["org.opencontainers.image.licenses"],
        "MIT"
    );
    oras(
        &folder,
        &["pull", "--plain-http", "--output", "by-oras", &reference],
    );
    assert_eq!(
        std::fs::read(cli.path("by-oras/guest.wasm")).unwrap(),
        letter('a')
    );

    cli.write("README.md", "# guest");
    for layer in [
        "application/wasm",
        "application/vnd.wasm.content.layer.v1+wasm",
    ] {
        let theirs = registry.at("theirs/guest:1");
        let file = format!("guest.wasm:{layer}");
        oras(
            &folder,
            &[
                "push",
                "--plain-http",
                &theirs,
                "README.md:text/markdown",
                &file,
            ],
        );
        done(&cli, &["pull", &theirs, "-o", "theirs.wasm"]);
        assert_eq!(std::fs::read(cli.path("theirs.wasm")).unwrap(), letter('a'));
    }
    // Anything else is refused by what it is.
    let other = registry.at("theirs/other:1");
    oras(
        &folder,
        &["push", "--plain-http", &other, "README.md:text/markdown"],
    );
    let said = format!(
        "{other} is no component: it has no layer of type application/wasm, but text/markdown"
    );
    refused(&cli, &["pull", &other], 78, &[&said]);
    let core = registry.at("theirs/core:1");
    cli.write("core.wasm", b"\0asm\x01\0\0\0");
    oras(
        &folder,
        &["push", "--plain-http", &core, "core.wasm:application/wasm"],
    );
    refused(
        &cli,
        &["pull", &core],
        78,
        &["is no component: it is a core WebAssembly module"],
    );
}

/// What `docker login` writes for the user of the registry.
fn logged_in(cli: &Cli, registry: &str, password: &str) {
    use base64::Engine as _;
    let login = base64::engine::general_purpose::STANDARD.encode(format!("shop:{password}"));
    let config = format!("{{\"auths\":{{\"{registry}\":{{\"auth\":\"{login}\"}}}}}}");
    cli.write(".docker/config.json", config);
}

#[test]
fn a_registry_that_wants_a_login_gets_that_of_docker() {
    let (registry, cli) = (Registry::with_login(), Cli::new());
    let (address, reference) = (registry.address(), registry.at("guest:1"));
    cli.write("guest.wasm", letter('a'));
    let hint = format!("hint: `docker login {address}`");
    let wants = format!("{address} wants a login for guest");
    refused(
        &cli,
        &["push", "guest.wasm", &reference],
        1,
        &[&wants, &hint],
    );
    refused(&cli, &["pull", &reference], 1, &[&wants, &hint]);
    logged_in(&cli, address, "wrong");
    let wants = format!("{address} wants another login for guest");
    refused(&cli, &["pull", &reference], 1, &[&wants, &hint]);

    logged_in(&cli, address, "secret");
    done(&cli, &["push", "guest.wasm", &reference]);
    done(&cli, &["pull", &reference, "-o", "pulled.wasm"]);
    // From where else docker may have it.
    std::fs::rename(cli.path(".docker"), cli.path("docker")).unwrap();
    let mut pull = cli.command(&["pull", &reference]);
    let output = pull
        .env("DOCKER_CONFIG", cli.path("docker"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_helper_of_docker_is_asked_for_a_login() {
    let (registry, cli) = (Registry::with_login(), Cli::new());
    let (address, reference) = (registry.address(), registry.at("guest:1"));
    cli.write("guest.wasm", letter('a'));
    let helper = format!(
        "#!/bin/sh\nread server\n[ \"$1 $server\" = \"get {address}\" ] || exit 1\necho '{{\"ServerURL\":\"\",\"Username\":\"shop\",\"Secret\":\"secret\"}}'\n"
    );
    cli.write("bin/docker-credential-test", helper);
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(cli.path("bin/docker-credential-test"), executable).unwrap();
    let push = |config: &str| {
        cli.write(".docker/config.json", config);
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", cli.path("bin").display());
        let mut push = cli.command(&["push", "guest.wasm", &reference]);
        let output = push.env("PATH", path).output().unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    for config in [
        format!("{{\"credHelpers\":{{\"{address}\":\"test\"}}}}"),
        "{\"credsStore\":\"test\"}".to_owned(),
    ] {
        let (is_pushed, said) = push(&config);
        assert!(is_pushed, "{said}");
    }
    let (is_pushed, said) = push("{\"credsStore\":\"gone\"}");
    let why = "caused by: the login of docker cannot be had: its credential helper cannot be run";
    assert!(!is_pushed && said.contains(why), "{said}");
}

#[test]
fn certificates_are_checked_and_those_of_the_operator_are_trusted() {
    let (registry, cli) = (Registry::with_tls(), Cli::new());
    let reference = registry.at("guest:1");
    cli.write("guest.wasm", letter('a'));
    // It is of this machine, but has TLS, and so that counts.
    refused(
        &cli,
        &["push", "guest.wasm", &reference],
        1,
        &["cannot reach", "certificate"],
    );
    let ca = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/gateway/tls/ca.pem");
    let mut push = cli.command(&["push", "guest.wasm", &reference]);
    let output = push.env("SSL_CERT_FILE", ca).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_tag_stays_what_it_was_until_it_is_updated() {
    let (registry, cli) = (Registry::open(), Cli::new());
    let reference = registry.at("guest:1");
    let first = push(&cli, 'a', &reference);
    cli.write("wasmbay.toml", app(&reference));
    let said = format!("wasmbay.lock would change: {reference} is not in it");
    refused(
        &cli,
        &["check", "--locked"],
        78,
        &[&said, "hint: `wasmbay check` without"],
    );
    assert!(!cli.path("wasmbay.lock").exists());
    done(&cli, &["check"]);
    assert_eq!(lock(&cli), [(reference.clone(), first.clone())].into());

    let second = push(&cli, 'b', &reference);
    done(&cli, &["check", "--locked"]);
    assert_eq!(inspected(&cli), digest_of('a'));
    let short = |digest: &str| digest["sha256:".len()..][..12].to_owned();
    let line = format!("{reference}: {} → {}\n", short(&first), short(&second));
    let seen = done(&cli, &["update", "--dry-run"]);
    assert!(seen.contains(&line), "{seen}");
    assert_eq!(inspected(&cli), digest_of('a'));
    let seen = done(&cli, &["update"]);
    assert!(
        seen.contains(&line) && seen.contains("wrote wasmbay.lock"),
        "{seen}"
    );
    assert_eq!(inspected(&cli), digest_of('b'));
    assert!(done(&cli, &["update"]).contains("nothing has changed"));

    // One that is pinned by its digest needs no lock, and has none.
    let pinned = registry.at(&format!("guest@{first}"));
    cli.write("wasmbay.toml", app(&pinned));
    refused(
        &cli,
        &["check", "--locked"],
        78,
        &[&format!("no service has {reference}")],
    );
    assert_eq!(inspected(&cli), digest_of('a'));
    assert!(!cli.path("wasmbay.lock").exists());
    done(&cli, &["check", "--locked"]);
}

#[test]
fn some_services_are_updated() {
    let (registry, cli) = (Registry::open(), Cli::new());
    let [one, two] = ["one:1", "two:1"].map(|name| registry.at(name));
    let service = |name: &str, component: &str| {
        format!("[service.{name}]\ncomponent = \"{component}\"\nwire = {{}}\n")
    };
    let manifest = [
        "name = \"app\"\n".to_owned(),
        service("one", &format!("oci://{one}")),
        service("two", &format!("oci://{two}")),
        service("file", "pushed.wasm"),
    ];
    cli.write("wasmbay.toml", manifest.concat());
    for name in [&one, &two] {
        push(&cli, 'a', name);
    }
    let of = |service: &str| {
        let args = ["update", "--service", service];
        printed(&cli, &args)["updated"].as_array().unwrap().clone()
    };
    let updated = of("two");
    assert_eq!(updated[0]["reference"], two);
    assert_eq!((updated.len(), &updated[0]["from"]), (1, &Value::Null));
    assert_eq!(lock(&cli).len(), 1);
    refused(
        &cli,
        &["update", "--service", "file"],
        1,
        &["has its component here", "one, two"],
    );
    refused(
        &cli,
        &["update", "--service", "three"],
        1,
        &["is not in the manifest"],
    );
    // Whatever is wrong with it is said before anything is asked.
    cli.write("wasmbay.lock", "[\"one:1\"]\n");
    let told = [
        "wasmbay.lock: ",
        "missing field `digest`",
        "restore it, or delete it",
    ];
    refused(&cli, &["check"], 78, &told);
    refused(&cli, &["update"], 78, &told);
}

#[test]
fn what_was_fetched_is_there_without_the_registry() {
    let (registry, cli) = (Registry::open(), Cli::new());
    let reference = registry.at("guest:1");
    push(&cli, 'a', &reference);
    cli.write("wasmbay.toml", app(&reference));
    done(&cli, &["build"]);
    drop(registry);
    done(&cli, &["check", "--locked"]);
    assert_eq!(inspected(&cli), digest_of('a'));
    refused(
        &cli,
        &["check", "--cache", "other"],
        78,
        &["service \"guest\"", "cannot reach"],
    );
    // A file with other bytes is as good as none.
    let file = format!(".cache/wasmbay/registry/{}.wasm", Digest::of(&letter('a')));
    cli.write(&file, letter('b'));
    refused(&cli, &["check"], 78, &["cannot reach"]);
    cli.write(&file, letter('a'));
    done(&cli, &["check"]);
}

#[test]
fn an_app_runs_from_a_registry_and_follows_an_update() {
    let (registry, cli) = (Registry::open(), Cli::new());
    let reference = registry.at("guest:1");
    push(&cli, 'a', &reference);
    cli.write("wasmbay.toml", app(&reference));
    let up = cli.up(&[]);
    let answers = |letter: char| {
        let expected = format!("\"{letter}\"");
        until_ok_blocking_within(PATIENCE, "the version answers", || {
            let seen = cli.run(&["call", "api.repeat", "[1]"]);
            seen.contains(&expected).then_some(()).ok_or(seen)
        });
    };
    answers('a');
    push(&cli, 'b', &reference);
    done(&cli, &["update"]);
    up.until("swapped guest");
    answers('b');
    // One component more, straight from the registry.
    let next = registry.at("guest:2");
    push(&cli, 'c', &next);
    done(
        &cli,
        &["deploy", &format!("oci://{next}"), "--service", "app/guest"],
    );
    answers('c');
    up.stop();
}

#[test]
fn a_path_is_told_from_a_reference() {
    let cli = Cli::new();
    let refusal = |component: &str| {
        cli.write("wasmbay.toml", app(component).replace("oci://", ""));
        cli.run(&["check"])
    };
    for (component, said) in [
        (
            "ghcr.io/acme/guest:1",
            "a component in a registry is `oci://ghcr.io/acme/guest:1`",
        ),
        ("acme:guest@1.0.0", "`oci://REGISTRY/acme/guest:1.0.0`"),
        (
            "guest",
            "accepted: a guest's folder, a `.wasm` file or `oci://REGISTRY/NAME:TAG`",
        ),
    ] {
        let seen = refusal(component);
        assert!(seen.contains(said) && seen.ends_with("[exit 78]"), "{seen}");
    }
    cli.write("wasmbay.toml", app("ghcr.io/acme/guest"));
    let said = "wasmbay.toml:3:13: service \"guest\": `component`: `oci://ghcr.io/acme/guest` has neither a tag nor a digest";
    refused(&cli, &["check"], 78, &[said]);
}
