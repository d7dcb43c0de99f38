//! Files of granted folders: read, never written, and nothing beside them.

use std::error::Error as _;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};
use wasmbay::host::{Host, HostOptions};
use wasmbay::nats::ConnectOptions;
use wasmbay::runtime::{Engine, EngineOptions};

use crate::examples::{Example, root};
use crate::support::DEADLINE;
use crate::support::apps::{Services, apply};
use crate::support::cli::Cli;
use crate::support::nats::Nats;

fn app(grants: &str) -> Cli {
    let guest = root().join("guests/rust/reads-files");
    let guest = guest.display();
    let manifest =
        format!("name = \"files\"\n[service.reader]\ncomponent = \"{guest}\"\ngrants = {grants}\n");
    let files = [
        ("wasmbay.toml", &*manifest),
        ("templates/a.txt", "hello"),
        ("templates/deep/b.txt", "below"),
        ("secret.txt", "secret"),
    ];
    Cli::new().with(&files)
}

fn ask(app: &Example, function: &str, arguments: Value) -> Value {
    let path = format!("/rpc/bay:reads-files/files/{function}");
    let asked = app.post(&path, &arguments);
    assert_eq!(asked.status, 200, "{asked:?}");
    asked.json()
}

#[test]
fn granted_folders_are_read_and_nothing_else() {
    let cli = app("{ files = [\"templates\"] }");
    let (secret, deep) = (cli.path("secret.txt"), cli.path("templates/deep"));
    symlink(&secret, cli.path("templates/out")).unwrap();
    symlink("deep/b.txt", cli.path("templates/in")).unwrap();
    symlink("/etc", deep.join("etc")).unwrap();
    let app = Example::run(cli);
    let read = |path: &str| ask(&app, "read", json!([path]));
    for (path, text) in [
        ("/templates/a.txt", "hello"),
        ("templates/deep/b.txt", "below"),
        ("/templates/deep/../a.txt", "hello"),
        ("/templates/in", "below"),
    ] {
        assert_eq!(read(path), json!({ "ok": text }), "{path}");
    }
    let names = ask(&app, "names", json!(["/templates"]));
    assert_eq!(names, json!({ "ok": ["a.txt", "deep", "in", "out"] }));
    let secret = secret.display().to_string();
    for path in [
        "/templates/../secret.txt",
        "/templates/deep/../../secret.txt",
        "/templates/out",
        "/templates/deep/etc/passwd",
        "/secret.txt",
        "secret.txt",
        "/etc/passwd",
        &secret,
    ] {
        let refused = read(path);
        assert!(refused["err"].is_string(), "{path}: {refused}");
    }
    for (function, arguments) in [
        ("write", json!(["/templates/a.txt", "changed"])),
        ("write", json!(["/templates/new.txt", "new"])),
        ("remove", json!(["/templates/a.txt"])),
    ] {
        let refused = ask(&app, function, arguments);
        assert!(refused["err"].is_string(), "{refused}");
    }
    assert_eq!(read("/templates/a.txt"), json!({ "ok": "hello" }));

    assert_eq!(
        ask(&app, "open", json!(["/templates/a.txt", 60])),
        json!({ "ok": null })
    );
    let many = app.post(
        "/rpc/bay:reads-files/files/open",
        &json!(["/templates/a.txt", 70]),
    );
    assert_eq!(many.status, 500, "{many:?}");
    assert!(many.body.contains("that the host holds for it"), "{many:?}");
    app.stop();
}

#[test]
fn without_a_grant_there_are_no_files() {
    let app = Example::run(app("{}"));
    for path in ["/templates/a.txt", "/", "."] {
        for function in ["read", "names"] {
            let refused = ask(&app, function, json!([path]));
            assert!(refused["err"].is_string(), "{path}: {refused}");
        }
    }
    app.stop();
}

/// A service that could read files.
const READER: &str = r#"
(component
  (core module $code (func (export "one") (result i32) i32.const 1))
  (core instance $core (instantiate $code))
  (func $one (result u32) (canon lift (core func $core "one")))
  (instance $api (export "one" (func $one)))
  (export "test:reader/api@1.0.0" (instance $api)))
"#;

fn small(grant: &str) -> Cli {
    let manifest = format!(
        "name = \"files\"\n[service.reader]\ncomponent = \"reader.wat\"\ngrants = {{ files = [\"{grant}\"] }}\n"
    );
    Cli::new().with(&[
        ("wasmbay.toml", &*manifest),
        ("reader.wat", READER),
        ("templates/a.txt", "hello"),
    ])
}

#[test]
fn a_folder_that_is_not_the_apps_is_refused_by_name() {
    for (grant, wanted) in [
        ("none", "`grants.files`: there is no folder"),
        ("reader.wat", "reader.wat is no folder"),
        ("etc", "is a link to /etc, outside of the app's folder"),
    ] {
        let cli = small(grant);
        symlink("/etc", cli.path("etc")).unwrap();
        let checked = cli.run(&["check"]);
        let service = "service \"reader\": a folder of its files cannot be had";
        assert!(checked.contains(service), "{checked}");
        assert!(checked.contains(wanted), "{checked}");
    }
    let checked = small("templates").run(&["check"]);
    assert!(checked.ends_with("[exit 0]"), "{checked}");
}

#[test]
fn files_do_not_travel_with_a_deploy() {
    let cli = small("templates");
    let refused = cli.run(&["deploy", "--nats", "nats://127.0.0.1:1"]);
    let why = "service \"reader\": `grants.files`: files do not travel with a deploy";
    assert!(refused.contains(why), "{refused}");
}

#[tokio::test]
async fn a_host_without_the_apps_folder_refuses_by_name() {
    let nats = Nats::start().await;
    let keys = "grants = { files = [\"templates\"] }";
    let services = Services(&[("reader", READER, keys)], "");
    let engine = Engine::new(EngineOptions {
        instances: 10,
        cache: None,
    });
    let options = HostOptions::new(ConnectOptions::to(nats.url()));
    let host = Host::start(&services.app(), engine.unwrap(), options).await;
    let host = host.unwrap();
    let error = apply(&host, &services).await.unwrap_err();
    let why = format!("{:?}", error.source().unwrap());
    assert!(why.contains("NoFolder(\"templates\")"), "{why}");
    assert!(host.stop(DEADLINE).await.is_complete());
    nats.stop().await;
}
