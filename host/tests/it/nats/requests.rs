//! Requests and replies over one connection.

use super::*;

#[tokio::test]
async fn a_request_gets_its_reply_and_headers_go_both_ways() {
    let nats = Nats::start().await;
    let responder = nats.connect().await;
    let mut asked = responder.subscribe("ask").await.unwrap();
    settled(&responder).await.unwrap();
    let requests = Requests::new(nats.link().await).unwrap();
    let mut headers = Headers::new();
    headers.append("Bay-Hops", "3");
    let answer = async {
        let question = asked.next().await.unwrap();
        assert_eq!(question.payload, "how much?");
        let headers = question.headers.unwrap();
        assert_eq!(headers.get("Bay-Hops").unwrap().as_str(), "3");
        let reply = question.reply.unwrap();
        responder
            .publish_with_headers(reply, headers, "so much".into())
            .await
            .unwrap();
    };
    let request = requests.request("ask".into(), headers, "how much?".into());
    let (reply, ()) = timeout(DEADLINE, async { tokio::join!(request, answer) })
        .await
        .unwrap();
    let reply = reply.unwrap();
    assert_eq!(reply.payload, "so much");
    assert_eq!(reply.headers.unwrap().get("Bay-Hops"), Some("3"));
    assert_eq!(requests.outstanding(), 0);
    nats.stop().await;
}

#[tokio::test]
async fn requests_that_cannot_be_sent_have_errors_of_their_own_and_leave_nothing_waiting() {
    let nats = Nats::start().await;
    let client = nats.connect().await;
    let requests = Requests::new(nats.link().await).unwrap();
    let ask = |subject: &'static str, headers, size| {
        requests.request(subject.into(), headers, Bytes::from(vec![b'x'; size]))
    };

    let unanswered = timeout(DEADLINE, ask("none", Headers::new(), 1))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(
        unanswered,
        RequestError::NoResponders {
            subject: "none".into()
        }
    );
    let invalid = ask("no subject", Headers::new(), 1).await.unwrap_err();
    assert_eq!(
        invalid,
        RequestError::InvalidSubject {
            subject: "no subject".into()
        }
    );

    // The server takes exactly its limit, headers included, and one byte more is not sent at all.
    let _echo = echo(&client, "echo").await;
    let limit = client.max_payload();
    let mut headers = Headers::new();
    headers.append(
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    );
    headers.append("Many", "one");
    headers.append("Many", "two");
    let room = limit - headers.size();
    let reply = timeout(DEADLINE, ask("echo", headers.clone(), room))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(reply.payload.len(), room);
    let large = ask("echo", headers, room + 1).await.unwrap_err();
    assert_eq!(
        large,
        RequestError::TooLarge {
            size: limit + 1,
            limit
        }
    );
    let large = ask("echo", Headers::new(), limit + 1).await.unwrap_err();
    assert_eq!(
        large,
        RequestError::TooLarge {
            size: limit + 1,
            limit
        }
    );
    assert_eq!(requests.outstanding(), 0);
    nats.stop().await;
}

#[tokio::test]
async fn dropped_requests_leave_nothing_waiting_and_their_late_replies_are_ignored() {
    let nats = Nats::start().await;
    let client = nats.connect().await;
    let mut asked = client.subscribe("ask").await.unwrap();
    let requests = Requests::new(nats.link().await).unwrap();
    let mut dropped = Vec::new();
    for _ in 0..100 {
        let mut request = Box::pin(requests.request("ask".into(), Headers::new(), "late".into()));
        // Polled once, so that it is sent.
        assert!(request.as_mut().now_or_never().is_none());
        dropped.push(request);
    }
    assert_eq!(requests.outstanding(), 100);
    drop(dropped);
    assert_eq!(requests.outstanding(), 0);

    let answer = async {
        for _ in 0..101 {
            let question = asked.next().await.unwrap();
            client
                .publish(question.reply.unwrap(), question.payload)
                .await
                .unwrap();
        }
    };
    let request = requests.request("ask".into(), Headers::new(), "now".into());
    let (reply, ()) = timeout(DEADLINE, async { tokio::join!(request, answer) })
        .await
        .unwrap();
    assert_eq!(reply.unwrap().payload, "now");
    nats.stop().await;
}

