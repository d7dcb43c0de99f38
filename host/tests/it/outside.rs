//! gRPC services outside of wasmbay, over TLS.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::gateway::clients::tool;
use crate::gateway::tls::file;
use crate::support::cli::{Cli, Up};
use crate::support::components::CALLER;
use crate::support::http::{Response, request};

/// A program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What an app says to a call that a service at this address has to answer, where these authorities are trusted.
fn asked(address: &str, authorities: Option<&Path>) -> Response {
    let manifest = format!(
        "name = \"app\"\n[service.caller]\ncomponent = \"caller.wasm\"\n\
         [wire.\"test:other/api\"]\nexternal = \"{address}\"\n"
    );
    let cli = Cli::new().with(&[("wasmbay.toml", &manifest)]);
    cli.write("caller.wasm", wat::parse_str(CALLER).unwrap());
    let mut command = cli.command(&["up", "--listen", "127.0.0.1:0"]);
    if let Some(authorities) = authorities {
        command.env("SSL_CERT_FILE", authorities);
    }
    let up = Up::start(command);
    up.until_built("ready");
    let running = std::fs::read(cli.path(".wasmbay/host.json")).unwrap();
    let running: Value = serde_json::from_slice(&running).unwrap();
    let gateway = running["gateway"].as_str().unwrap();
    let gateway = gateway.strip_prefix("http://").unwrap();
    let answer = request(gateway, "/rpc/test:caller/api/ask", Some("[7]")).unwrap();
    up.stop();
    answer
}

#[test]
fn a_service_outside_has_to_show_a_certificate_for_its_name_of_a_known_authority() {
    let mut server = Command::new(tool("python-grpc", "grpc"));
    server
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/by_grpc_tls_server.py"))
        .args([file("server.pem"), file("server.key")])
        .stdout(Stdio::piped());
    let mut server = Running(server.spawn().unwrap());
    let mut port = String::new();
    let mut printed = BufReader::new(server.0.stdout.take().unwrap());
    printed.read_line(&mut port).unwrap();
    let port = port.trim();

    let (right, wrong) = (file("ca.pem"), file("stranger.pem"));
    for host in ["localhost", "127.0.0.1"] {
        let answer = asked(&format!("grpcs://{host}:{port}"), Some(&right));
        assert_eq!(answer.status_and_body(), (200, "7"), "{host}");
    }
    // An authority that is not trusted, none, a name that is not in the certificate, and no TLS.
    for (address, authorities, part) in [
        ("grpcs://localhost", Some(&wrong), "UnknownIssuer"),
        ("grpcs://localhost", None, "UnknownIssuer"),
        ("grpcs://127.0.0.2", Some(&right), "not valid for name"),
        ("grpc://127.0.0.1", Some(&right), ""),
    ] {
        let answer = asked(
            &format!("{address}:{port}"),
            authorities.map(|path| path.as_path()),
        );
        assert_eq!(answer.status, 502, "{answer:?}");
        assert!(answer.body.contains(part), "{answer:?}");
    }
}
