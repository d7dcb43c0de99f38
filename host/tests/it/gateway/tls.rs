//! TLS: certificates of both sides, what is refused, and files that change.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wasmbay::gateway::{HANDSHAKE, Tls, TlsError};
use wasmbay::manifest::{ClientCertificate, TlsSpec};

use super::*;

pub(crate) fn file(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/gateway/tls");
    folder.join(name)
}

pub(super) fn spec(client: ClientCertificate) -> TlsSpec {
    TlsSpec {
        certificate: file("server.pem"),
        key: file("server.key"),
        client_ca: Some(file("ca.pem")),
        client,
    }
}

impl Front {
    pub(super) async fn with_tls(spec: &TlsSpec, change: impl FnOnce(&mut GatewaySpec)) -> Self {
        let tls = Tls::load(spec).unwrap();
        let front = Self::bare_with(change, no_nats().await, Some(tls));
        front.set_routes(ROUTES, &BTreeMap::new());
        front
    }
}

pub(crate) struct Client {
    config: ClientConfig,
}

impl Client {
    pub(crate) fn new(
        identity: Option<&str>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(file("ca.pem")).unwrap();
        roots.add(ca).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let chain = CertificateDer::from_pem_file(file(&format!("{name}.pem"))).unwrap();
                let key = PrivateKeyDer::from_pem_file(file(&format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(vec![chain], key).unwrap()
            }
        };
        Self { config }
    }

    fn speaking(mut self, protocols: &[&str]) -> Self {
        let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
        self.config.alpn_protocols = protocols.collect();
        self
    }

    async fn connect(&self, front: &Front) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_to(front.address).await
    }

    async fn connect_to(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(self.config.clone()));
        connector
            .connect(name, TcpStream::connect(address).await?)
            .await
    }

    /// The status and the body that a request gets on a connection of its own.
    pub(crate) async fn send(
        &self,
        address: SocketAddr,
        request: http::request::Builder,
        body: &str,
    ) -> (u16, String) {
        let reply = self.try_send(address, request, body).await.unwrap();
        let reply = Reply::of(reply).await;
        (reply.status, reply.body)
    }

    async fn try_send(
        &self,
        address: SocketAddr,
        request: http::request::Builder,
        body: &str,
    ) -> Result<http::Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TokioIo::new(self.connect_to(address).await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        tokio::spawn(connection);
        let request = request.header(HOST, "localhost");
        let request = request.body(Full::<Bytes>::from(body.to_owned()))?;
        Ok(sender.send_request(request).await?)
    }

    /// The status of a request on a connection of its own.
    async fn get(&self, front: &Front) -> Result<u16, Box<dyn std::error::Error + Send + Sync>> {
        let get = Request::get("/travels");
        let reply = self.try_send(front.address, get, "").await?;
        Ok(reply.status().as_u16())
    }

    async fn ask(&self, front: &Front, request: http::request::Builder) -> Reply {
        let reply = self.try_send(front.address, request, "").await;
        Reply::of(reply.unwrap()).await
    }
}

pub(crate) static ALL: &[&SupportedProtocolVersion] = rustls::ALL_VERSIONS;

#[tokio::test]
async fn both_versions_of_http_are_spoken_over_both_of_tls() {
    let front = Front::with_tls(&spec(ClientCertificate::None), |_| {}).await;
    for version in ALL {
        let client = Client::new(None, &[*version]).speaking(&["h2", "http/1.1"]);
        let stream = client.connect(&front).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let io = TokioIo::new(stream);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                .await
                .unwrap();
        tokio::spawn(connection);
        let request = Request::get("https://localhost/travels").body(Full::<Bytes>::default());
        let reply = Reply::of(sender.send_request(request.unwrap()).await.unwrap()).await;
        assert_eq!(reply.status, 200);
        for protocols in [&["http/1.1"][..], &[]] {
            let client = Client::new(None, &[*version]).speaking(protocols);
            assert_eq!(client.get(&front).await.unwrap(), 200);
        }
    }
    // What it cannot speak it does not begin.
    let client = Client::new(None, ALL).speaking(&["h3"]);
    assert!(client.connect(&front).await.is_err());
}