#[tokio::test]
async fn each_request_waits_until_its_own_deadline() {
    let nats = Nats::start().await;
    let link = nats.link().await;
    let _silent = link.subscribe("silent", None).unwrap();
    let requests = Requests::new(link.clone()).unwrap();
    let begun = Instant::now();
    let ask = |milliseconds| {
        let deadline = begun + Duration::from_millis(milliseconds);
        let request =
            requests.request_until("silent".into(), Headers::new(), Bytes::new(), deadline);
        async move { (request.await.unwrap_err(), begun.elapsed()) }
    };
    // The second comes before the first, for which a timer runs already.
    let ended = timeout(DEADLINE, async { tokio::join!(ask(600), ask(100), ask(0)) });
    let (late, soon, at_once) = ended.await.unwrap();
    for ((error, after), least) in [(&late, 600), (&soon, 100), (&at_once, 0)] {
        assert_eq!(error, &RequestError::Deadline);
        assert!(*after >= Duration::from_millis(least), "{after:?}");
    }
    assert!(at_once.1 < soon.1 && soon.1 < late.1, "{soon:?}");
    assert_eq!(requests.outstanding(), 0);
    nats.stop().await;
}

#[tokio::test]
async fn a_closed_connection_ends_what_waits_and_what_comes_after() {
    let nats = Nats::start().await;
    let link = nats.link().await;
    let _silent = link.subscribe("silent", None).unwrap();
    let requests = Requests::new(link.clone()).unwrap();
    let ask = || requests.request("silent".into(), Headers::new(), Bytes::new());
    let waiting = ask();
    let closing = async {
        until("the request waits", || requests.outstanding() == 1).await;
        link.close();
    };
    let (waiting, ()) = timeout(DEADLINE, async { tokio::join!(waiting, closing) })
        .await
        .unwrap();
    assert_eq!(waiting.unwrap_err(), RequestError::Closed);
    assert_eq!(
        timeout(DEADLINE, ask()).await.unwrap().unwrap_err(),
        RequestError::Closed
    );
    assert_eq!(requests.outstanding(), 0);
    nats.stop().await;
}

#[tokio::test]
async fn ten_thousand_requests_at_a_time_each_get_their_own_reply() {
    let nats = Nats::start().await;
    let responder = nats.connect().await;
    let _echo = echo(&responder, "echo").await;
    let requests = Arc::new(Requests::new(nats.link().await).unwrap());
    let started = std::time::Instant::now();
    let all = (0..10_000_u32).map(|number| {
        let requests = Arc::clone(&requests);
        async move {
            let body = Bytes::from(number.to_string());
            let reply = requests
                .request("echo".into(), Headers::new(), body.clone())
                .await
                .unwrap();
            assert_eq!(reply.payload, body);
        }
    });
    timeout(DEADLINE, futures_util::future::join_all(all))
        .await
        .unwrap();
    println!("10,000 requests at a time: {:?}", started.elapsed());
    assert_eq!(requests.outstanding(), 0);
    nats.stop().await;
}

#[tokio::test]
async fn settled_means_that_another_connection_reaches_the_subscription() {
    let nats = Nats::start().await;
    let (subscriber, publisher) = (nats.connect().await, nats.connect().await);
    for round in 0..50 {
        let subject = format!("round.{round}");
        let mut messages = subscriber.subscribe(subject.clone()).await.unwrap();
        settled(&subscriber).await.unwrap();
        publisher.publish(subject, "here".into()).await.unwrap();
        assert_eq!(
            timeout(DEADLINE, messages.next())
                .await
                .unwrap()
                .unwrap()
                .payload,
            "here"
        );
    }
    nats.stop().await;
}

#[tokio::test]
async fn nothing_is_sent_that_its_caller_has_given_up() {
    let nats = Nats::start().await;
    let (responder, link) = (nats.link().await, nats.link().await);
    let mut received = responder.subscribe("late", None).unwrap();
    let requests = Requests::new(link.clone()).unwrap();
    responder.settled().await.unwrap();
    kill_9(nats.server.pid().unwrap());
    until("the connection is lost", || !link.is_connected()).await;
    let soon = Instant::now() + Duration::from_millis(50);
    let given_up = requests.request_until("late".into(), Headers::new(), "old".into(), soon);
    assert_eq!(given_up.await.unwrap_err(), RequestError::Deadline);
    until("both are connected again", || {
        link.is_connected() && responder.is_connected()
    })
    .await;
    responder.settled().await.unwrap();
    let none = Headers::new();
    link.publish("late", None, &none, b"new").await.unwrap();
    let first = timeout(DEADLINE, received.next()).await;
    assert_eq!(&*first.unwrap().unwrap().payload, b"new");
    nats.stop().await;
}
