//! A gateway from its first routes to its end, and whether it is ready.

use super::*;
use crate::support::nats::Configured;

#[tokio::test]
async fn a_gateway_that_closes_answers_what_has_come() {
    let front = Front::start(|spec| spec.timeout = Duration::from_millis(500)).await;
    let request = |path: &str| {
        Request::get(path)
            .header(HOST, "t")
            .body(Full::default())
            .unwrap()
    };
    let mut busy = http1::<Full<Bytes>>(front.connect().await).await;
    let mut idle = http1::<Full<Bytes>>(front.connect().await).await;
    assert_eq!(
        idle.send_request(request("/travels"))
            .await
            .unwrap()
            .status(),
        200
    );
    let running = tokio::spawn(async move { busy.send_request(request("/never")).await });
    until("the request is under way", || {
        front.fake.never.load(Ordering::SeqCst) == 1
    })
    .await;
    front.gateway.close();
    // An idle connection may bring one more request; its reply says that it was the last.
    let last = Reply::of(idle.send_request(request("/readyz")).await.unwrap()).await;
    assert_eq!((last.status, last.header(CONNECTION)), (503, "close"));
    assert_eq!(last.json()["reason"], "shutting down");
    let running = Reply::of(running.await.unwrap().unwrap()).await;
    assert_eq!((running.status, running.header(CONNECTION)), (504, "close"));
    timeout(DEADLINE, front.serving).await.unwrap().unwrap();
    TcpStream::connect(front.address).await.unwrap_err();
}

#[tokio::test]
async fn routes_are_replaced_while_requests_flow() {
    let front = Front::bare(|_| {}, no_nats().await);
    assert_eq!(front.get("/healthz").await.status, 200);
    let message = front.get("/travels").await.error(503, "host");
    assert_eq!(message, "nothing is served yet");
    front.set_routes(ROUTES, &BTreeMap::new());
    let mut sender = http1::<Full<Bytes>>(front.connect().await).await;
    for round in 0..20 {
        let request = Request::get("/travels")
            .header(HOST, "t")
            .body(Full::default())
            .unwrap();
        let expected = if round % 2 == 0 { 200 } else { 404 };
        assert_eq!(
            sender.send_request(request).await.unwrap().status(),
            expected
        );
        let other = ROUTES.replace("/travels", "/moved");
        front.set_routes(
            if round % 2 == 0 { &other } else { ROUTES },
            &BTreeMap::new(),
        );
    }
}

