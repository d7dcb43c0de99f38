//! A source that changes while its app runs, and a guest that uses HTTP.

use super::*;

/// An app of the one guest that is beside it.
const POST: &str = r#"
name = "post"

[service.notifications]
component = "notifications"
"#;

#[test]
fn a_changed_source_is_built_and_swapped_in() {
    let source = read("guests/c/notifications/notifications.c");
    let cli = Cli::new().with(&[
        ("wasmbay.toml", POST),
        ("notifications/notifications.c", &source),
    ]);
    for folder in ["wit", "wit/deps"] {
        for file in std::fs::read_dir(root().join(folder)).unwrap() {
            let file = file.unwrap().path();
            if file.is_file() {
                let name = file.file_name().unwrap().to_str().unwrap();
                cli.write(&format!("{folder}/{name}"), std::fs::read(&file).unwrap());
            }
        }
    }
    let post = Example::run(cli);
    let send = || {
        let message =
            json!({ "channel": "sms", "to": "+351211234567", "subject": "s", "body": "b" });
        let sent = post.post("/rpc/shop:notifications/notifier/send", &json!([message]));
        assert_eq!(sent.status, 200, "{sent:?}");
        sent.json()["ok"].as_str().unwrap().to_owned()
    };
    assert!(send().starts_with("msg-"));

    let changed = source.replace("\"msg-%016\"", "\"note-%016\"");
    post.cli.write("notifications/notifications.c", &changed);
    post.up.until_built("swapped notifications");
    assert!(send().starts_with("note-"));

    let broken = changed.replacen("static bool", "static bol", 1);
    post.cli.write("notifications/notifications.c", broken);
    post.up.until_built("what ran before goes on");
    assert!(post.up.stderr().contains("notifications.c:"));
    assert!(send().starts_with("note-"));
    post.stop();
}

/// Answers every request with its path, until the test ends.
fn web() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            let path = line.split(' ').nth(1).unwrap();
            let length = path.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{path}"
            )
            .unwrap();
        }
    });
    address
}

#[test]
fn a_guest_reaches_the_hosts_that_it_was_granted() {
    // By WASI 0.2, and by 0.3.
    reaches_what_is_granted("http-echo", "200 /from-a-guest");
    reaches_what_is_granted("http-concurrent", "/from-a-guest");
}

fn reaches_what_is_granted(guest: &str, answer: &str) {
    let (granted, other) = (web(), web());
    let guest = root().join("guests/rust").join(guest);
    let manifest = format!(
        r#"
name = "relay"

[service.echo]
component = "{}"
grants = {{ http = ["{granted}"] }}

[[route]]
path = "/echo/*"
service = "echo"
"#,
        guest.display()
    );
    let relay = Example::run(Cli::new().with(&[("wasmbay.toml", &manifest)]));
    let through = |to: &str| relay.get(&format!("/echo/relay?{to}"));
    assert_eq!(through(&granted).status_and_body(), (200, answer));
    assert_eq!(
        through(&other).status_and_body(),
        (200, "ErrorCode::HttpRequestDenied")
    );
    relay.up.until("outgoing HTTP refused");
    relay.stop();
}
