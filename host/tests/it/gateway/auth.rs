//! Who may call.

use std::convert::Infallible;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use http::StatusCode;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::*;

/// The SHA-256 of "secret".
const DIGEST: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

const WRITE: &str = r#"
[[route]]
method = "POST"
path = "/write"
call = "test:fake/api.take"
scopes = ["orders:write"]
[[route]]
method = "GET"
path = "/open"
call = "test:fake/api.travels"
auth = "none"
[gateway]
rpc = true
"#;

fn keys() -> String {
    format!(
        "{ROUTES}{WRITE}[gateway.auth]\ndefault = \"key\"\n\
         [gateway.auth.key.till]\nsha256 = \"{DIGEST}\"\nscopes = [\"orders:write\"]\n\
         [gateway.auth.key.reader]\nsha256 = \"{}\"\n",
        digest("read")
    )
}

#[tokio::test]
async fn everything_but_health_asks_for_a_key() {
    let front = Front::of(&keys()).await;
    let rpc = "/rpc/test:fake/api/travels";
    for (method, path) in [("GET", "/travels"), ("POST", rpc), ("GET", "/openapi.json")] {
        let request = || Request::builder().method(method).uri(path);
        let reply = front.send(request(), "").await;
        assert_eq!(reply.header(WWW_AUTHENTICATE), "ApiKey realm=\"app\"");
        let message = reply.error(401, "caller");
        assert_eq!(message, "an API key is missing: `X-Api-Key: KEY`");
        for wrong in ["", "Secret", "secret2"] {
            let reply = front.send(request().header("x-api-key", wrong), "").await;
            assert_eq!(reply.error(401, "caller"), "this is no key of a client");
        }
        // A token is no key.
        let bearer = request().header(AUTHORIZATION, "Bearer secret");
        front.send(bearer, "").await.error(401, "caller");
        let reply = front
            .send(request().header("x-api-key", "secret"), "")
            .await;
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    for path in ["/healthz", "/open"] {
        let reply = front.get(path).await;
        assert_eq!((reply.status, reply.header(WWW_AUTHENTICATE)), (200, ""));
    }
    // A path that is not there says so to anybody.
    front.get("/nowhere").await.error(404, "caller");
    let reply = front
        .send(Request::get("/travels").header("x-api-key", "secret"), "")
        .await;
    let claims = r#"{"auth":"key","subject":"till","scopes":["orders:write"]}"#;
    assert_eq!(reply.json()["claims"], claims);
    // What is not asked for is not looked at, and no client says it itself.
    let open = Request::get("/open")
        .header("x-api-key", "secret")
        .header("bay-claims", claims);
    assert_eq!(front.send(open, "").await.json()["claims"], Value::Null);
}

#[tokio::test]
async fn a_client_may_what_its_key_allows() {
    let front = Front::of(&keys()).await;
    let write = |key: &str| Request::post("/write").header("x-api-key", key);
    let message = front.send(write("read"), "3").await.error(403, "caller");
    assert_eq!(message, "the key does not allow `orders:write`");
    assert_eq!(front.send(write("secret"), "3").await.status, 200);
    let get = Request::get("/travels").header("x-api-key", "read");
    assert_eq!(front.send(get, "").await.status, 200);
}

fn digest(text: &str) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(text);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An issuer of tokens, whose keys are asked for over HTTP.
pub(crate) struct Issuer {
    pub(crate) address: SocketAddr,
    key: Mutex<(String, Ed25519KeyPair)>,
    /// What is answered instead of the keys.
    broken: Mutex<Option<StatusCode>>,
    asked: AtomicUsize,
}

fn key() -> Ed25519KeyPair {
    let random = ring::rand::SystemRandom::new();
    let key = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap()
}

impl Issuer {
    pub(crate) async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            key: Mutex::new(("one".to_owned(), key())),
            broken: Mutex::default(),
            asked: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&issuer);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let issuer = Arc::clone(&serving);
                let service = service_fn(move |_| {
                    let answer = issuer.answer();
                    async { Ok::<_, Infallible>(answer) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        issuer
    }

    fn answer(&self) -> Response<Full<Bytes>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let key = self.key.lock().unwrap();
        let x = BASE64.encode(key.1.public_key());
        let set = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": key.0, "x": x }] });
        let mut answer = Response::new(Full::from(set.to_string()));
        if let Some(status) = *self.broken.lock().unwrap() {
            *answer.status_mut() = status;
        }
        answer
    }

    fn token_of(&self, id: &str, claims: &Value) -> String {
        let part = |value: &Value| BASE64.encode(value.to_string());
        let header = json!({ "alg": "EdDSA", "kid": id });
        let message = format!("{}.{}", part(&header), part(claims));
        let signature = self.key.lock().unwrap().1.sign(message.as_bytes());
        format!("{message}.{}", BASE64.encode(signature))
    }

    pub(crate) fn token(&self, scope: &str) -> String {
        let id = self.key.lock().unwrap().0.clone();
        let exp = std::time::SystemTime::now() + Duration::from_secs(600);
        let exp = exp.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let claims = json!({ "iss": "https://id.example", "aud": "shop", "sub": "u-7", "exp": exp, "scope": scope });
        self.token_of(&id, &claims)
    }

    fn manifest(&self, refresh: &str) -> String {
        format!(
            "{ROUTES}{WRITE}[gateway.auth]\ndefault = \"any\"\n\
             [gateway.auth.key.till]\nsha256 = \"{DIGEST}\"\n\
             [gateway.auth.jwt]\nissuer = \"https://id.example\"\naudience = [\"shop\"]\n\
             jwks = \"http://{}/jwks.json\"\nrefresh = \"{refresh}\"\n",
            self.address
        )
    }
}

async fn travels(front: &Front, token: &str) -> Reply {
    let bearer = format!("Bearer {token}");
    let request = Request::get("/travels").header(AUTHORIZATION, bearer);
    front.send(request, "").await
}

#[tokio::test]
async fn tokens_are_taken_by_the_issuers_keys() {
    let issuer = Issuer::start().await;
    let front = Front::of(&issuer.manifest("10m")).await;
    let reply = front.get("/travels").await;
    let challenges: Vec<_> = reply.headers.get_all(WWW_AUTHENTICATE).iter().collect();
    assert_eq!(challenges, ["Bearer realm=\"app\"", "ApiKey realm=\"app\""]);
    reply.error(401, "caller");
    let reply = travels(&front, &issuer.token("")).await;
    let claims: Value = serde_json::from_str(reply.json()["claims"].as_str().unwrap()).unwrap();
    assert_eq!(claims["subject"], "u-7");
    assert_eq!(claims["claims"]["iss"], "https://id.example");
    // A key does as well here.
    let key = Request::get("/travels").header("x-api-key", "secret");
    assert_eq!(front.send(key, "").await.status, 200);

    let write =
        |token: String| Request::post("/write").header(AUTHORIZATION, format!("bearer {token}"));
    let reply = front.send(write(issuer.token("orders:read")), "3").await;
    let challenge = "Bearer realm=\"app\", error=\"insufficient_scope\", scope=\"orders:write\"";
    assert_eq!(reply.header(WWW_AUTHENTICATE), challenge);
    let message = reply.error(403, "caller");
    assert_eq!(message, "the token does not allow `orders:write`");
    let reply = front.send(write(issuer.token("a orders:write")), "3").await;
    assert_eq!(reply.status, 200);

    let reply = travels(&front, &issuer.token("").replace('.', "")).await;
    let challenge = "Bearer realm=\"app\", error=\"invalid_token\"";
    assert_eq!(reply.header(WWW_AUTHENTICATE), challenge);
    reply.error(401, "caller");
    let twice = Request::get("/travels")
        .header(AUTHORIZATION, format!("Bearer {}", issuer.token("")))
        .header(AUTHORIZATION, "Bearer x");
    let message = front.send(twice, "").await.error(401, "caller");
    assert_eq!(message, "the header Authorization is there twice");
    // Unknown keys have the set fetched again, but not for each of them.
    let asked = issuer.asked.load(Ordering::SeqCst);
    assert_eq!(asked, 1);
    for id in 0..50 {
        let token = issuer.token_of(&format!("k{id}"), &json!({}));
        let message = travels(&front, &token).await.error(401, "caller");
        assert_eq!(message, "the token is signed by no key of the issuer");
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), asked);
}