/// The first message of a client that speaks nothing newer than this version.
fn hello(version: u8) -> Vec<u8> {
    let mut body = vec![3, version];
    body.extend([7; 32]);
    // No session, four suites of the time, no compression, the name, and an algorithm for signatures, so that
    // nothing but the version is wrong.
    body.extend([
        0, 0, 8, 0xc0, 0x13, 0xc0, 0x09, 0x00, 0x2f, 0x00, 0x35, 1, 0,
    ]);
    let mut name = vec![0, 0, 0, 14, 0, 12, 0, 0, 9];
    name.extend(b"localhost");
    name.extend([0, 13, 0, 4, 0, 2, 4, 3]);
    body.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
    body.extend(name);
    let length = u8::try_from(body.len()).unwrap();
    let mut record = vec![0x16, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(body);
    record
}

#[tokio::test]
async fn old_versions_and_what_is_no_tls_are_refused() {
    let front = Front::with_tls(&spec(ClientCertificate::None), |_| {}).await;
    // SSL 3, TLS 1.0 and 1.1: the alert is `protocol_version`.
    for version in 0..=2 {
        let mut stream = front.connect().await;
        stream.write_all(&hello(version)).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(DEADLINE, stream.read_to_end(&mut answer))
            .await
            .unwrap();
        assert_eq!(answer.first(), Some(&0x15), "{answer:?}");
        assert_eq!(&answer[5..7], [2, 70], "{answer:?}");
    }
    let plain = front.raw(b"GET /travels HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(plain.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{plain}");
    let body = plain.split_once("\r\n\r\n").unwrap().1;
    let error: Value = serde_json::from_str(body).unwrap();
    assert_eq!(error["error"]["message"], "this address speaks HTTPS");
    assert_eq!(error["error"]["code"], 400);
    for junk in [
        &b"\0\0\0\0"[..],
        b"ssh",
        b"\x16\x03\x01\xff\xff",
        b"\x16garbage",
    ] {
        let mut stream = front.connect().await;
        stream.write_all(junk).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(DEADLINE, stream.read_to_end(&mut answer))
            .await
            .unwrap();
        assert!(answer.len() < 32, "{answer:?}");
    }
    assert_eq!(Client::new(None, ALL).get(&front).await.unwrap(), 200);
}

#[tokio::test]
async fn a_client_shows_a_certificate_that_is_valid() {
    use ClientCertificate::{None as Nothing, Optional, Required};
    for (asked, shown, accepted) in [
        (Nothing, None, true),
        (Nothing, Some("stranger"), true),
        (Optional, None, true),
        (Optional, Some("client"), true),
        (Optional, Some("stranger"), false),
        (Optional, Some("expired"), false),
        (Required, None, false),
        (Required, Some("client"), true),
        (Required, Some("stranger"), false),
        (Required, Some("expired"), false),
        // It is one of a server.
        (Required, Some("second"), false),
    ] {
        let front = Front::with_tls(&spec(asked), |_| {}).await;
        for version in ALL {
            let answered = Client::new(shown, &[*version]).get(&front).await;
            let is_accepted = matches!(answered, Ok(200));
            assert_eq!(is_accepted, accepted, "{asked:?} {shown:?}: {answered:?}");
        }
    }
}

/// Routes that ask for a certificate, and for a key: that with the SHA-256 of "secret".
const ASKING: &str = r#"
[[route]]
method = "GET"
path = "/certified"
call = "test:fake/api.travels"
auth = "cert"
[[route]]
method = "GET"
path = "/keyed"
call = "test:fake/api.travels"
auth = "key"
[gateway.auth.key.till]
sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
"#;

/// A gateway of this manifest, whose clients may have certificates of the authority of `named`.
async fn asking(manifest: &str) -> Front {
    let read = Manifest::parse(Path::new("wasmbay.toml"), manifest).unwrap();
    let tls = TlsSpec {
        client_ca: Some(file("named-ca.pem")),
        ..spec(ClientCertificate::Optional)
    };
    let change = |own: &mut GatewaySpec| *own = read.app.gateway;
    let front = Front::bare_with(change, no_nats().await, Some(Tls::load(&tls).unwrap()));
    front.set_routes(manifest, &BTreeMap::new());
    front
}

/// What a service got to know.
fn claims(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.body);
    let claims = reply.json()["claims"].as_str().map(str::to_owned);
    claims.map_or(Value::Null, |claims| serde_json::from_str(&claims).unwrap())
}

