//! Buckets in JetStream: the stored keys of services.

use std::fmt::Write as _;

use async_nats::jetstream::kv::{Operation, Store, UpdateErrorKind};
use async_nats::jetstream::stream::{Config, Stream};
use async_nats::jetstream::{self, kv};
use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::pages::page;
use crate::events::stream;
use crate::interfaces::{KeyPage, KeyValue, KeyValueError};
use crate::manifest::KeyValueGrant;
use crate::nats::{Refusal, Violations};

/// Upper bound of the bytes of an encoded key: it is part of a subject, which NATS sends in one
/// line of at most 4 KiB.
const MAX_KEY: usize = 1 << 10;

/// A bucket of JetStream's.
#[derive(Clone)]
pub(super) struct Bucket {
    store: Store,
    context: jetstream::Context,
    violations: Violations,
    granted: KeyValueGrant,
}

impl Bucket {
    /// Opens the bucket of this name, and creates it if there is none.
    pub(super) async fn open(
        context: jetstream::Context,
        violations: Violations,
        name: &str,
        granted: KeyValueGrant,
    ) -> Result<Self, async_nats::Error> {
        let opened = violations.guard(|refusal| refusal.subject.contains(name), async {
            match find(&context, name).await? {
                Some(store) => {
                    enlarge(&context, &store.stream, granted.replicas, granted.size).await;
                    Ok(store)
                }
                None => create(&context, name, granted).await,
            }
        });
        let store = opened.await??;
        Ok(Self {
            store,
            context,
            violations,
            granted,
        })
    }

    /// Does something with the bucket; once more if it failed since the bucket was lost, which is
    /// created again.
    async fn with<T, F>(&self, operation: impl Fn() -> F) -> Result<T, KeyValueError>
    where
        F: Future<Output = Result<T, async_nats::Error>>,
    {
        let name = &self.store.name;
        let ours = |refusal: &Refusal| refusal.subject.contains(name.as_str());
        let done = self.violations.guard(ours, operation()).await;
        let failure = match done.map_err(failed)? {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        match find(&self.context, name).await {
            Ok(None) => {}
            Ok(Some(_)) => return Err(failed(failure)),
            // That it cannot be looked for either is said by the first failure.
            Err(_) => return Err(KeyValueError::Unreachable(failure.to_string())),
        }
        tracing::warn!(
            name,
            "the data of a service is lost, its bucket is created again"
        );
        let created = create(&self.context, name, self.granted).await;
        created.map_err(failed)?;
        // What is known of the bucket is its name, which the new one has too.
        operation().await.map_err(failed)
    }
}

async fn find(
    context: &jetstream::Context,
    name: &str,
) -> Result<Option<Store>, async_nats::Error> {
    let stream = stream::find(context, &format!("KV_{name}")).await?;
    match stream {
        Some(_) => Ok(Some(context.get_key_value(name).await?)),
        None => Ok(None),
    }
}

async fn create(
    context: &jetstream::Context,
    name: &str,
    granted: KeyValueGrant,
) -> Result<Store, async_nats::Error> {
    let config = kv::Config {
        bucket: name.to_owned(),
        description: "data of a service".to_owned(),
        history: 1,
        max_bytes: i64::try_from(granted.size).unwrap_or(i64::MAX),
        num_replicas: granted.replicas.into(),
        ..kv::Config::default()
    };
    match context.create_key_value(config).await {
        Ok(store) => Ok(store),
        // Another instance may have created it between the two steps.
        Err(error) => match context.get_key_value(name).await {
            Ok(store) => Ok(store),
            Err(_) => Err(error.into()),
        },
    }
}

/// Gives a bucket what it has less of than was granted. What it has more of, its operator gave it.
pub(super) async fn enlarge(
    context: &jetstream::Context,
    stream: &Stream,
    replicas: u8,
    size: u64,
) {
    let before = &stream.cached_info().config;
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    let config = Config {
        num_replicas: before.num_replicas.max(replicas.into()),
        // No bound is more than any.
        max_bytes: match before.max_bytes {
            bound @ 1.. => bound.max(size),
            none => none,
        },
        ..before.clone()
    };
    if (config.num_replicas, config.max_bytes) == (before.num_replicas, before.max_bytes) {
        return;
    }
    if let Err(error) = context.update_stream(config).await {
        // It serves all the same.
        tracing::warn!(name = before.name, %error, "a service's data cannot get what is granted");
    }
}

fn failed(error: impl std::fmt::Display) -> KeyValueError {
    KeyValueError::Refused(error.to_string())
}

impl KeyValue for Bucket {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, KeyValueError>> {
        Box::pin(async move {
            match encode_key(key) {
                Ok(key) => {
                    self.with(|| async { Ok(self.store.get(&key).await?) })
                        .await
                }
                // It is too long to have been set.
                Err(_) => Ok(None),
            }
        })
    }

