use super::*;

fn call() -> Call {
    Call {
        body: Bytes::from_static(b"{}"),
        arrived: Instant::now(),
        deadline: Instant::now() + Duration::from_millis(1500),
        hops: 3,
        caller: Some("orders".into()),
        trace: Trace {
            parent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
            state: Some("a=b".into()),
            baggage: None,
        },
        claims: None,
        identity: None,
        kind: Kind::Request,
    }
}

#[test]
fn a_call_is_read_as_it_was_written() {
    let now = Instant::now();
    let sent = Call {
        deadline: now + Duration::from_millis(1500),
        ..call()
    };
    let headers = write_call(&sent, now);
    assert_eq!(headers.get(HOPS).unwrap(), "3");
    let read = read_call(Some(&headers), sent.body.clone(), now).unwrap();
    assert_eq!(read.deadline, sent.deadline);
    assert_eq!(
        (read.hops, &read.caller, &read.trace),
        (3, &sent.caller, &sent.trace)
    );
}

#[test]
fn what_is_the_default_is_not_written() {
    let now = Instant::now();
    let sent = Call {
        hops: 0,
        caller: None,
        trace: Trace::default(),
        ..call()
    };
    let headers = write_call(&sent, now);
    assert_eq!((headers.iter().count(), headers.get(HOPS)), (1, None));
    let read = read_call(Some(&headers), Bytes::new(), now).unwrap();
    assert_eq!(
        (read.hops, read.caller, read.trace),
        (0, None, Trace::default())
    );
}

#[test]
fn what_is_too_long_is_left_out_and_an_event_has_no_deadline() {
    let now = Instant::now();
    let mut headers = Headers::new();
    headers.append(CALLER, "x".repeat(MAX_HEADER + 1));
    headers.append(BAGGAGE, "x".repeat(MAX_HEADER));
    headers.append(DEADLINE, "soon");
    headers.append(HOPS, "2");
    let event = read_event(Some(&headers), Bytes::new(), now).unwrap();
    assert_eq!((event.caller, event.hops), (None, 2));
    assert_eq!(event.trace.baggage.map(|b| b.len()), Some(MAX_HEADER));
    assert_eq!(event.deadline, now + MAX_DEADLINE);
    headers.append(HOPS, "3");
    assert_eq!(
        read_message(Some(&headers), now).hops,
        2,
        "the first counts"
    );
    let mut headers = Headers::new();
    headers.append(HOPS, "many");
    assert_eq!(read_message(Some(&headers), now).hops, 0);
}

#[test]
fn names_are_read_in_any_case() {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let now = Instant::now();
    let mut headers = Headers::new();
    headers.append("Traceparent", trace);
    headers.append("BAY-CALLER", "orders");
    headers.append("bay-deadline-ms", "1500");
    headers.append("content-type", "application/problem+JSON; charset=utf-8");
    let call = read_call(Some(&headers), Bytes::new(), now).unwrap();
    assert_eq!(call.trace.parent.as_deref(), Some(trace));
    assert_eq!(call.caller.as_deref(), Some("orders"));
    assert_eq!(call.deadline, now + Duration::from_millis(1500));
    for (name, value) in [
        ("bay-deadline-ms", "abc"),
        ("BAY-HOPS", "-1"),
        ("content-TYPE", "text/xml"),
    ] {
        let mut headers = Headers::new();
        headers.append(name, value);
        read_call(Some(&headers), Bytes::new(), now).unwrap_err();
    }
    let mut headers = Headers::new();
    headers.append("nats-service-error", "no stock");
    headers.append("nats-service-error-code", "404");
    let error = read_reply(Some(&headers), Bytes::new()).unwrap_err();
    assert_eq!((error.code, &*error.message), (Code::NotFound, "no stock"));
}

#[test]
fn a_malformed_trace_does_not_travel_on() {
    let mut headers = Headers::new();
    headers.append(TRACEPARENT, "00-zz-01");
    let call = read_call(Some(&headers), Bytes::new(), Instant::now()).unwrap();
    assert_eq!(call.trace.parent, None);
}

#[test]
fn no_headers_mean_the_defaults() {
    let now = Instant::now();
    let call = read_call(None, Bytes::new(), now).unwrap();
    assert_eq!((call.hops, call.deadline), (0, now + MAX_DEADLINE));
}

#[test]
fn a_header_with_an_impossible_value_is_the_callers_fault() {
    for (name, value) in [
        (DEADLINE, "soon"),
        (DEADLINE, "-1"),
        (HOPS, "256"),
        (CONTENT_TYPE, "text/xml"),
    ] {
        let mut headers = Headers::new();
        headers.append(name, value);
        let error = read_call(Some(&headers), Bytes::new(), Instant::now()).unwrap_err();
        assert_eq!(
            (error.code, error.blame),
            (Code::BadArguments, Blame::Caller),
            "{name}"
        );
        assert!(error.message.contains(value), "{}", error.message);
    }
}

#[test]
fn guests_neither_see_nor_set_headers_of_the_host() {
    let mut headers = write_call(&call(), Instant::now());
    headers.append(MESSAGE_ID, "7");
    headers.append("BAY-hops", "0");
    add_headers(
        &mut headers,
        &[
            ("Sku".into(), "7\r\nBay-Hops: 0".into()),
            ("Sku".into(), "8".into()),
            ("bay-caller".into(), "another".into()),
            ("Content-Type".into(), "text/plain".into()),
        ],
    );
    let mut read = read_headers(Some(&headers));
    read.sort();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let wanted = [
        pair("Content-Type", "text/plain"),
        pair("Sku", "7\\r\\nBay-Hops: 0"),
        pair("Sku", "8"),
    ];
    assert_eq!(read, wanted);
    assert_eq!(headers.get(CALLER).unwrap(), "orders");
    assert!(is_own_header("TraceParent") && !is_own_header("bay") && !is_own_header("Bäy-"));
}

#[test]
fn an_endless_deadline_is_bounded() {
    let mut headers = Headers::new();
    headers.append(DEADLINE, u64::MAX);
    let now = Instant::now();
    assert_eq!(
        read_call(Some(&headers), Bytes::new(), now)
            .unwrap()
            .deadline,
        now + MAX_DEADLINE
    );
}

#[test]
fn an_error_is_read_as_it_was_written() {
    let error = CallError::new(Code::Overloaded, Blame::Host, "busy\r\nInjected: yes");
    let (headers, body) = write_error(&error);
    assert_eq!(headers.get(ERROR).unwrap(), "busy\\r\\nInjected: yes");
    let read = read_reply(Some(&headers), body).unwrap_err();
    assert_eq!(
        (read.code, read.blame, read.message),
        (error.code, error.blame, error.message)
    );
}

#[test]
fn an_error_of_another_kind_of_service_is_understood() {
    let mut headers = Headers::new();
    headers.append(ERROR, "no stock");
    headers.append(ERROR_CODE, "422");
    let error = read_reply(Some(&headers), Bytes::from_static(b"plain text")).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (Code::Trap, "no stock")
    );
}
