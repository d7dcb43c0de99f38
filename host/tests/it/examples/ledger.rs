//! The ledger: three services in three languages on one database.

use super::*;
use crate::support::postgres::{PASSWORD, Postgres, USER};

/// The manifest, for this server.
fn on(database: &Postgres, options: &str) -> String {
    let port = database.port;
    let password = PASSWORD.replace(' ', "%20");
    let url = format!("postgres://{USER}:{password}@127.0.0.1:{port}/postgres{options}");
    let manifest = manifest("ledger");
    let manifest = manifest.replace("postgres://ledger:ledger@127.0.0.1:5432/ledger", &url);
    assert_eq!(manifest.matches(&url).count(), 3, "{manifest}");
    manifest.replace("127.0.0.1:5432", &format!("127.0.0.1:{port}"))
}

fn start(manifest: &str) -> Example {
    Example::run(Cli::new().with(&[("wasmbay.toml", manifest)]))
}

/// A path for each service, and the beginning of its answer.
const READS: [(&str, &str); 3] = [
    ("/accounts/ada", "9750"),
    ("/accounts/ada/transfers?limit=5", r#"[{"id":1,"at":"20"#),
    ("/report", r#""account"#),
];

/// Every service reads from the database.
fn all_read(ledger: &Example) {
    for (path, answer) in READS {
        let found = ledger.get(path);
        assert_eq!(found.status, 200, "{path}: {found:?}");
        assert!(found.body.starts_with(answer), "{path}: {found:?}");
    }
}

/// Every service says in its own words that it cannot read, and which of these words are among them.
fn none_reads(ledger: &Example, words: &[&str]) {
    for (path, _) in READS {
        until_ok_blocking_within(PATIENCE, &format!("{path} says {words:?}"), || {
            let found = ledger.get(path);
            let body = found.body.to_lowercase();
            let says = words.iter().any(|words| body.contains(words));
            let refused = found.status == 503 && body.starts_with(r#"{"tag":"unavailable""#);
            if refused && says { Ok(()) } else { Err(found) }
        });
    }
}

fn until_all_read(ledger: &Example) {
    for (path, _) in READS {
        until_ok_blocking_within(PATIENCE, &format!("{path} is read"), || {
            let found = ledger.get(path);
            if found.status == 200 {
                Ok(())
            } else {
                Err(found)
            }
        });
    }
}

#[test]
fn ledger_keeps_accounts_in_a_database_that_comes_and_goes() {
    let mut database = Postgres::start("host");
    let ledger = start(&on(&database, ""));

    let shown = curls(&read("examples/ledger/README.md"));
    assert_eq!(shown.len(), 6);
    for curl in &shown {
        curl.check(&ledger.gateway);
    }
    for (body, status) in [
        (
            json!({ "sender": "ada", "receiver": "bob", "cents": 1_000_000 }),
            409,
        ),
        (
            json!({ "sender": "ada", "receiver": "nobody", "cents": 1 }),
            404,
        ),
        (
            json!({ "sender": "ada", "receiver": "bob", "cents": 0 }),
            422,
        ),
    ] {
        let refused = ledger.post("/transfers", &body);
        assert_eq!(refused.status, status, "{refused:?}");
    }
    assert_eq!(ledger.get("/accounts/eve/transfers?limit=1").status, 404);
    all_read(&ledger);

    // Eight calls at a time, as the manifest says, and as many connections at the most.
    database.end_connections();
    thread::scope(|scope| {
        for number in 0..32 {
            let (ledger, database) = (&ledger, &database);
            scope.spawn(move || {
                let account = json!({ "name": format!("many-{number}"), "cents": 1 });
                until_ok_blocking_within(PATIENCE, "the account is there", || {
                    let opened = ledger.post("/accounts", &account);
                    let connections = database.connections().len();
                    assert!(connections <= 8, "{connections}");
                    // On a slow machine some wait for too long.
                    if opened.status == 201 {
                        Ok(())
                    } else {
                        Err(opened)
                    }
                });
            });
        }
    });
    assert!(!database.connections().is_empty());

    // What is kept with an instance is replaced when the server has closed it: no call fails by that.
    for _ in 0..3 {
        let before = database.connections();
        assert!(!before.is_empty());
        database.end_connections();
        all_read(&ledger);
    }

    database.stop();
    // A pool tries again for as long as it may, and says so.
    none_reads(
        &ledger,
        &["refused", "timed out", "can't create a connection"],
    );
    database.start_again();
    until_all_read(&ledger);
    all_read(&ledger);

    let password = PASSWORD.replace(' ', "%20");
    ledger.change(&password, "wrong");
    none_reads(&ledger, &["password authentication failed"]);
    ledger.change("wrong", &password);
    until_all_read(&ledger);

    let granted = format!("tcp = [\"127.0.0.1:{}\"]", database.port);
    ledger.change(&granted, "tcp = [\"127.0.0.1:1\"]");
    none_reads(&ledger, &["permission denied", "can't create a connection"]);
    ledger
        .up
        .until(&format!("`grants = {{ {granted} }}` would allow it"));
    ledger.stop();
}

#[test]
fn ledger_speaks_tls_with_a_certificate_of_its_own() {
    let database = Postgres::start("hostssl");
    let authority = read("host/tests/it/gateway/tls/ca.pem");
    let manifest = on(&database, "?sslmode=verify-full").replace(
        "env = {",
        &format!("env = {{ DATABASE_CA = '''{authority}''',"),
    );
    let ledger = start(&manifest);
    let account = json!({ "name": "ada", "cents": 9750 });
    assert_eq!(ledger.post("/accounts", &account).status, 201);
    let (path, answer) = READS[0];
    assert_eq!(ledger.get(path).status_and_body(), (200, answer));
    let transfers = ledger.get("/accounts/ada/transfers?limit=5");
    assert_eq!(transfers.status_and_body(), (200, "[]"));
    // Python has no TLS, and the server takes nothing else.
    let report = ledger.get("/report");
    assert_eq!(report.status, 503, "{report:?}");
    assert!(report.body.contains("no encryption"), "{report:?}");

    // Another authority than that of the server's certificate.
    let other = read("host/tests/it/gateway/tls/named-ca.pem");
    ledger.change(&authority, &other);
    for (path, _) in &READS[..2] {
        until_ok_blocking_within(PATIENCE, &format!("{path} refuses the server"), || {
            let found = ledger.get(path);
            let refused = found.status == 503 && found.body.contains("certificate");
            if refused { Ok(()) } else { Err(found) }
        });
    }
    ledger.stop();
}
