use proptest::prelude::*;

use super::*;

/// Every operation of a stream that comes at once.
fn all(bytes: &[u8]) -> Result<Vec<Operation>, Broken> {
    let mut buffer = BytesMut::from(bytes);
    let mut operations = Vec::new();
    while let Some(operation) = read(&mut buffer)? {
        operations.push(operation);
    }
    Ok(operations)
}

fn message(bytes: &[u8]) -> (u64, Message) {
    match all(bytes).unwrap().pop() {
        Some(Operation::Message(sid, message)) => (sid, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_is_slices_of_what_came() {
    let (sid, plain) = message(b"MSG a.b 7 3\r\n1\r2\r\n");
    assert_eq!(
        (sid, &*plain.subject, &plain.payload[..]),
        (7, "a.b", &b"1\r2"[..])
    );
    assert_eq!(
        (plain.reply, plain.headers, plain.malformed),
        (None, None, None)
    );
    assert_eq!(plain.length, 6);
    let (sid, asked) = message(b"MSG a 18446744073709551 _INBOX.x 0\r\n\r\n");
    assert_eq!(
        (sid, asked.reply.as_deref()),
        (18446744073709551, Some("_INBOX.x"))
    );
    let (_, headed) = message(b"HMSG a 1 r 18 20\r\nNATS/1.0\r\nA: 1\r\n\r\nxy\r\n");
    assert_eq!(headed.headers.unwrap().get("a"), Some("1"));
    assert_eq!(&headed.payload[..], b"xy");
    let (_, unanswered) = message(b"HMSG r 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n");
    assert_eq!(unanswered.status, Some(StatusCode::NO_RESPONDERS));
}

#[test]
fn a_malformed_message_is_one_message_and_the_next_one_is_read() {
    let streams: [(&[u8], Malformed, &str); 4] = [
        (
            b"MSG \xff.b 1 r 2\r\nxy\r\n",
            Malformed::Subject,
            "\u{fffd}.b",
        ),
        (b"MSG a 1 \xff 2\r\nxy\r\n", Malformed::Reply, "a"),
        (
            b"HMSG a 1 r 13 15\r\nNATS/1.0\xff\r\n\r\nxy\r\n",
            Malformed::Headers(headers::Malformed::NoText),
            "a",
        ),
        (
            b"HMSG a 1 r 1 3\r\n\nxy\r\n",
            Malformed::Headers(headers::Malformed::NoVersion),
            "a",
        ),
    ];
    for (bytes, why, subject) in streams {
        let stream = [bytes, b"PING\r\n"].concat();
        let mut operations = all(&stream).unwrap().into_iter();
        match operations.next() {
            Some(Operation::Message(1, message)) => {
                assert_eq!(message.payload, "xy");
                assert_eq!(message.malformed, Some(why));
                assert_eq!(&*message.subject, subject);
                assert_eq!(message.reply.is_none(), why == Malformed::Reply);
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(operations.next(), Some(Operation::Ping)));
    }
}

#[test]
fn what_a_server_says_is_read() {
    let said =
        all(b"INFO {\"a\":1} \r\nPING\r\npong\r\n+OK\r\n-ERR 'Stale Connection'\r\n").unwrap();
    match &said[..] {
        [
            Operation::Info(info),
            Operation::Ping,
            Operation::Pong,
            Operation::Ok,
            Operation::Error(error),
        ] => {
            assert_eq!(&info[..], b"{\"a\":1} ");
            assert_eq!(error, "Stale Connection");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_nats_breaks_the_stream() {
    for bytes in [
        &b"HTTP/1.1 400 Bad Request\r\n"[..],
        b"\r\n",
        b"MSG\r\n",
        b"MSG a 1\r\n",
        b"MSG a x 1\r\n",
        b"MSG a 1 r s 1\r\n",
        b"MSG a 1 -1\r\n",
        b"MSG a 1 99999999999999999999\r\n",
        b"HMSG a 1 3 2\r\nxx\r\n",
    ] {
        assert!(
            matches!(all(bytes), Err(Broken::Operation(_))),
            "{}",
            bytes.escape_ascii()
        );
    }
    let size = MAX_MESSAGE + 1;
    let large = format!("MSG a 1 {size}\r\n");
    assert_eq!(all(large.as_bytes()).unwrap_err(), Broken::Size(size));
    assert_eq!(all(&vec![b'x'; MAX_LINE + 1]).unwrap_err(), Broken::Line);
}

#[test]
fn nothing_can_be_published_that_ends_a_word() {
    for subject in [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a b",
        "a\r\nPUB b",
        "a\tb",
        "a\0",
    ] {
        assert!(!is_subject(subject), "{subject:?}");
    }
    assert!(is_subject("a.$b.é-_*"));
}

#[test]
fn what_was_not_begun_is_kept_without_its_subscriptions() {
    let mut out = Vec::new();
    write_publish(&mut out, "first", None, b"", b"SUB x 1\r\n");
    let second = out.len();
    write_subscribe(&mut out, "a", Some("g"), 4);
    write_unsubscribe(&mut out, 3);
    out.extend_from_slice(PING);
    let begin = out.len();
    write_publish(
        &mut out,
        "second",
        Some("r"),
        b"NATS/1.0\r\nA: 1\r\n\r\n",
        b"two",
    );
    let last = out[begin..].to_vec();
    assert_eq!(
        last,
        b"HPUB second r 18 21\r\nNATS/1.0\r\nA: 1\r\n\r\ntwo\r\n"
    );
    assert_eq!(publications(&out, 0), [&out[..second], &last[..]].concat());
    assert_eq!(publications(&out, 1), last);
    assert_eq!(publications(&out, begin + 1), b"");
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = all(&bytes);
    }

    #[test]
    fn any_subject_and_headers_are_one_message(
        subject in proptest::collection::vec(any::<u8>().prop_filter("ends a word", |b| !matches!(b, b' ' | b'\t' | b'\r' | b'\n')), 1..32),
        headers in proptest::collection::vec(any::<u8>(), 1..64),
        body in proptest::collection::vec(any::<u8>(), 0..64),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut stream = b"HMSG ".to_vec();
        stream.extend_from_slice(&subject);
        stream.extend_from_slice(format!(" 5 {} {}\r\n", headers.len(), headers.len() + body.len()).as_bytes());
        stream.extend_from_slice(&headers);
        stream.extend_from_slice(&body);
        stream.extend_from_slice(b"\r\nPONG\r\n");
        // In two reads, at any place.
        let (first, second) = stream.split_at(cut.index(stream.len()));
        let mut buffer = BytesMut::from(first);
        let mut operations = Vec::new();
        for rest in [&b""[..], second] {
            buffer.extend_from_slice(rest);
            while let Some(operation) = read(&mut buffer).unwrap() {
                operations.push(operation);
            }
        }
        prop_assert_eq!(operations.len(), 2);
        match operations.first() {
            Some(Operation::Message(5, message)) => prop_assert_eq!(&message.payload[..], &body[..]),
            other => prop_assert!(false, "{other:?}"),
        }
    }
}
