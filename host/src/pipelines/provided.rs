//! What the host itself does for a durable function, as calls: data, messages, and HTTP.
//!
//! Each has a name and a type (`plan::provided`), so that the journal has it as it has a call of a service, and
//! the guest's side and the owner's side meet in JSON.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::recorder::{Asked, Asks};
use crate::call::{Blame, Call, CallError, Code};
use crate::interfaces::{
    Backend, Expected, Fetch, Fetched, KeyPage, KeyValue, KeyValueError, Message, NotFetched,
    OutgoingMessage, fetch,
};
use crate::json::{self, Limits};
use crate::manifest::KeyValueGrant;
use crate::plan::provided::{
    DELETE, FETCH, GET, INCREMENT, KEYS, REQUEST, SEND, SET, signature_of,
};
use crate::value::Value;

/// An operation of the host, and its arguments in JSON.
pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) body: Bytes,
    does: Does,
}

/// What it does.
enum Does {
    Data(Bucket, Data),
    Send(OutgoingMessage),
    Request(OutgoingMessage, Expected),
    Fetch(Box<Fetch>),
}

#[derive(Clone)]
struct Bucket {
    name: String,
    granted: KeyValueGrant,
}

enum Data {
    Get(String),
    Set(String, Bytes),
    Delete(String),
    Increment(String, u64),
    Keys(Option<u64>),
}