#[tokio::test]
async fn ready_means_nats_and_a_responder_for_everything() {
    let nats = Nats::start().await;
    let front = Front::bare(|_| {}, nats.link().await);
    let reply = front.get("/readyz").await;
    assert_eq!(
        (reply.status, &reply.json()["reason"]),
        (503, &json!("nothing is served yet"))
    );
    front.set_routes(ROUTES, &BTreeMap::new());
    let ready = json!({"ready": true, "nats": true, "missing": [], "unknown": []});
    let reply = front.get("/readyz").await;
    assert_eq!((reply.status, reply.json()), (200, ready.clone()));

    // Answered from outside, by no responder yet: a plain NATS program would look the same.
    let external = ROUTES.replace("service.fake", "service.asker")
        + "[wire.\"test:fake/api\"]\nexternal = true\n";
    front.set_routes(&external, &BTreeMap::new());
    let reply = front.get("/readyz").await;
    assert_eq!(
        (
            reply.status,
            reply.json()["unknown"].as_array().unwrap().len()
        ),
        (200, FUNCTIONS.len())
    );

    // One that introduces itself is known, and missed when it is gone.
    let client = nats.connect().await;
    let mut questions = client.subscribe("$SRV.INFO").await.unwrap();
    settled(&client).await.unwrap();
    let endpoints: Vec<_> = FUNCTIONS
        .iter()
        .map(|(name, _)| json!({"name": name, "subject": format!("bay.app.test.fake.api.v1.{name}")}))
        .collect();
    let answer = Bytes::from(json!({"name": "native", "endpoints": endpoints}).to_string());
    let introduces = tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            client
                .publish(question.reply.unwrap(), answer.clone())
                .await
                .unwrap();
        }
    });
    until_readyz(&front, |status, readiness| {
        status == 200 && *readiness == ready
    })
    .await;
    introduces.abort();
    until_readyz(&front, |status, readiness| {
        let missing = readiness["missing"].as_array().unwrap();
        status == 503
            && missing.len() == FUNCTIONS.len()
            && missing.contains(&json!("test:fake/api.take@1.0.0"))
    })
    .await;

    nats.stop().await;
    until_readyz(&front, |status, readiness| {
        status == 503 && readiness["nats"] == false
    })
    .await;
    assert_eq!(front.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_subscription_that_nats_refuses_is_not_ready() {
    let lines = "authorization { users = [ { user: a, password: a, permissions: \
                 { publish: \">\", subscribe: [\"x\", \"_INBOX.>\"] } } ] }";
    let server = Configured::start(lines).await;
    let link = ConnectOptions::to(server.url_of("a")).link().await.unwrap();
    let front = Front::bare(|_| {}, link.clone());
    front.set_routes(ROUTES, &BTreeMap::new());
    assert_eq!(front.get("/readyz").await.status, 200);
    let refused = link.subscribe("y", None).unwrap();
    link.settled().await.unwrap();
    let reply = front.get("/readyz").await;
    let reason = reply.json()["reason"].to_string();
    assert_eq!(reply.status, 503);
    assert!(reason.contains("NATS refuses a subscription"), "{reason}");
    drop(refused);
    assert_eq!(front.get("/readyz").await.status, 200);
}

async fn until_readyz(front: &Front, holds: impl Fn(u16, &Value) -> bool) {
    until_ok("readiness is as wanted", async || {
        let reply = front.get("/readyz").await;
        if holds(reply.status, &reply.json()) {
            Ok(())
        } else {
            Err((reply.status, reply.body))
        }
    })
    .await;
}

const GUEST_ROUTE: &str = r#"
[[route]]
method = "POST"
path = "/echo"
call = "test:guest/api.echo"
[[route]]
method = "GET"
path = "/check/{number}"
call = "test:guest/api.check"
"#;

/// Sends requests on kept connections until the gateway takes no more. Returns the number of those
/// that were answered, and fails the test for one that was not.
async fn flood(
    address: SocketAddr,
    stopping: Arc<OnceLock<Instant>>,
    all: Arc<AtomicUsize>,
) -> usize {
    let mut answered = 0;
    loop {
        let Ok(stream) = TcpStream::connect(address).await else {
            assert!(stopping.get().is_some(), "no connection");
            return answered;
        };
        let mut sender = http1(stream).await;
        let mut fresh = true;
        loop {
            let request = Request::post("/echo").header(HOST, "t");
            let request = request.body(Full::<Bytes>::from("\"hi\"")).unwrap();
            let sent = Instant::now();
            let reply = match sender.send_request(request).await {
                Ok(response) => Reply::of(response).await,
                // The system may have taken a connection that the closing gateway never saw, and
                // this task may have slept for longer than an idle connection is waited for.
                Err(error) => match stopping.get() {
                    Some(since) if fresh || sent > *since + LINGER / 2 => return answered,
                    _ => panic!("request {answered}: {error:?}"),
                },
            };
            assert_eq!((reply.status, reply.body.as_str()), (200, "\"hi\""));
            answered += 1;
            all.fetch_add(1, Ordering::SeqCst);
            fresh = false;
            if reply.header(CONNECTION) == "close" {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_host_answers_while_services_are_replaced_and_until_it_stops() {
    let nats = Nats::start().await;
    let services = |reuse| {
        let lines = if reuse { "" } else { "reuse = 1" };
        Services(Box::leak(Box::new([("guest", GUEST, lines)])), GUEST_ROUTE)
    };
    let engine = Engine::new(EngineOptions {
        instances: 200,
        cache: None,
    })
    .unwrap();
    let options = HostOptions {
        workers: NonZeroUsize::new(2).unwrap(),
        gateway: Some("127.0.0.1:0".parse().unwrap()),
        ..HostOptions::new(ConnectOptions::to(nats.url()))
    };
    let first = services(true);
    let host = Host::start(&first.app(), engine, options).await.unwrap();
    apply(&host, &first).await.unwrap();
    let address = host.gateway().unwrap();
    let ask = async |request: http::request::Builder| {
        let mut sender = http1(TcpStream::connect(address).await.unwrap()).await;
        let request = request.header(HOST, "t").body(Full::<Bytes>::default());
        Reply::of(sender.send_request(request.unwrap()).await.unwrap()).await
    };
    assert_eq!(ask(Request::get("/readyz")).await.status, 200);
    let check = async |number| {
        let reply = ask(Request::get(format!("/check/{number}"))).await;
        (reply.status, reply.body)
    };
    assert_eq!(check(5).await, (200, "5".to_owned()));
    assert_eq!(check(15).await, (422, "15".to_owned()));
    let trapped = ask(Request::post("/rpc/test:guest/api/trap")).await;
    assert!(
        trapped
            .error(500, "guest")
            .starts_with("service \"guest\": ")
    );

    let stopping = Arc::new(OnceLock::new());
    let answered = Arc::new(AtomicUsize::new(0));
    let floods: Vec<_> = (0..8)
        .map(|_| {
            let (stopping, answered) = (Arc::clone(&stopping), Arc::clone(&answered));
            tokio::spawn(flood(address, stopping, answered))
        })
        .collect();
    for round in 0..6 {
        let before = answered.load(Ordering::SeqCst);
        until("requests flow", || {
            answered.load(Ordering::SeqCst) > before + 50
        })
        .await;
        apply(&host, &services(round % 2 == 1)).await.unwrap();
    }
    stopping.set(Instant::now()).unwrap();
    assert!(host.stop(DEADLINE).await.is_complete());
    for flood in floods {
        assert!(flood.await.unwrap() > 0);
    }
    nats.stop().await;
}
