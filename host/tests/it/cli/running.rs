//! An app that runs: how it starts, is called, changes and ends.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use rustix::process::Signal;

use super::{APP, demo, json, session};
use crate::support::cli::{Cli, assert_seen};
use crate::support::components::{GUEST, SLEEPER};
use crate::support::http::request;

/// What a running app writes for other commands.
pub(super) fn announced(cli: &Cli) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(cli.path(".wasmbay/host.json")).unwrap()).unwrap()
}

pub(super) fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn an_app_serves_until_a_signal_stops_it() {
    let cli = demo();
    let up = cli.up(&[]);
    assert_eq!(
        up.stderr()
            .lines()
            .filter(|line| !line.contains(" INFO "))
            .count(),
        0
    );
    assert!(
        cli.run(&["call", "api.count"])
            .ends_with("[stdout]\n1\n[exit 0]")
    );
    let ready = announced(&cli);
    let address = ready["gateway"]
        .as_str()
        .unwrap()
        .trim_start_matches("http://");
    assert!(get(address, "/echo/you").ends_with("\r\n\r\n\"you\""));
    up.signal(Signal::TERM);
    assert_seen!(cli, "up", up.end());
    assert!(!cli.path(".wasmbay/host.json").exists());
}

#[test]
fn a_script_reads_what_happens_as_json() {
    let cli = demo();
    let up = cli.up(&["--output", "json", "--log-format", "json", "--workers", "1"]);
    let stderr = up.stderr();
    let printed = up.stop();
    let events: Vec<serde_json::Value> = printed
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    assert_eq!(events[0]["event"], "ready");
    assert_eq!(
        events[0]["services"][0]["exports"][0],
        "test:guest/api@1.0.0"
    );
    assert_eq!(
        events[1],
        serde_json::json!({ "event": "stopped", "drained": true, "givenUp": 0, "confirmed": true })
    );
    for line in stderr.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(record["message"].is_string(), "{line}");
    }
}