fn limits(bytes: usize) -> Limits {
    let usual = Limits::default();
    Limits {
        // In JSON bytes are longer by a third.
        bytes: usual.bytes.max(bytes.saturating_mul(2)),
        ..usual
    }
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn option(value: Option<Value>) -> Value {
    Value::Option(value.map(Box::new))
}

fn headers(headers: &[(String, String)]) -> Value {
    let pairs = headers.iter();
    let pairs = pairs.map(|(name, value)| Value::Tuple(vec![text(name), text(value)]));
    Value::List(pairs.collect())
}

impl Operation {
    fn new(name: &'static str, arguments: &[Value], does: Does) -> Result<Self, CallError> {
        let signature = signature_of(name).ok_or_else(|| CallError::defect(name))?;
        let body = json::encode_arguments(arguments, &signature, &limits(usize::MAX / 4));
        let body = body.map_err(CallError::request_too_large)?;
        let body = Bytes::from(body);
        Ok(Self { name, body, does })
    }

    fn data(bucket: &Bucket, data: Data) -> Result<Self, CallError> {
        let (name, arguments) = match &data {
            Data::Get(key) => (GET, vec![text(key)]),
            Data::Set(key, value) => (SET, vec![text(key), Value::Bytes(value.to_vec())]),
            Data::Delete(key) => (DELETE, vec![text(key)]),
            Data::Increment(key, delta) => (INCREMENT, vec![text(key), Value::U64(*delta)]),
            Data::Keys(cursor) => (KEYS, vec![option(cursor.map(Value::U64))]),
        };
        Self::new(name, &arguments, Does::Data(bucket.clone(), data))
    }

    pub(super) fn send(message: OutgoingMessage) -> Result<Self, CallError> {
        let arguments = [
            text(&message.subject),
            option(message.reply_to.as_deref().map(text)),
            headers(&message.headers),
            Value::Bytes(message.call.body.to_vec()),
        ];
        Self::new(SEND, &arguments, Does::Send(message))
    }

    pub(super) fn request(message: OutgoingMessage, expected: Expected) -> Result<Self, CallError> {
        let arguments = [
            text(&message.subject),
            headers(&message.headers),
            Value::Bytes(message.call.body.to_vec()),
        ];
        Self::new(REQUEST, &arguments, Does::Request(message, expected))
    }

    pub(super) fn fetch(fetch: Fetch) -> Result<Self, CallError> {
        let request = fetch.request();
        let [shown, secret] = fetch::texts(request.headers());
        let arguments = [
            text(request.method().as_str()),
            text(&request.uri().to_string()),
            headers(&shown),
            headers(&secret),
            Value::Bytes(request.body().to_vec()),
        ];
        Self::new(FETCH, &arguments, Does::Fetch(Box::new(fetch)))
    }

    /// Does it with the deadline and the identity of this call; returns the result in JSON.
    pub(super) async fn perform(
        &self,
        backend: &dyn Backend,
        call: Call,
    ) -> Result<Bytes, CallError> {
        let until = call.deadline;
        let done = tokio::time::timeout_at(until.into(), self.result(backend, call)).await;
        let why = format!("{}: no answer in time", self.name);
        let late = || CallError::new(Code::Deadline, Blame::Network, why);
        let value = done.map_err(|_| late())??;
        let signature = signature_of(self.name).ok_or_else(|| CallError::defect(self.name))?;
        let text = json::encode_result(Some(&value), &signature, &limits(usize::MAX / 4));
        text.map(Bytes::from).map_err(CallError::result_too_large)
    }

    async fn result(&self, backend: &dyn Backend, call: Call) -> Result<Value, CallError> {
        let of = |message: &OutgoingMessage| {
            // The guest may wait for less long than a step may take.
            let own = message.call.deadline - message.call.arrived;
            OutgoingMessage {
                call: Call {
                    body: message.call.body.clone(),
                    deadline: call.deadline.min(Instant::now() + own),
                    ..call.clone()
                },
                ..message.clone()
            }
        };
        let result = match &self.does {
            Does::Send(message) => {
                backend.send(of(message)).await?;
                Ok(None)
            }
            Does::Request(message, expected) => {
                let replies = backend.request(of(message), *expected).await?;
                let replies = replies.into_iter().map(|reply| {
                    Value::Record(vec![
                        Value::String(reply.subject),
                        Value::Bytes(reply.body),
                        option(reply.reply_to.map(Value::String)),
                        headers(&reply.headers),
                    ])
                });
                Ok(Some(Value::List(replies.collect())))
            }
            Does::Data(bucket, data) => {
                let opened = backend.open(&bucket.name, bucket.granted).await?;
                match data.perform(&*opened).await {
                    Ok(value) => Ok(value),
                    Err(KeyValueError::Refused(why)) => Err(why),
                    // It is tried again.
                    Err(KeyValueError::Unreachable(why)) => {
                        return Err(CallError::unavailable(why));
                    }
                }
            }
            Does::Fetch(fetch) => match fetch.send(&call).await {
                Ok(answer) => {
                    let [shown, secret] = fetch::texts(answer.headers());
                    Ok(Some(Value::Record(vec![
                        Value::U16(answer.status().as_u16()),
                        headers(&shown),
                        headers(&secret),
                        Value::Bytes(answer.into_body().into()),
                    ])))
                }
                Err(NotFetched::Refused(why)) => Err(why),
                Err(NotFetched::Failed(error)) => return Err(error),
            },
        };
        Ok(Value::Result(match result {
            Ok(value) => Ok(value.map(Box::new)),
            Err(why) => Err(Some(Box::new(Value::String(why)))),
        }))
    }
}

impl Data {
    async fn perform(&self, bucket: &dyn KeyValue) -> Result<Option<Value>, KeyValueError> {
        Ok(match self {
            Self::Get(key) => {
                let value = bucket.get(key).await?;
                Some(option(value.map(|value| Value::Bytes(value.into()))))
            }
            Self::Set(key, value) => {
                bucket.set(key, value.clone()).await?;
                None
            }
            Self::Delete(key) => {
                bucket.delete(key).await?;
                None
            }
            Self::Increment(key, delta) => Some(Value::U64(bucket.increment(key, *delta).await?)),
            Self::Keys(cursor) => {
                let page = bucket.keys(*cursor).await?;
                let keys = page.keys.into_iter().map(Value::String);
                Some(Value::Record(vec![
                    Value::List(keys.collect()),
                    option(page.cursor.map(Value::U64)),
                ]))
            }
        })
    }
}

impl Asks {
    /// What comes of an operation: its ok side, or what went wrong.
    async fn of_host(&self, operation: Operation) -> Result<Option<Value>, CallError> {
        let name = operation.name;
        let signature = signature_of(name).ok_or_else(|| CallError::defect(name))?;
        let reply = self.ask(Asked::Host(operation)).await?;
        let value = json::decode_result(&reply, &signature, &limits(reply.len()));
        match value.map_err(CallError::bad_reply)? {
            Some(Value::Result(Ok(value))) => Ok(value.map(|value| *value)),
            Some(Value::Result(Err(Some(why)))) => match *why {
                Value::String(why) => Err(CallError::unavailable(why)),
                _ => Err(CallError::defect(name)),
            },
            _ => Err(CallError::defect(name)),
        }
    }

    pub(super) async fn send(&self, message: OutgoingMessage) -> Result<(), CallError> {
        self.of_host(Operation::send(message)?).await.map(drop)
    }

    pub(super) async fn request(
        &self,
        message: OutgoingMessage,
        expected: Expected,
    ) -> Result<Vec<Message>, CallError> {
        let replies = self.of_host(Operation::request(message, expected)?).await?;
        let Some(Value::List(replies)) = replies else {
            return Err(CallError::defect(REQUEST));
        };
        let read = replies.into_iter().map(|reply| {
            let Value::Record(fields) = reply else {
                return None;
            };
            let fields: [Value; 4] = fields.try_into().ok()?;
            let [
                Value::String(subject),
                Value::Bytes(body),
                Value::Option(reply_to),
                Value::List(headers),
            ] = fields
            else {
                return None;
            };
            Some(Message {
                subject,
                body,
                reply_to: reply_to.and_then(|to| match *to {
                    Value::String(to) => Some(to),
                    _ => None,
                }),
                headers: pairs(headers)?,
            })
        });
        let read: Option<Vec<_>> = read.collect();
        read.ok_or_else(|| CallError::defect(REQUEST))
    }

    pub(super) async fn fetch(&self, fetch: Fetch) -> Result<Fetched, CallError> {
        let record = self.of_host(Operation::fetch(fetch)?).await?;
        let answer = record.and_then(answer);
        answer.ok_or_else(|| CallError::defect(FETCH))
    }
}

/// Headers as values have them.
fn pairs(headers: Vec<Value>) -> Option<Vec<(String, String)>> {
    let pairs = headers.into_iter().map(|pair| match pair {
        Value::Tuple(pair) => match <[Value; 2]>::try_from(pair).ok()? {
            [Value::String(name), Value::String(value)] => Some((name, value)),
            _ => None,
        },
        _ => None,
    });
    pairs.collect()
}

/// The answer that a record of the journal is.
fn answer(record: Value) -> Option<Fetched> {
    let Value::Record(fields) = record else {
        return None;
    };
    let fields: [Value; 4] = fields.try_into().ok()?;
    let [
        Value::U16(status),
        Value::List(shown),
        Value::List(secret),
        Value::Bytes(body),
    ] = fields
    else {
        return None;
    };
    let mut answer = Fetched::new(body.into());
    *answer.status_mut() = status.try_into().ok()?;
    *answer.headers_mut() = fetch::headers(pairs(shown)?.into_iter().chain(pairs(secret)?))?;
    Some(answer)
}

/// A bucket whose operations are steps of a run.
pub(super) struct Recorded {
    asks: Asks,
    bucket: Bucket,
}

impl Recorded {
    pub(super) fn open(asks: Asks, name: &str, granted: KeyValueGrant) -> Arc<dyn KeyValue> {
        let name = name.to_owned();
        let bucket = Bucket { name, granted };
        Arc::new(Self { asks, bucket })
    }

    async fn ask(&self, data: Data) -> Result<Option<Value>, KeyValueError> {
        let failed = |error: CallError| KeyValueError::Refused(error.message);
        let operation = Operation::data(&self.bucket, data).map_err(failed)?;
        self.asks.of_host(operation).await.map_err(failed)
    }
}

fn odd() -> KeyValueError {
    KeyValueError::Refused("the journal has a value of another type".to_owned())
}

impl KeyValue for Recorded {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, KeyValueError>> {
        Box::pin(async {
            match self.ask(Data::Get(key.to_owned())).await? {
                Some(Value::Option(None)) => Ok(None),
                Some(Value::Option(Some(value))) => match *value {
                    Value::Bytes(value) => Ok(Some(value.into())),
                    _ => Err(odd()),
                },
                _ => Err(odd()),
            }
        })
    }

    fn set<'a>(&'a self, key: &'a str, value: Bytes) -> BoxFuture<'a, Result<(), KeyValueError>> {
        Box::pin(async { self.ask(Data::Set(key.to_owned(), value)).await.map(drop) })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), KeyValueError>> {
        Box::pin(async { self.ask(Data::Delete(key.to_owned())).await.map(drop) })
    }

    fn increment<'a>(
        &'a self,
        key: &'a str,
        delta: u64,
    ) -> BoxFuture<'a, Result<u64, KeyValueError>> {
        Box::pin(async move {
            match self.ask(Data::Increment(key.to_owned(), delta)).await? {
                Some(Value::U64(sum)) => Ok(sum),
                _ => Err(odd()),
            }
        })
    }

    fn keys(&self, cursor: Option<u64>) -> BoxFuture<'_, Result<KeyPage, KeyValueError>> {
        Box::pin(async move {
            let Some(Value::Record(fields)) = self.ask(Data::Keys(cursor)).await? else {
                return Err(odd());
            };
            let fields: [Value; 2] = fields.try_into().map_err(|_| odd())?;
            let [Value::List(keys), Value::Option(cursor)] = fields else {
                return Err(odd());
            };
            let keys = keys.into_iter().map(|key| match key {
                Value::String(key) => Ok(key),
                _ => Err(odd()),
            });
            let cursor = match cursor.map(|cursor| *cursor) {
                None => None,
                Some(Value::U64(cursor)) => Some(cursor),
                Some(_) => return Err(odd()),
            };
            let keys = keys.collect::<Result<_, _>>()?;
            Ok(KeyPage { keys, cursor })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::recorder::Recorder;
    use super::*;
    use crate::call::Identity;
    use crate::interfaces::memory::MemoryBackend;

    /// A recorder whose owner does what it is asked for, and keeps names and arguments.
    fn recorder() -> (
        Recorder,
        Arc<MemoryBackend>,
        Arc<std::sync::Mutex<Vec<String>>>,
    ) {
        let (recorder, mut asked) = Recorder::new();
        let backend = Arc::new(MemoryBackend::default());
        let journal = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (host, kept) = (Arc::clone(&backend), Arc::clone(&journal));
        tokio::spawn(async move {
            while let Some(ask) = asked.recv().await {
                let operation = ask.what.operation().unwrap();
                let body = String::from_utf8(operation.body.to_vec()).unwrap();
                kept.lock()
                    .unwrap()
                    .push(format!("{} {body}", operation.name));
                let call = Call {
                    identity: Some(Identity::Step("the.step".into())),
                    ..Call::new(Bytes::new(), Duration::from_secs(5))
                };
                let done = operation.perform(&*host, call).await;
                ask.answer.send(done).unwrap();
            }
        });
        (recorder, backend, journal)
    }

    #[tokio::test]
    async fn data_goes_by_the_journal_and_comes_back() {
        let (recorder, _, journal) = recorder();
        let granted = KeyValueGrant::default();
        let bucket = recorder.open("b", granted).await.unwrap();
        assert_eq!(bucket.get("k").await.unwrap(), None);
        let odd = Bytes::from_static(b"\0\xff\"");
        bucket.set("k", odd.clone()).await.unwrap();
        assert_eq!(bucket.get("k").await.unwrap(), Some(odd));
        assert_eq!(bucket.increment("n", u64::MAX).await.unwrap(), u64::MAX);
        let why = bucket.increment("n", 1).await.unwrap_err();
        assert_eq!(
            why.to_string(),
            "the value is no number, or the sum too large"
        );
        let page = bucket.keys(None).await.unwrap();
        assert_eq!(
            (page.keys, page.cursor),
            (vec!["k".to_owned(), "n".to_owned()], None)
        );
        bucket.delete("k").await.unwrap();
        assert_eq!(bucket.get("k").await.unwrap(), None);
        let journal = journal.lock().unwrap();
        assert_eq!(journal.len(), 8);
        assert_eq!(
            journal[1],
            r#"wasi:keyvalue/store.set {"key":"k","value":"AP8i"}"#
        );
    }

    #[tokio::test]
    async fn messages_go_by_the_journal_and_replies_come_back() {
        let (recorder, backend, journal) = recorder();
        let message = OutgoingMessage {
            subject: "a.b".to_owned(),
            reply_to: None,
            headers: vec![("x".to_owned(), "y".to_owned())],
            stream: Some("s".into()),
            call: Call::new(Bytes::from_static(b"\xff"), Duration::from_secs(1)),
        };
        recorder.send(message.clone()).await.unwrap();
        backend.answer("a.b", "pong");
        let one = Expected {
            replies: 1,
            bytes: 9,
        };
        let replies = recorder.request(message.clone(), one).await.unwrap();
        assert_eq!(replies[0].body, b"pong");
        let sent = backend.sent();
        for sent in &sent {
            assert_eq!((&*sent.subject, &sent.headers), ("a.b", &message.headers));
            assert_eq!(sent.call.body, message.call.body);
            // So a stream stores attempts at it once.
            assert_eq!(sent.call.identity, Some(Identity::Step("the.step".into())));
            assert!(sent.call.deadline <= Instant::now() + Duration::from_secs(1));
        }
        assert_eq!(sent.len(), 2);
        let sent = r#"wasi:messaging/producer.send {"subject":"a.b","replyTo":null,"headers":[["x","y"]],"body":"/w=="}"#;
        assert_eq!(journal.lock().unwrap()[0], sent);
        let nobody = OutgoingMessage {
            subject: "c".to_owned(),
            ..message
        };
        let error = recorder.request(nobody, one).await.unwrap_err();
        assert!(error.message.contains("no responders on c"), "{error}");
    }
}
