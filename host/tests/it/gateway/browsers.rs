//! Pages of other origins, limits for clients, ids of requests, and compressed answers.

use std::io::Read as _;

use http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_ENCODING, ORIGIN, VARY,
};

use super::*;

const APP: &str = "https://app.example";

async fn with(lines: &str) -> Front {
    Front::of(&format!("{ROUTES}{lines}")).await
}

#[tokio::test]
async fn pages_of_the_origins_that_are_named_call_functions() {
    let cors = "[gateway]\ncors = { origins = [\"https://app.example\", \"http://localhost:3000\"], credentials = true, methods = [\"POST\", \"GET\"] }\n";
    let front = with(cors).await;
    let take = |origin: &str| {
        Request::post("/take")
            .header(ORIGIN, origin)
            .header("sec-fetch-site", "cross-site")
    };
    for origin in [APP, "http://localhost:3000"] {
        let reply = front.send(take(origin), "3").await;
        assert_eq!((reply.status, reply.body.as_str()), (201, "5"));
        assert_eq!(reply.header(ACCESS_CONTROL_ALLOW_ORIGIN), origin);
        assert_eq!(reply.header(ACCESS_CONTROL_ALLOW_CREDENTIALS), "true");
        assert!(
            reply
                .header(ACCESS_CONTROL_EXPOSE_HEADERS)
                .contains("x-request-id")
        );
        assert_eq!(reply.header(VARY), "origin");
    }
    // Errors can be read, too.
    let reply = front.send(take(APP), "x").await;
    assert_eq!(reply.header(ACCESS_CONTROL_ALLOW_ORIGIN), APP);
    reply.error(400, "caller");
    for origin in [
        "https://evil.example",
        "null",
        "https://app.example.evil.example",
        "https://APP.example",
        "",
    ] {
        let reply = front.send(take(origin), "3").await;
        assert_eq!(reply.header(ACCESS_CONTROL_ALLOW_ORIGIN), "", "{origin}");
        assert_eq!(reply.header(VARY), "origin");
        reply.error(403, "caller");
    }
    // With two of them it is nobody's.
    let two = take(APP).header(ORIGIN, "https://evil.example");
    front.send(two, "3").await.error(403, "caller");

    let ask = |path: &str, method: &str, origin: &str| {
        Request::options(path)
            .header(ORIGIN, origin)
            .header(ACCESS_CONTROL_REQUEST_METHOD, method)
    };
    for path in ["/take", "/rpc/test:fake/api/take"] {
        let reply = front.send(ask(path, "POST", APP), "").await;
        assert_eq!((reply.status, reply.body.as_str()), (204, ""), "{path}");
        assert_eq!(reply.header(ACCESS_CONTROL_ALLOW_ORIGIN), APP);
        assert_eq!(reply.header(ACCESS_CONTROL_ALLOW_METHODS), "POST, GET");
        assert_eq!(reply.header(ACCESS_CONTROL_MAX_AGE), "600");
        let headers = reply.header(ACCESS_CONTROL_ALLOW_HEADERS);
        assert!(headers.contains("authorization") && headers.contains("content-type"));
    }
    let foreign = front
        .send(ask("/take", "POST", "https://evil.example"), "")
        .await;
    assert_eq!(foreign.header(ACCESS_CONTROL_ALLOW_ORIGIN), "");
    assert_eq!(foreign.header(ACCESS_CONTROL_ALLOW_METHODS), "");
    front
        .send(ask("/nowhere", "POST", APP), "")
        .await
        .error(404, "caller");
    // Nobody has named that method for pages.
    let front = with("[gateway]\ncors = { origins = [\"*\"], methods = [\"GET\"] }\n").await;
    front.send(take(APP), "3").await.error(403, "caller");
    let reply = front
        .send(Request::get("/travels").header(ORIGIN, APP), "")
        .await;
    assert_eq!(reply.header(ACCESS_CONTROL_ALLOW_ORIGIN), "*");
    assert_eq!((reply.status, reply.header(VARY)), (200, ""));
}