#[test]
fn functions_are_called_by_short_or_full_names() {
    let cli = demo().with(&[("args.json", r#"{"text": "from a file"}"#)]);
    let _up = cli.up(&["--no-gateway"]);
    let mut seen = session(
        &cli,
        &[
            &["call", "api.echo", r#"{"text":"hé"}"#],
            &["call", "test:guest/api.echo@1.0.0", r#"["by position"]"#],
            &["call", "guest/api.echo", "@args.json"],
            &["call", "api.count"],
            &["call", "api.check", "[3]"],
            &["call", "api.check", "[30]"],
            &["call", "api.check", "[30]", "--output", "json"],
            &["call", "api.trap"],
            &["call", "api.trap", "--output", "json"],
            &["call", "api.spin", "--timeout", "300ms"],
        ],
    );
    seen.push_str("\n\n");
    seen.push_str(&cli.run_with_input(&["call", "api.echo", "-"], br#"["from stdin"]"#));
    assert_seen!(cli, "call", seen);
}

#[test]
fn wrong_calls_are_refused_before_they_are_sent() {
    let cli = demo();
    let _up = cli.up(&["--no-gateway"]);
    assert_seen!(
        cli,
        "call_wrong",
        session(
            &cli,
            &[
                &["call", "api.echo"],
                &["call", "api.echo", r#"{"txt":"x"}"#],
                &["call", "api.check", r#"{"number":-1}"#],
                &["call", "api.check", "{"],
                &["call", "api.echo", "@missing.json"],
                &["call", "api.ecco", "[]"],
                &["call", "orders.place", "[]"],
                &["call", "test:guest/api.echo@2.0.0", "[]"],
                &["call", "echo", "[]"],
                &["call", "api.echo", r#"["x"]"#, "--app", "other"],
                &[
                    "call",
                    "api.echo",
                    r#"["x"]"#,
                    "--nats",
                    "nats://127.0.0.1:1"
                ],
            ],
        )
    );
    // Nothing of this reached the service.
    assert!(
        cli.run(&["call", "api.count"])
            .ends_with("[stdout]\n1\n[exit 0]")
    );
}

#[test]
fn a_port_in_use_is_an_error_with_a_hint() {
    let cli = demo();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    assert_seen!(
        cli,
        "port_in_use",
        cli.run(&["up", "--log", "off", "--listen", &address])
    );
}

#[test]
fn the_admin_address_comes_from_option_or_manifest() {
    let cli = demo();
    let admin = |args: &[&str]| {
        let up = cli.up(args);
        let address = announced(&cli)["admin"].as_str().map(str::to_owned);
        let said = address.as_deref().map(|address| {
            let address = address.trim_start_matches("http://");
            let (ip, port) = address.rsplit_once(':').unwrap();
            up.until(&format!("admin  http://{address}"));
            let reached = if ip == "0.0.0.0" { "127.0.0.1" } else { ip };
            let listed = request(&format!("{reached}:{port}"), "/dead-letters", None).unwrap();
            assert_eq!(listed.status_and_body(), (200, r#"{"deadLetters":[]}"#));
            ip.to_owned()
        });
        up.stop();
        said
    };
    let on = |ip: &str| Some(ip.to_owned());
    assert_eq!(admin(&[]), None);
    let given = ["--admin", "127.0.0.1:0"];
    assert_eq!(admin(&given), on("127.0.0.1"));
    // What other machines reach asks for a token.
    let everywhere = ["up", "--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"];
    let open = cli.run(&everywhere);
    assert!(
        open.contains("the admin address 0.0.0.0:0 can be reached from other machines")
            && open.contains("hint: `--admin-token-file FILE` has it ask for a token")
            && open.contains("78"),
        "{open}"
    );
    cli.write("token", "short");
    let short = cli.run(&[&everywhere[..], &["--admin-token-file", "token"]].concat());
    assert!(short.contains("token: a token has 16 to 256"), "{short}");

    cli.write(
        "wasmbay.toml",
        format!("{APP}[gateway]\nadmin = \"127.0.0.2:0\"\n"),
    );
    assert_eq!(admin(&[]), on("127.0.0.2"));
    assert_eq!(admin(&given), on("127.0.0.1"));
    assert_eq!(admin(&["--no-gateway"]), None);
    assert_eq!(
        admin(&["--no-gateway", "--admin", "127.0.0.1:0"]),
        on("127.0.0.1")
    );

    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let used = cli.run(&["up", "--listen", "127.0.0.1:0", "--admin", &address]);
    assert!(
        used.contains("the admin address cannot listen on"),
        "{used}"
    );
    assert!(used.contains("hint: `--admin 127.0.0.1:0` takes"), "{used}");
}

#[test]
fn one_app_runs_once_on_its_own_nats() {
    let cli = demo();
    let up = cli.up(&[]);
    assert_seen!(cli, "two_ups", cli.run(&["up", "--listen", "127.0.0.1:0"]));
    // The first one is still found.
    assert!(
        cli.run(&["call", "api.count"])
            .ends_with("[stdout]\n1\n[exit 0]")
    );
    up.stop();
}

#[test]
fn two_hosts_of_one_app_share_a_nats() {
    let cli = demo();
    let up = cli.up(&[]);
    let ready = announced(&cli);
    let url = std::fs::read_to_string(ready["natsUrlFile"].as_str().unwrap()).unwrap();
    let second = cli.up(&["--nats", &url]);
    second.until("runs this folder's app, too");
    for key in ["pid", "nats", "gateway"] {
        assert_eq!(announced(&cli)[key], ready[key]);
    }
    assert!(
        cli.run(&["call", "api.echo", r#"["x"]"#])
            .ends_with("[stdout]\n\"x\"\n[exit 0]")
    );
    assert!(second.stop().ends_with("every call was answered\n[exit 0]"));
    assert!(cli.run(&["call", "api.count"]).ends_with("[exit 0]"));
    assert!(
        cli.run(&["call", "api.count", "--nats", &url])
            .ends_with("[exit 0]")
    );
    up.stop();
}

#[test]
fn its_own_nats_is_for_those_who_can_read_the_login() {
    let cli = demo();
    let up = cli.up(&["--log", "debug"]);
    up.until("Ctrl-C stops");
    let ready = announced(&cli);
    let url = std::fs::read_to_string(ready["natsUrlFile"].as_str().unwrap()).unwrap();
    let (_, login) = url.split_once("//").unwrap();
    let (login, address) = login.split_once('@').unwrap();
    let password = login.strip_prefix("wasmbay:").unwrap();
    assert_eq!(ready["nats"], format!("nats://{address}"));
    let anonymous = [
        "call",
        "api.count",
        "--nats",
        ready["nats"].as_str().unwrap(),
    ];
    let refused = cli.run(&anonymous);
    assert!(
        refused.contains("[exit 1]") && !refused.contains("[stdout]"),
        "{refused}"
    );
    assert!(
        cli.run(&["call", "api.count"])
            .ends_with("[stdout]\n1\n[exit 0]")
    );
    let stderr = up.stderr();
    for printed in [ready.to_string(), stderr, up.stop(), refused] {
        assert!(!printed.contains(password), "{printed}");
    }
}

#[test]
fn what_changes_is_swapped_in_and_what_is_broken_is_not() {
    let cli = demo();
    let up = cli.up(&[]);
    cli.write("guest.wat", GUEST.replace("i32.const 120", "i32.const 121"));
    up.until("swapped guest");
    assert!(cli.run(&["call", "api.repeat", "[3]"]).contains("\"yyy\""));

    cli.write("guest.wat", "(component");
    up.until("what ran before goes on");
    assert!(cli.run(&["call", "api.repeat", "[3]"]).contains("\"yyy\""));

    cli.write("guest.wat", GUEST);
    cli.write(
        "wasmbay.toml",
        format!("{APP}\n[service.second]\ncomponent = \"second.wat\"\n"),
    );
    up.until("there is nothing at");
    cli.write("second.wat", SLEEPER);
    up.until("started second");
    assert!(cli.run(&["call", "api.repeat", "[3]"]).contains("\"xxx\""));

    cli.write(
        "wasmbay.toml",
        APP.replace("[[route]]", "config = { a = \"b\" }\n[[route]]"),
    );
    up.until("stopped second");
    up.until("reconfigured guest");
    let printed = up.stop();
    let after_ready: String = printed
        .lines()
        .skip_while(|line| !line.starts_with("Ctrl-C"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_seen!(cli, "changes", after_ready);
}

#[test]
fn without_watching_changes_wait_for_the_next_start() {
    let cli = demo();
    let up = cli.up(&["--no-watch"]);
    cli.write("guest.wat", "(component");
    assert!(cli.run(&["call", "api.repeat", "[1]"]).contains("\"x\""));
    let printed = up.stop();
    assert!(printed.contains("Ctrl-C stops\n"), "{printed}");
}

#[test]
fn a_killed_host_is_not_taken_for_a_running_one() {
    let cli = demo();
    let up = cli.up(&[]);
    up.signal(Signal::KILL);
    up.end();
    assert!(cli.path(".wasmbay/host.json").exists());
    let seen = cli.run(&["call", "api.count"]);
    assert!(seen.contains("error: no app of this folder"), "{seen}");
    // And the next one starts where that one was.
    let up = cli.up(&[]);
    assert!(json(&cli.run(&["call", "api.count"])) == 1);
    up.stop();
}