    fn set<'a>(&'a self, key: &'a str, value: Bytes) -> BoxFuture<'a, Result<(), KeyValueError>> {
        Box::pin(async move {
            let key = encode_key(key)?;
            let put = || async { Ok(self.store.put(&key, value.clone()).await?) };
            self.with(put).await.map(drop)
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), KeyValueError>> {
        Box::pin(async move {
            match encode_key(key) {
                Ok(key) => self.with(|| remove(&self.store, &key)).await,
                // It is too long to have been set.
                Err(_) => Ok(()),
            }
        })
    }

    fn increment<'a>(
        &'a self,
        key: &'a str,
        delta: u64,
    ) -> BoxFuture<'a, Result<u64, KeyValueError>> {
        Box::pin(async move {
            let key = encode_key(key)?;
            self.with(|| add(&self.store, &key, delta)).await
        })
    }

    fn keys(&self, cursor: Option<u64>) -> BoxFuture<'_, Result<KeyPage, KeyValueError>> {
        Box::pin(async move { self.with(|| keys(&self.store, cursor)).await })
    }
}

/// Removes a key and leaves nothing of it. The bucket's own way leaves a marker, for ever, and a bucket
/// whose keys come and go would be full of those.
async fn remove(store: &Store, key: &str) -> Result<(), async_nats::Error> {
    let subject = format!("{}{key}", store.prefix);
    store.stream.purge().filter(subject).await?;
    Ok(())
}

/// Adds to a number, again whenever another writer changed it in between.
async fn add(store: &Store, key: &str, delta: u64) -> Result<u64, async_nats::Error> {
    loop {
        let entry = store.entry(key).await?;
        let (value, revision) = match &entry {
            Some(entry) if entry.operation == Operation::Put => (&*entry.value, entry.revision),
            Some(entry) => (&b"0"[..], entry.revision),
            None => (&b"0"[..], 0),
        };
        let before = std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
            .ok_or("the value is no number")?;
        let sum = before
            .checked_add(delta)
            .ok_or("the sum does not fit into 64 bits")?;
        match store.update(key, sum.to_string().into(), revision).await {
            Ok(_) => return Ok(sum),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A page of keys in the order of their last change, from a sequence of the bucket's stream on. A
/// key that is set while the pages are read comes again and is not missed.
async fn keys(store: &Store, cursor: Option<u64>) -> Result<KeyPage, async_nats::Error> {
    let mut keys = Vec::new();
    let all = format!("{}>", store.prefix);
    let cursor = page(&store.stream, all, cursor, true, |message, _| {
        let operation = message.headers.as_ref().and_then(|h| h.get("KV-Operation"));
        let key = message.subject.strip_prefix(store.prefix.as_str());
        if let (None, Some(key)) = (operation, key.and_then(decode_key)) {
            keys.push(key);
        }
        true
    });
    let cursor = cursor.await?;
    Ok(KeyPage { keys, cursor })
}

/// Encodes a key for the bucket: letters, digits, `_`, `-` and `/` as they are, every other byte as
/// `=` and two digits, and the empty key as `=`.
fn encode_key(key: &str) -> Result<String, KeyValueError> {
    let mut encoded = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_' | b'-' | b'/' => {
                encoded.push(char::from(byte));
            }
            // Writing to a string cannot fail.
            _ => drop(write!(encoded, "={byte:02X}")),
        }
        if encoded.len() > MAX_KEY {
            let message = format!("the key is longer than the limit of {MAX_KEY} bytes");
            return Err(KeyValueError::Refused(message));
        }
    }
    if encoded.is_empty() {
        encoded.push('=');
    }
    Ok(encoded)
}

/// Decodes a key of [`encode_key`]; `None` for a key of another writer.
fn decode_key(encoded: &str) -> Option<String> {
    if encoded == "=" {
        return Some(String::new());
    }
    let mut bytes = encoded.bytes();
    let mut key = Vec::with_capacity(encoded.len());
    while let Some(byte) = bytes.next() {
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        key.push(match byte {
            b'=' => u8::try_from(digit()? * 16 + digit()?).ok()?,
            byte => byte,
        });
    }
    String::from_utf8(key).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_were_written() {
        let long = "k".repeat(MAX_KEY);
        for key in ["", "=", "a/b_c-9", ".", "a..b", "*.>", "é \n", "=41", &long] {
            let encoded = encode_key(key).unwrap_or_else(|error| panic!("{error:?}"));
            assert!(
                encoded
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-/=".contains(&b)),
                "{encoded}"
            );
            assert_eq!(decode_key(&encoded).as_deref(), Some(key));
        }
        assert!(encode_key(&"é".repeat(MAX_KEY)).is_err());
    }

    #[test]
    fn a_key_of_another_writer_is_none() {
        for key in ["=4", "=G0", "==", "=FF"] {
            assert_eq!(decode_key(key), None, "{key}");
        }
    }
}