#[tokio::test]
async fn services_know_who_showed_a_certificate() {
    let front = asking(&format!("{ROUTES}{ASKING}")).await;
    for version in ALL {
        let client = Client::new(Some("named"), &[*version]);
        // The second connection goes on with the session of the first.
        for path in ["/certified", "/travels", "/certified"] {
            let request = Request::get(path).header("bay-claims", r#"{"auth":"jwt"}"#);
            let known = claims(&client.ask(&front, request).await);
            assert_eq!(known["auth"], "certificate", "{path}");
            assert_eq!(known["subject"], r"CN=till-7,OU=Stores,O=Shop\, Inc,C=PT");
            let uri = &known["claims"]["san"]["uri"];
            assert_eq!(*uri, json!(["spiffe://shop.example/till/7"]));
        }
        let keyed = || Request::get("/keyed");
        let reply = client.ask(&front, keyed()).await;
        reply.error(401, "caller");
        let known = claims(
            &client
                .ask(&front, keyed().header("x-api-key", "secret"))
                .await,
        );
        assert_eq!(
            (&known["auth"], &known["subject"]),
            (&json!("key"), &json!("till"))
        );
    }
    let client = Client::new(None, ALL);
    let forged = |path| Request::get(path).header("bay-claims", r#"{"auth":"certificate"}"#);
    assert_eq!(
        claims(&client.ask(&front, forged("/travels")).await),
        Value::Null
    );
    let reply = client.ask(&front, forged("/certified")).await;
    let asked = reply.header(http::header::WWW_AUTHENTICATE);
    assert_eq!(asked, "Certificate realm=\"app\"");
    let missing = "a client certificate is missing; it is shown when a connection begins";
    assert_eq!(reply.error(401, "caller"), missing);
    let document = client
        .ask(&front, Request::get("/openapi.json"))
        .await
        .json();
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!(schemes["certificate"], json!({ "type": "mutualTLS" }));
    let security = &document["paths"]["/certified"]["get"]["security"];
    assert_eq!(*security, json!([{ "certificate": [] }]));
}

#[tokio::test]
async fn a_certificate_that_says_too_much_is_none() {
    let front = asking(&format!("{ROUTES}{ASKING}")).await;
    let client = Client::new(Some("huge"), ALL);
    let reply = client.ask(&front, Request::get("/certified")).await;
    let message = reply.error(401, "caller");
    assert_eq!(message, "the certificate's names have more than 8192 bytes");
    let reply = client.ask(&front, Request::get("/travels")).await;
    assert_eq!(claims(&reply), Value::Null);
    let client = Client::new(Some("nameless"), ALL);
    let known = claims(&client.ask(&front, Request::get("/certified")).await);
    assert_eq!(known["subject"], "uri:spiffe://shop.example/nameless");
}

#[tokio::test]
async fn a_proxys_certificate_is_not_its_clients() {
    let trusting = "[gateway]\ntrusted-proxies = ['127.0.0.1']\n";
    let front = asking(&format!("{ROUTES}{ASKING}{trusting}")).await;
    let proxy = Client::new(Some("named"), ALL);
    let passed = |path| Request::get(path).header("x-forwarded-for", "1.2.3.4");
    let reply = proxy.ask(&front, passed("/travels")).await;
    assert_eq!(claims(&reply), Value::Null);
    proxy
        .ask(&front, passed("/certified"))
        .await
        .error(401, "caller");
    // It is known when it asks itself.
    let known = claims(&proxy.ask(&front, Request::get("/certified")).await);
    assert_eq!(known["auth"], "certificate");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_its_time_and_its_connection_a_place() {
    let front = Front::with_tls(&spec(ClientCertificate::None), |spec| {
        spec.connections = 2;
        spec.peer_connections = 2;
    })
    .await;
    let mut silent = front.connect().await;
    let mut half = front.connect().await;
    half.write_all(&hello(3)[..20]).await.unwrap();
    let started = Instant::now();
    for stream in [&mut silent, &mut half] {
        assert_eq!(until_closed(stream).await, "");
    }
    let took = started.elapsed();
    assert!(
        (HANDSHAKE..HANDSHAKE + Duration::from_secs(1)).contains(&took),
        "{took:?}"
    );
    // Those that do not begin make room.
    let mut first = front.connect().await;
    let _second = front.connect().await;
    let started = Instant::now();
    let third = Client::new(None, ALL).get(&front).await;
    assert_eq!(third.unwrap(), 200);
    assert_eq!(until_closed(&mut first).await, "");
    assert!(started.elapsed() < HANDSHAKE);
}

#[tokio::test]
async fn certificates_are_replaced_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("tls.pem"), folder.path().join("tls.key"));
    let put = |name: &str| {
        // As deployments do: never half of a file.
        for (to, kind) in [(&certificate, "pem"), (&key, "key")] {
            let new = folder.path().join("new");
            std::fs::copy(file(&format!("{name}.{kind}")), &new).unwrap();
            std::fs::rename(new, to).unwrap();
        }
    };
    put("server");
    let spec = TlsSpec {
        certificate: certificate.clone(),
        key: key.clone(),
        client_ca: None,
        client: ClientCertificate::None,
    };
    let front = Arc::new(Front::with_tls(&spec, |_| {}).await);
    let (served, failed) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(Mutex::new(Vec::new())),
    );
    let ends = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (front, served, failed) =
                (Arc::clone(&front), Arc::clone(&served), Arc::clone(&failed));
            let ends = Arc::clone(&ends);
            tokio::spawn(async move {
                let client = Client::new(None, ALL);
                while !ends.load(Ordering::SeqCst) {
                    match client.get(&front).await {
                        Ok(200) => drop(served.fetch_add(1, Ordering::SeqCst)),
                        other => failed.lock().unwrap().push(format!("{other:?}")),
                    }
                }
            })
        })
        .collect();
    let shown = async || {
        let stream = Client::new(None, ALL).connect(&front).await.unwrap();
        let chain = stream.get_ref().1.peer_certificates().unwrap();
        chain[0].to_vec()
    };
    let of = |name: &str| CertificateDer::from_pem_file(file(name)).unwrap().to_vec();
    assert_eq!(shown().await, of("server.pem"));
    let until_shown = async |name: &str| {
        until_ok("the new certificate is shown", async || {
            (shown().await == of(name)).then_some(()).ok_or("another")
        })
        .await;
    };
    put("second");
    until_shown("second.pem").await;
    // What is broken changes nothing, and what is whole again does.
    std::fs::write(&certificate, "-----BEGIN CERTIFICATE-----\nx\n").unwrap();
    let seen = served.load(Ordering::SeqCst);
    let looked = Instant::now() + Duration::from_millis(1_500);
    until("it was looked at, and requests go on", || {
        Instant::now() > looked && served.load(Ordering::SeqCst) > seen
    })
    .await;
    assert_eq!(shown().await, of("second.pem"));
    put("server");
    until_shown("server.pem").await;
    ends.store(true, Ordering::SeqCst);
    for task in load {
        task.await.unwrap();
    }
    assert_eq!(*failed.lock().unwrap(), Vec::<String>::new());
    assert!(served.load(Ordering::SeqCst) > 20);
}

#[test]
fn what_cannot_be_used_is_named() {
    let error = |change: &dyn Fn(&mut TlsSpec)| {
        let mut spec = spec(ClientCertificate::Required);
        change(&mut spec);
        Tls::load(&spec).err().unwrap()
    };
    let named = |error: &TlsError, file: &str| {
        let text = error.to_string();
        assert!(text.contains(file), "{text}");
    };
    let missing = error(&|spec| spec.certificate = file("nowhere.pem"));
    named(&missing, "nowhere.pem has no certificate");
    let no_key = error(&|spec| spec.key = file("server.pem"));
    named(&no_key, "server.pem has no private key");
    let other_key = error(&|spec| spec.key = file("second.key"));
    assert!(matches!(other_key, TlsError::Pair { .. }), "{other_key:?}");
    named(&other_key, "second.key cannot be used");
    let no_ca = error(&|spec| spec.client_ca = Some(file("server.key")));
    named(&no_ca, "server.key has no certificate of an authority");
}
