//! The gateway by clients of gRPC and of gRPC-Web that others have written.

use std::convert::Infallible;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use hyper::service::service_fn;
use tokio::sync::mpsc;
use wasmbay::manifest::ClientCertificate;

use super::tls::{file, spec};
use super::*;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file of `.tools/bin`.
pub(crate) fn tool(name: &str, of: &str) -> PathBuf {
    let tool = root().join(".tools/bin").join(name);
    assert!(tool.exists(), "no {name}: run `guests/tools.sh {of}`");
    tool
}

fn script(name: &str) -> PathBuf {
    root().join("host/tests/it").join(name)
}

/// What a program printed: whether it ended well, its output and its errors.
pub(crate) async fn run(mut command: Command) -> (bool, String) {
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

pub(crate) async fn grpcurl(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(tool("grpcurl", "grpc"));
    command.args(arguments);
    run(command).await
}

/// The descriptors of what a gateway serves, as reflection has them.
async fn descriptors(front: &Front, folder: &Path) -> PathBuf {
    let file = folder.join("files.binpb");
    let address = front.address.to_string();
    let out = ["-plaintext", "-protoset-out", file.to_str().unwrap()];
    let described = grpcurl(&[&out[..], &[&address, "describe"]].concat()).await;
    assert!(described.0, "{described:?}");
    file
}

#[tokio::test]
async fn a_client_in_node_speaks_grpc_web() {
    let front = Front::start(|_| {}).await;
    let folder = tempfile::tempdir().unwrap();
    let files = descriptors(&front, folder.path()).await;
    let mut node = Command::new("node");
    node.arg(script("by_grpc_web_node.mjs"))
        .arg(tool("grpc-web.mjs", "grpc-web"))
        .arg(front.address.to_string())
        .arg(files);
    let ran = run(node).await;
    assert!(ran.0, "{}", ran.1);
}

/// A client in Python that watches the health of a service over TLS.
pub(crate) struct Watcher {
    python: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Watcher {
    pub(crate) fn start(address: SocketAddr, service: &str) -> Self {
        let mut python = Command::new(tool("python-grpc", "grpc"))
            .arg(script("by_grpc_watch.py"))
            .arg(address.to_string())
            .arg(file("ca.pem"))
            .arg(service)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let printed = BufReader::new(python.stdout.take().unwrap());
        let (sender, lines) = mpsc::unbounded_channel();
        // Ends with the program.
        std::thread::spawn(move || {
            for line in printed.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { python, lines }
    }

    /// The number of the next state, or the name of the status with which it ends.
    pub(crate) async fn next(&mut self) -> Option<String> {
        timeout(DEADLINE, self.lines.recv()).await.unwrap()
    }

    /// What comes before this.
    pub(crate) async fn until(&mut self, wanted: &str) -> Vec<String> {
        let mut before = Vec::new();
        while let Some(line) = self.next().await {
            if line == wanted {
                return before;
            }
            before.push(line);
        }
        panic!("{wanted} never came: {before:?}");
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.python.kill();
        let _ = self.python.wait();
    }
}

#[tokio::test]
async fn a_client_speaks_grpc_over_tls() {
    let ca = file("ca.pem");
    let trusted = ["-cacert", ca.to_str().unwrap()];
    let take = ["-d", "{\"count\":3}"];
    let (certificate, key) = (file("client.pem"), file("client.key"));
    let shown = [
        "-cert",
        certificate.to_str().unwrap(),
        "-key",
        key.to_str().unwrap(),
    ];
    for asked in [ClientCertificate::None, ClientCertificate::Required] {
        let front = Front::with_tls(&spec(asked), |_| {}).await;
        let address = format!("localhost:{}", front.address.port());
        let call = async |options: &[&str]| {
            let method = [&*address, "test.fake.v1.Api/Take"];
            grpcurl(&[options, &take, &method].concat()).await
        };
        let all = [&trusted[..], &shown].concat();
        let (ran, said) = call(&all).await;
        let taken: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
        assert_eq!((ran, taken), (true, json!({ "ok": 5 })));
        // Without a certificate of its own, and without trust in the gateway's.
        let (ran, said) = call(&trusted).await;
        let is_let_in = asked == ClientCertificate::None;
        assert_eq!(ran, is_let_in, "{said}");
        for options in [&[][..], &["-plaintext"]] {
            let options = [&["-connect-timeout", "2"], options].concat();
            let (ran, said) = call(&options).await;
            assert!(!ran, "{said}");
        }
    }
}

#[tokio::test]
async fn a_client_watches_health_over_tls() {
    let nats = Nats::start().await;
    let link = ConnectOptions::to(nats.url()).link().await.unwrap();
    let tls = Tls::load(&spec(ClientCertificate::None)).unwrap();
    let front = Front::bare_with(|_| {}, link, Some(tls));
    front.set_routes(ROUTES, &BTreeMap::new());
    let mut watcher = Watcher::start(front.address, "");
    assert_eq!(watcher.next().await.as_deref(), Some("1"));
    nats.stop().await;
    assert_eq!(watcher.next().await.as_deref(), Some("2"));
    front.gateway.close();
    assert_eq!(watcher.next().await.as_deref(), Some("UNAVAILABLE"));
    assert_eq!(watcher.next().await, None);
    timeout(DEADLINE, front.serving).await.unwrap().unwrap();
}

/// Serves these files of a page.
async fn serve(listener: TcpListener, files: Vec<(&'static str, &'static str, Bytes)>) {
    let files = Arc::new(files);
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let files = Arc::clone(&files);
        let service = service_fn(move |request: Request<Incoming>| {
            let path = request.uri().path();
            let found = files.iter().find(|(known, _, _)| *known == path);
            let answer = Response::builder();
            let answer = match found {
                Some((_, kind, body)) => answer
                    .header(CONTENT_TYPE, *kind)
                    .body(Full::new(body.clone())),
                None => answer.status(404).body(Full::default()),
            };
            async { Ok::<_, Infallible>(answer.unwrap()) }
        });
        let connection = hyper::server::conn::http1::Builder::new();
        tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
    }
}

#[tokio::test]
async fn a_page_of_a_named_origin_speaks_grpc_web_and_no_other_does() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let cors = format!("[gateway]\ncors = {{ origins = [\"http://127.0.0.1:{port}\"] }}\n");
    let front = Front::of(&format!("{ROUTES}{cors}")).await;
    let folder = tempfile::tempdir().unwrap();
    let files = descriptors(&front, folder.path()).await;
    let page = format!(
        "<script type=module>
         import * as clients from '/clients.mjs';
         import {{ calls }} from '/calls.mjs';
         const files = async () => new Uint8Array(await (await fetch('/files')).arrayBuffer());
         const run = async () => calls(clients, '{}', await files());
         window.ended = run().then(() => 'well', String);
         </script>",
        front.address
    );
    let read = |path: PathBuf| Bytes::from(std::fs::read(path).unwrap());
    let script_type = "text/javascript";
    let files = vec![
        ("/", "text/html", Bytes::from(page)),
        (
            "/clients.mjs",
            script_type,
            read(tool("grpc-web.mjs", "grpc-web")),
        ),
        ("/calls.mjs", script_type, read(script("by_grpc_web.mjs"))),
        ("/files", "application/octet-stream", read(files)),
    ];
    let serving = tokio::spawn(serve(listener, files));
    for (browser, program) in [
        ("chrome", "chromium-headless-shell"),
        ("firefox", "firefox-esr"),
    ] {
        let open = async |host: &str| {
            let mut command = Command::new(tool("browse", "browsers"));
            command
                .arg(script("by_grpc_web_page.mjs"))
                .arg(browser)
                .arg(tool(program, "browsers"))
                .arg(format!("http://{host}:{port}/"));
            run(command).await
        };
        assert_eq!(
            open("127.0.0.1").await,
            (true, "well\n".to_owned()),
            "{browser}"
        );
        // The same page of another origin.
        let (ran, ended) = open("localhost").await;
        assert!(ran && ended.contains("fetch"), "{browser}: {ended}");
    }
    serving.abort();
}
