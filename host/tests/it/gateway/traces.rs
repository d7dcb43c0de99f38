//! Trace context and the log of requests.

use super::*;

#[tokio::test]
async fn a_trace_is_carried_on_or_begun() {
    let front = Front::start(|_| {}).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = Request::get("/travels")
        .header("traceparent", parent)
        .header("tracestate", "a=b")
        .header("baggage", "k=v");
    let reply = front.send(request, "").await;
    assert_eq!(reply.header("traceparent"), parent);
    let call = reply.json();
    assert_eq!(call["parent"], parent);
    assert_eq!(
        (&call["state"], &call["baggage"]),
        (&json!("a=b"), &json!("k=v"))
    );
    assert_eq!((&call["hops"], &call["caller"]), (&json!(0), &Value::Null));
    let left = call["left"].as_u64().unwrap();
    assert!((25_000..=30_000).contains(&left), "{left}");

    let request = Request::get("/travels")
        .header("traceparent", "nonsense")
        .header("tracestate", "a=b");
    let reply = front.send(request, "").await;
    let begun = reply.header("traceparent");
    assert_eq!(begun.len(), 55);
    assert_eq!(
        (&reply.json()["parent"], &reply.json()["state"]),
        (&json!(begun), &Value::Null)
    );
    // Errors belong to a trace too.
    assert_eq!(front.get("/nowhere").await.header("traceparent").len(), 55);
}

#[tokio::test]
async fn every_request_is_logged_by_its_route() {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter("gateway=info")
        .with_writer(move || writer.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let front = Front::start(|_| {}).await;
    // A test on another thread may be the first to meet this record, and tracing then caches for a
    // while that no subscriber wants it.
    let deadline = Instant::now() + DEADLINE;
    while lines
        .0
        .lock()
        .unwrap()
        .iter()
        .filter(|b| **b == b'\n')
        .count()
        != 2
    {
        assert!(Instant::now() < deadline, "nothing is logged");
        tracing::callsite::rebuild_interest_cache();
        lines.0.lock().unwrap().clear();
        let echo = Request::post("/echo/secret?token=secret");
        front.send(echo, "\"secret\"").await;
        front.get("/secret").await;
    }
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].contains("method=POST route=\"/echo/{id}\" status=200 duration="),
        "{text}"
    );
    assert!(
        lines[1].contains("method=GET route=\"-\" status=404 duration="),
        "{text}"
    );
    assert!(lines[0].contains(" trace=\""), "{text}");
    assert!(!text.contains("secret"), "{text}");
}