#[tokio::test]
async fn what_has_no_scopes_of_its_own_asks_for_those_of_all() {
    let issuer = Issuer::start().await;
    let manifest = issuer.manifest("10m");
    let front = Front::of(&manifest.replace("\"any\"\n", "\"any\"\nscopes = [\"shop\"]\n")).await;
    let rpc = "/rpc/test:fake/api/travels";
    for (method, path) in [("GET", "/travels"), ("POST", rpc), ("GET", "/openapi.json")] {
        let send = async |token: Option<String>| {
            let mut request = Request::builder().method(method).uri(path);
            if let Some(token) = token {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            front.send(request, "").await
        };
        send(None).await.error(401, "caller");
        let message = send(Some(issuer.token("orders:write")))
            .await
            .error(403, "caller");
        assert_eq!(message, "the token does not allow `shop`", "{path}");
        assert_eq!(send(Some(issuer.token("shop"))).await.status, 200, "{path}");
    }
    // A route with its own asks for those, and one that is open for nothing.
    let write = Request::post("/write");
    let bearer = format!("Bearer {}", issuer.token("orders:write"));
    let reply = front.send(write.header(AUTHORIZATION, bearer), "3").await;
    assert_eq!(reply.status, 200);
    assert_eq!(front.get("/open").await.status, 200);
    let request = Request::get("/openapi.json");
    let bearer = format!("Bearer {}", issuer.token("shop"));
    let document = front.send(request.header(AUTHORIZATION, bearer), "").await;
    let document = document.json();
    assert_eq!(document["security"][0]["token"], json!(["shop"]));
    let of = |path: &str, method: &str| document["paths"][path][method]["security"].clone();
    assert_eq!(of("/travels", "get"), Value::Null);
    assert_eq!(of("/write", "post")[0]["token"], json!(["orders:write"]));
    assert_eq!(of("/open", "get"), json!([]));
}

#[tokio::test]
async fn tokens_are_asked_of_grpc_as_of_rpc_paths() {
    let issuer = Issuer::start().await;
    let manifest = issuer.manifest("10m");
    let front = Front::of(&manifest.replace("\"any\"\n", "\"jwt\"\nscopes = [\"shop\"]\n")).await;
    let address = front.address.to_string();
    let call = async |token: &str| {
        let header = format!("authorization: Bearer {token}");
        let method = "test.fake.v1.Api/Claims";
        clients::grpcurl(&["-plaintext", "-H", &header, &address, method]).await
    };
    // Reflection is asked for the same, by the same client.
    let (ran, said) = clients::grpcurl(&["-plaintext", &address, "list"]).await;
    assert!(!ran && said.contains("a token is missing"), "{said}");
    let token = issuer.token("shop");
    let (ran, said) = call(&token).await;
    assert!(ran, "{said}");
    let said: Value = serde_json::from_str(&said).unwrap();
    let claims: Value = serde_json::from_str(said["value"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&claims["auth"], &claims["subject"], &claims["scopes"]),
        (&json!("jwt"), &json!("u-7"), &json!(["shop"]))
    );
    // grpcurl asks reflection first, so the statuses are those of plain requests.
    let call = async |token: Option<&str>| {
        let mut request = Front::grpc("/test.fake.v1.Api/Claims");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        front.over_http2(request, grpc::framed(0, &[])).await
    };
    let ended = call(None).await;
    ended.refused("16", "a token is missing");
    assert_eq!(ended.headers[WWW_AUTHENTICATE], "Bearer realm=\"app\"");
    let ended = call(Some(&token.replace('.', ""))).await;
    ended.refused("16", "no JSON Web Token");
    let ended = call(Some(&issuer.token("orders:write"))).await;
    ended.refused("7", "the token does not allow `shop`");
    let challenge = "Bearer realm=\"app\", error=\"insufficient_scope\", scope=\"shop\"";
    assert_eq!(ended.headers[WWW_AUTHENTICATE], challenge);
    assert_eq!(call(Some(&token)).await.code().0, "0");
}

#[tokio::test]
async fn keys_are_replaced_while_requests_flow_and_kept_while_nobody_answers() {
    let issuer = Issuer::start().await;
    let front = Front::of(&issuer.manifest("1s")).await;
    let old = issuer.token("");
    assert_eq!(travels(&front, &old).await.status, 200);
    *issuer.key.lock().unwrap() = ("two".to_owned(), key());
    let new = issuer.token("");
    until_ok("the new key is known", async || {
        let status = travels(&front, &new).await.status;
        (status == 200).then_some(()).ok_or(status)
    })
    .await;
    travels(&front, &old).await.error(401, "caller");
    *issuer.broken.lock().unwrap() = Some(StatusCode::INTERNAL_SERVER_ERROR);
    let asked = issuer.asked.load(Ordering::SeqCst);
    until("it was asked in vain", || {
        issuer.asked.load(Ordering::SeqCst) > asked + 1
    })
    .await;
    assert_eq!(travels(&front, &new).await.status, 200);
}

#[tokio::test]
async fn without_keys_no_token_can_be_checked() {
    let issuer = Issuer::start().await;
    *issuer.broken.lock().unwrap() = Some(StatusCode::FOUND);
    let front = Front::of(&issuer.manifest("10m")).await;
    let reply = travels(&front, &issuer.token("")).await;
    assert_eq!(reply.header(RETRY_AFTER), "1");
    let message = reply.error(503, "host");
    assert_eq!(
        message,
        "the keys by which tokens are checked cannot be had at this time"
    );
    assert_eq!(front.get("/open").await.status, 200);
}

#[tokio::test]
async fn rpc_paths_are_for_this_machine() {
    let front = Front::start(|_| {}).await;
    let rpc = || Request::post("/rpc/test:fake/api/travels");
    assert_eq!(front.send(rpc(), "").await.status, 200);
    for name in ["forwarded", "via", "x-forwarded-for", "x-real-ip"] {
        let message = front
            .send(rpc().header(name, "x"), "")
            .await
            .error(404, "caller");
        assert!(
            message.contains("`[gateway] rpc` is \"loopback\""),
            "{message}"
        );
        let route = Request::get("/travels").header(name, "x");
        assert_eq!(front.send(route, "").await.status, 200);
    }
    let front = Front::start(|spec| spec.rpc = RpcPaths::All).await;
    assert_eq!(front.send(rpc().header("via", "x"), "").await.status, 200);
}
