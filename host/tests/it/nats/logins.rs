//! How a NATS system is reached: contexts of the `nats` command line, and TLS that begins first.

use std::path::PathBuf;

use wasmbay::host::HostOptions;
use wasmbay::nats::{ConnectError, ConnectOptions};

use crate::support::DEADLINE;
use crate::support::apps::{Services, start_with};
use crate::support::cli::Cli;
use crate::support::components::GUEST;
use crate::support::nats::Configured;

const APP: &str = "name = \"app\"\n[service.guest]\ncomponent = \"guest.wasm\"";

const USERS: &str = "authorization { users = [ { user: host, password: \"pa/ss\" } ] }";

/// A context as `nats context add` writes it, with what it leaves empty.
fn context(url: &str, more: &str) -> String {
    format!(
        "{{ \"description\": \"\", \"url\": \"{url}\", \"socks_proxy\": \"\", \"token\": \"\", \"user\": \"host\", \
         \"password\": \"pa/ss\", \"creds\": \"\", \"nkey\": \"\", \"cert\": \"\", \"key\": \"\", \"ca\": \"\", \
         \"nsc\": \"\", \"jetstream_domain\": \"\", \"jetstream_api_prefix\": \"\", \"jetstream_event_prefix\": \"\", \
         \"inbox_prefix\": \"\", \"user_jwt\": \"\", \"color_scheme\": \"\", \"tls_first\": false{more} }}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_of_the_nats_command_line_says_where_nats_is() {
    let server = Configured::start(USERS).await;
    let one = context(server.url(), "");
    let cli = Cli::new().with(&[
        ("wasmbay.toml", APP),
        ("guest.wasm", GUEST),
        (".config/nats/context/one.json", &one),
        (".config/nats/context.txt", "one"),
        ("xdg/nats/context/two.json", &one),
        (
            ".config/nats/context/nsc.json",
            &context(server.url(), ", \"user_seed\": \"x\""),
        ),
    ]);
    let up = cli.up(&["--no-gateway", "--nats-context", "one"]);
    let call = |more: &[&str]| cli.run(&[&["call", "api.echo", r#"["x"]"#], more].concat());
    for name in ["one", "."] {
        let said = call(&["--nats-context", name]);
        assert!(said.contains("\"x\"\n[exit 0]"), "{said}");
    }
    let mut command = cli.command(&["call", "api.echo", r#"["x"]"#]);
    let with_environment = command
        .env("NATS_CONTEXT", "two")
        .env("XDG_CONFIG_HOME", cli.path("xdg"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&with_environment.stdout), "\"x\"\n");

    let missing = call(&["--nats-context", "on"]);
    assert!(
        missing.contains("there is no NATS context \"on\" (there are: nsc, one)"),
        "{missing}"
    );
    assert!(missing.ends_with("[exit 78]"), "{missing}");
    let unsupported = call(&["--nats-context", "nsc"]);
    assert!(
        unsupported.contains("it sets `user_seed`, which wasmbay does not support"),
        "{unsupported}"
    );
    // A server that is given takes the place of the context's.
    let elsewhere = call(&["--nats-context", "one", "--nats", "nats://127.0.0.1:1"]);
    assert!(elsewhere.contains("127.0.0.1:1"), "{elsewhere}");
    // Nothing is taken from a context unless it is asked for.
    let unasked = cli.command(&["call", "api.echo", r#"["x"]"#, "--nats", server.url()]);
    let unasked = { unasked }.output().unwrap();
    let said = String::from_utf8_lossy(&unasked.stderr).into_owned();
    assert!(said.contains("refused the login"), "{said}");
    up.stop();
}

fn file(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/nats/tls");
    folder.join(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_begins_before_the_server_says_anything_where_it_wants_that() {
    let tls = format!(
        "tls {{ cert_file: {:?}, key_file: {:?}, handshake_first: true }}",
        file("server.pem"),
        file("server.key")
    );
    let server = Configured::start(&tls).await;
    let url = server.url().replace("nats://", "tls://");
    let options = ConnectOptions {
        tls_ca: Some(file("ca.pem")),
        tls_first: true,
        ..ConnectOptions::to(&url)
    };
    let host = start_with(
        HostOptions::new(options.clone()),
        &Services(&[("guest", GUEST, "")], ""),
    )
    .await;
    let cli = Cli::new();
    let ca = file("ca.pem").display().to_string();
    let call = [
        "call",
        "api.echo",
        r#"["x"]"#,
        "--nats",
        &url,
        "--nats-ca",
        &ca,
    ];
    let said = cli.run(&[&call[..], &["--nats-tls-first"]].concat());
    assert!(said.contains("\"x\"\n[exit 0]"), "{said}");

    let later = ConnectOptions {
        tls_first: false,
        ..options
    };
    let refused = later.connect().await.unwrap_err();
    assert!(
        matches!(
            refused,
            ConnectError::Tls { .. } | ConnectError::Unreachable { .. }
        ),
        "{refused:?}"
    );
    assert!(host.stop(DEADLINE).await.is_complete());
}
