//! The gateway by clients of gRPC and of gRPC-Web that others have written.

use std::convert::Infallible;
use std::path::PathBuf;
use std::process::Command;

use hyper::service::service_fn;

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
