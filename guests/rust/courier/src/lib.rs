//! Executes the commands in messages and replies with the outcome: tests of `wasi:messaging` send
//! messages to it.

wit_bindgen::generate!({
    path: "../../../wit",
    world: "courier",
    generate_all,
});

use exports::wasi::messaging::incoming_handler::Guest;
use wasi::messaging::request_reply::RequestOptions;
use wasi::messaging::types::{Client, Error, Message, MetadataError};
use wasi::messaging::{producer, request_reply};

struct Courier;

export!(Courier);

impl Guest for Courier {
    fn handle(message: Message) -> Result<(), Error> {
        let body = message.data();
        let text = String::from_utf8_lossy(&body).into_owned();
        let mut words = text.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_default();
        let outcome = match (word(), word(), word()) {
            ("trap", ..) => panic!("as asked"),
            ("spin", ..) => loop {
                std::hint::black_box(());
            },
            ("fail", why, _) => return Err(Error::Other(why.to_owned())),
            ("obey", topic, _) => return obey(topic),
            ("connect", name, _) => Client::connect(name).map(|_| "connected".to_owned()),
            ("send", topic, text) => send(topic, text),
            ("leave", topic, _) => leave(topic),
            ("ask", topic, replies) => ask(topic, replies),
            ("set", name, value) => Ok(set(name, value)),
            ("keep", size, _) => Ok(keep(size)),
            ("headers", ..) => Ok(headers(&message)),
            _ => Ok(text),
        };
        let outcome = outcome.unwrap_or_else(|error| format!("{error:?}"));
        request_reply::reply(&message, Message::new(outcome.as_bytes()))
    }
}

fn send(topic: &str, text: &str) -> Result<String, Error> {
    let message = Message::new(b"");
    message.set_data(text.as_bytes());
    // A refusal here shows in the message that arrives.
    let _ = message.set_content_type("text/plain");
    let pairs = [("Sku", "7"), ("Gone", "1")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    let _ = message.set_metadata(&pairs);
    let _ = message.add_metadata("Sku", "8");
    message.remove_metadata("Gone");
    producer::send(&Client::connect("default")?, topic, message)?;
    Ok("sent".to_owned())
}

/// Ends as the reply of the topic says.
fn obey(topic: &str) -> Result<(), Error> {
    match &*ask(topic, "")? {
        "fail" => Err(Error::Other("refused".to_owned())),
        "trap" => panic!("as asked"),
        "spin" => loop {
            std::hint::black_box(());
        },
        _ => Ok(()),
    }
}

/// Sends with a client that is no longer connected.
fn leave(topic: &str) -> Result<String, Error> {
    let client = Client::connect("")?;
    client.disconnect()?;
    producer::send(&client, topic, Message::new(b"late"))?;
    Ok("sent".to_owned())
}

/// Waits a second for so many replies, or without a number for one reply without options.
fn ask(topic: &str, replies: &str) -> Result<String, Error> {
    let options = replies.parse().ok().map(|replies| {
        let options = RequestOptions::new();
        options.set_timeout_ms(1_000);
        options.set_expected_replies(replies);
        options
    });
    let client = Client::connect("nats")?;
    let replies = request_reply::request(&client, topic, &Message::new(b"question"), options)?;
    let texts = replies
        .iter()
        .map(|reply| String::from_utf8_lossy(&reply.data()).into_owned());
    Ok(texts.collect::<Vec<_>>().join("+"))
}

fn set(name: &str, value: &str) -> String {
    match Message::new(b"").add_metadata(name, value) {
        Ok(()) => "set".to_owned(),
        Err(MetadataError::Invalid(Some(why))) => why,
        Err(error) => format!("{error:?}"),
    }
}

/// Has the host keep so many messages of a mebibyte.
fn keep(number: &str) -> String {
    let body = vec![0; 1 << 20];
    for _ in 0..number.parse().unwrap_or(0) {
        std::mem::forget(Message::new(&body));
    }
    "kept".to_owned()
}

/// Topic, content type and metadata of a message.
fn headers(message: &Message) -> String {
    let (topic, kind) = (message.topic(), message.content_type());
    let mut metadata = message.metadata().unwrap_or_default();
    metadata.sort();
    format!("{topic:?} {kind:?} {metadata:?}")
}