#[tokio::test]
async fn a_client_makes_so_many_requests() {
    let lines = "rate = { requests = 1, window = \"1h\" }\n[gateway]\nrate = { requests = 3, window = \"1h\" }\n";
    // The lines belong to the last route, `take`.
    let front = with(lines).await;
    for left in [2, 1, 0] {
        let reply = front.get("/travels").await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("ratelimit-policy"), "\"default\";q=3;w=3600");
        let limit = format!("\"default\";r={left};t=");
        assert!(reply.header("ratelimit").starts_with(&limit));
    }
    let reply = front.get("/travels").await;
    let wait: u64 = reply.header(RETRY_AFTER).parse().unwrap();
    assert!((1_190..=1_200).contains(&wait), "{wait}");
    assert_eq!(
        reply.header("ratelimit"),
        format!("\"default\";r=0;t={wait}")
    );
    let message = reply.error(429, "caller");
    assert_eq!(message, "more than 3 requests within 3600s");
    // RPC paths share the bucket, a route with a limit of its own has another, health checks have none.
    let rpc = Request::post("/rpc/test:fake/api/travels");
    front.send(rpc, "").await.error(429, "caller");
    assert_eq!(front.send(Request::post("/take"), "3").await.status, 201);
    front
        .send(Request::post("/take"), "3")
        .await
        .error(429, "caller");
    for _ in 0..5 {
        assert_eq!(front.get("/healthz").await.status, 200);
    }
    // They come back.
    let front = with("[gateway]\nrate = { requests = 2, window = \"1s\" }\n").await;
    let get = async || front.get("/travels").await.status;
    assert_eq!((get().await, get().await, get().await), (200, 200, 429));
    until_ok("there is room again", async || {
        let status = get().await;
        (status == 200).then_some(()).ok_or(status)
    })
    .await;
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_have_limits_of_their_own() {
    const LIMIT: &str = "[gateway]\nrate = { requests = 1, window = \"1h\" }\n";
    let front = with(&format!("{LIMIT}trusted-proxies = [\"127.0.0.1\"]\n")).await;
    let ask = async |list: &str| {
        let request = Request::get("/travels").header("x-forwarded-for", list);
        front.send(request, "").await.status
    };
    assert_eq!(ask("1.1.1.1").await, 200);
    assert_eq!(ask("2.2.2.2").await, 200);
    assert_eq!(ask("2.2.2.2").await, 429);
    // What a client writes itself changes nothing.
    let long = "3.3.3.3, ".repeat(2_000);
    for list in [
        "3.3.3.3, 2.2.2.2",
        "unknown,2.2.2.2:80",
        &format!("{long}2.2.2.2"),
    ] {
        assert_eq!(ask(list).await, 429, "{list}");
    }
    assert_eq!(ask("3.3.3.3").await, 200);
    // Whom the proxy does not know all count as the proxy.
    assert_eq!(ask("unknown").await, 200);
    assert_eq!(ask("4.4.4.4, _hidden").await, 429);
    // A client that was passed on is never on this machine, whatever it is said to be.
    let rpc = Request::post("/rpc/test:fake/api/travels").header("x-forwarded-for", "127.0.0.1");
    front.send(rpc, "").await.error(404, "caller");
    // Without a proxy that is trusted, nothing of it counts.
    let front = with(LIMIT).await;
    let ask = async |list: &str| {
        let request = Request::get("/travels").header("x-forwarded-for", list);
        front.send(request, "").await.status
    };
    assert_eq!((ask("1.1.1.1").await, ask("2.2.2.2").await), (200, 429));
}

#[tokio::test]
async fn keys_have_limits_of_their_own_and_cannot_be_guessed_without_end() {
    // The SHA-256 of "secret".
    let lines = "[gateway]\nrate = { requests = 5, window = \"1h\", by = \"client\" }\n[gateway.auth]\ndefault = \"key\"\n\
                 [gateway.auth.key.till]\nsha256 = \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"\n";
    let front = with(lines).await;
    let send = async |key: &str| {
        let request = Request::get("/travels").header("x-api-key", key);
        front.send(request, "").await.status
    };
    for guess in 0..8 {
        let status = send(&format!("guess {guess}")).await;
        assert_eq!(status, if guess < 5 { 401 } else { 429 });
    }
    // Who has a key is not held up by that.
    for request in 0..8 {
        assert_eq!(send("secret").await, if request < 5 { 200 } else { 429 });
    }
}

#[tokio::test]
async fn a_request_has_an_id() {
    let front = Front::start(|_| {}).await;
    let id = async |given: Option<&str>| {
        let mut request = Request::get("/travels");
        if let Some(given) = given {
            request = request.header("x-request-id", given);
        }
        let reply = front.send(request, "").await;
        let id = reply.header("x-request-id").to_owned();
        let is_trace = reply.header("traceparent")[3..35] == id;
        (id, is_trace)
    };
    for good in ["7f3a", "req_01-J.x~y+z/=:", &"x".repeat(128)] {
        assert_eq!(id(Some(good)).await, (good.to_owned(), false));
    }
    for odd in ["", "a b", "a,b", "<x>", "\u{e9}", &"x".repeat(129)] {
        assert!(id(Some(odd)).await.1, "{odd}");
    }
    let (first, is_trace) = id(None).await;
    assert!(is_trace && first.len() == 32);
    assert_ne!(id(None).await.0, first);
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_take_them_so() {
    let front = Front::start(|_| {}).await;
    let raw = async |front: &Front, size: usize, accepts: &str| {
        let body = json!("x".repeat(size)).to_string();
        let request = Request::post("/echo/a")
            .header(HOST, "test")
            .header(ACCEPT_ENCODING, accepts)
            .body(Full::<Bytes>::from(body))
            .unwrap();
        let mut sender = http1(front.connect().await).await;
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let header = |name| {
            head.headers
                .get(name)
                .map(|value: &http::HeaderValue| value.to_str().unwrap().to_owned())
        };
        assert_eq!(header(CONTENT_LENGTH).unwrap(), body.len().to_string());
        (header(CONTENT_ENCODING), header(VARY), body)
    };
    let (coding, vary, body) = raw(&front, 100_000, "br, gzip").await;
    assert_eq!(coding.as_deref(), Some("gzip"));
    assert_eq!(vary.as_deref(), Some("accept-encoding"));
    assert!(body.len() < 2_000);
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*body)
        .read_to_string(&mut text)
        .unwrap();
    let arguments: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(arguments["note"].as_str().unwrap().len(), 100_000);
    let (coding, vary, body) = raw(&front, 100_000, "gzip;q=0").await;
    assert_eq!((coding, vary.as_deref()), (None, Some("accept-encoding")));
    assert!(body.len() > 100_000);
    let (coding, vary, _) = raw(&front, 100, "gzip").await;
    assert_eq!((coding, vary), (None, None));
    let front = Front::start(|spec| spec.compress = None).await;
    let (coding, vary, _) = raw(&front, 100_000, "gzip").await;
    assert_eq!((coding, vary), (None, None));
}
