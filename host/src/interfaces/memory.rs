//! A [`Backend`] that keeps everything in memory, for tests of services and of host interfaces.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::{
    Backend, Expected, KeyPage, KeyValue, KeyValueError, Message, OutgoingMessage, Pending,
};
use crate::call::{Call, CallError};
use crate::manifest::KeyValueGrant;
use crate::plan::Event;

/// Answers calls from a table, and records published events and sent messages.
#[derive(Default)]
pub struct MemoryBackend {
    answers: Mutex<HashMap<String, Bytes>>,
    published: Mutex<Vec<Event>>,
    sent: Mutex<Vec<OutgoingMessage>>,
    buckets: Mutex<HashMap<String, Arc<MemoryBucket>>>,
}

/// A bucket in memory, with all keys on one page.
#[derive(Debug, Default)]
pub struct MemoryBucket(Mutex<BTreeMap<String, Bytes>>);

impl MemoryBackend {
    /// Answers calls and requests on this subject from now on.
    pub fn answer(&self, subject: &str, body: impl Into<Bytes>) {
        lock(&self.answers).insert(subject.to_owned(), body.into());
    }

    /// The events published so far.
    pub fn published(&self) -> Vec<Event> {
        lock(&self.published).clone()
    }

    /// The messages sent so far, requests included.
    pub fn sent(&self) -> Vec<OutgoingMessage> {
        lock(&self.sent).clone()
    }

    fn answered(&self, subject: &str) -> Result<Bytes, CallError> {
        let answer = lock(&self.answers).get(subject).cloned();
        answer.ok_or_else(|| CallError::unavailable(format_args!("no responders on {subject}")))
    }
}

impl Backend for MemoryBackend {
    fn call<'a>(&'a self, subject: &'a str, _call: Call) -> Pending<'a, Bytes> {
        Box::pin(async move { self.answered(subject) })
    }

    fn publish(&self, event: Event) -> Pending<'_, ()> {
        lock(&self.published).push(event);
        Box::pin(async { Ok(()) })
    }

    fn open<'a>(&'a self, bucket: &'a str, _: KeyValueGrant) -> Pending<'a, Arc<dyn KeyValue>> {
        let bucket = Arc::clone(lock(&self.buckets).entry(bucket.to_owned()).or_default());
        Box::pin(async { Ok(bucket as Arc<dyn KeyValue>) })
    }

    fn send(&self, message: OutgoingMessage) -> Pending<'_, ()> {
        lock(&self.sent).push(message);
        Box::pin(async { Ok(()) })
    }

    fn request(&self, message: OutgoingMessage, _: Expected) -> Pending<'_, Vec<Message>> {
        Box::pin(async move {
            let reply = Message {
                body: self.answered(&message.subject)?.into(),
                ..Message::default()
            };
            lock(&self.sent).push(message);
            Ok(vec![reply])
        })
    }
}

impl MemoryBucket {
    /// A bucket with these keys.
    pub(crate) fn of(entries: impl Iterator<Item = (String, Bytes)>) -> Self {
        Self(Mutex::new(entries.collect()))
    }

    /// What is in it.
    pub(crate) fn entries(&self) -> BTreeMap<String, Bytes> {
        lock(&self.0).clone()
    }
}

impl KeyValue for MemoryBucket {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, KeyValueError>> {
        Box::pin(async move { Ok(lock(&self.0).get(key).cloned()) })
    }

    fn set<'a>(&'a self, key: &'a str, value: Bytes) -> BoxFuture<'a, Result<(), KeyValueError>> {
        lock(&self.0).insert(key.to_owned(), value);
        Box::pin(async { Ok(()) })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), KeyValueError>> {
        lock(&self.0).remove(key);
        Box::pin(async { Ok(()) })
    }

    fn increment<'a>(
        &'a self,
        key: &'a str,
        delta: u64,
    ) -> BoxFuture<'a, Result<u64, KeyValueError>> {
        Box::pin(async move {
            let mut entries = lock(&self.0);
            let before = entries.get(key).map_or(Some(0), |value| {
                std::str::from_utf8(value).ok()?.parse::<u64>().ok()
            });
            let sum = before
                .and_then(|before| before.checked_add(delta))
                .ok_or_else(|| {
                    KeyValueError::Refused(
                        "the value is no number, or the sum too large".to_owned(),
                    )
                })?;
            entries.insert(key.to_owned(), sum.to_string().into());
            Ok(sum)
        })
    }

    fn keys(&self, _cursor: Option<u64>) -> BoxFuture<'_, Result<KeyPage, KeyValueError>> {
        let keys = lock(&self.0).keys().cloned().collect();
        Box::pin(async { Ok(KeyPage { keys, cursor: None }) })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
