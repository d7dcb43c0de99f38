//! `wasi:keyvalue`: data of a service's own, in a JetStream bucket that no other service is given.
//!
//! What can fail here is told to the guest as a value, so that nothing traps it.

use std::fmt::{self, Write as _};
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::kv::{Operation, Store, UpdateErrorKind};
use async_nats::jetstream::{self, kv};
use futures_util::StreamExt as _;
use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::WasiView as _;

use super::before;
use crate::instance::State;
use bindings::wasi::keyvalue::store::HostBucket as _;
use bindings::wasi::keyvalue::store::{Error, KeyResponse};
use bindings::wasi::keyvalue::{atomics, batch, store};

mod bindings {
    wasmtime::component::bindgen!({
        inline: "
            package wasmbay:host;
            world keyvalue {
                import wasi:keyvalue/store@0.2.0-draft;
                import wasi:keyvalue/atomics@0.2.0-draft;
                import wasi:keyvalue/batch@0.2.0-draft;
            }
        ",
        path: "../wit/deps/wasi-keyvalue.wit",
        world: "wasmbay:host/keyvalue",
        imports: { default: async | trappable },
        with: { "wasi:keyvalue/store.bucket": super::Bucket },
    });
}

/// Bytes of a service's data, keys included. When there are more, setting a key fails.
const MAX_BYTES: i64 = 256 << 20;

/// Bytes of a key as the bucket has it: it is part of a subject, which NATS sends in one line of
/// at most 4 KiB.
const MAX_KEY: usize = 1 << 10;

/// Keys of one page.
const PAGE: usize = 1_000;

/// Keys of one batch.
const MAX_BATCH: usize = 1_000;

/// Bytes of all values that a batch gives.
const MAX_BATCH_BYTES: usize = 16 << 20;

/// A bucket that a guest has opened.
#[expect(unreachable_pub, reason = "the bindings export it again")]
pub struct Bucket(Store);

/// Opens the bucket of this name, and makes it if there is none.
pub(super) async fn bucket(
    context: &jetstream::Context,
    name: &str,
) -> Result<Store, async_nats::Error> {
    // One that is there stays as it is: its operator may have given it replicas or more room.
    if let Ok(store) = context.get_key_value(name).await {
        return Ok(store);
    }
    let config = kv::Config {
        bucket: name.to_owned(),
        description: "data of a service".to_owned(),
        history: 1,
        max_bytes: MAX_BYTES,
        ..kv::Config::default()
    };
    match context.create_key_value(config).await {
        Ok(store) => Ok(store),
        // Another instance may have made it between the two steps.
        Err(error) => context.get_key_value(name).await.map_err(|_| error.into()),
    }
}

/// Defines `wasi:keyvalue/store`, `wasi:keyvalue/atomics` and `wasi:keyvalue/batch`.
pub(crate) fn add(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    store::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    atomics::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    batch::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

impl store::Host for State {
    async fn open(
        &mut self,
        identifier: String,
    ) -> wasmtime::Result<Result<Resource<Bucket>, Error>> {
        if !self.spec.grants.keyvalue {
            let service = &*self.spec.name;
            tracing::warn!(
                service,
                "data refused; `grants = {{ keyvalue = true }}` would allow it"
            );
            return Ok(Err(Error::AccessDenied));
        }
        if !matches!(identifier.as_str(), "" | "default") {
            return Ok(Err(Error::NoSuchStore));
        }
        let Some(current) = &self.current else {
            return Ok(Err(outside()));
        };
        let (outbound, bucket) = (Arc::clone(&current.outbound), Arc::clone(&self.bucket));
        match timed(self.deadline(), outbound.data(&bucket)).await {
            Ok(store) => Ok(Ok(self.ctx().table.push(Bucket(store))?)),
            Err(error) => Ok(Err(error)),
        }
    }
}

impl store::HostBucket for State {
    async fn get(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        let store = self.store(&bucket)?;
        let Ok(key) = encode_key(&key) else {
            // It is too long to have been set.
            return Ok(Ok(None));
        };
        let value = timed(self.deadline(), store.get(key)).await;
        Ok(value.map(|value| value.map(Vec::from)))
    }

    async fn set(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let store = self.store(&bucket)?;
        let limit = self.spec.limits.message;
        if value.len() > limit {
            let size = value.len();
            let message = format!("a value of {size} bytes is larger than the limit of {limit}");
            return Ok(Err(Error::Other(message)));
        }
        let key = match encode_key(&key) {
            Ok(key) => key,
            Err(error) => return Ok(Err(error)),
        };
        Ok(timed(self.deadline(), store.put(key, value.into()))
            .await
            .map(drop))
    }

    async fn delete(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        let store = self.store(&bucket)?;
        let Ok(key) = encode_key(&key) else {
            return Ok(Ok(()));
        };
        Ok(timed(self.deadline(), store.delete(key)).await)
    }

    async fn exists(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> wasmtime::Result<Result<bool, Error>> {
        let value = self.get(bucket, key).await?;
        Ok(value.map(|value| value.is_some()))
    }

    async fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<u64>,
    ) -> wasmtime::Result<Result<KeyResponse, Error>> {
        let store = self.store(&bucket)?;
        Ok(timed(self.deadline(), page(&store, cursor)).await)
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.ctx().table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for State {
    async fn increment(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        delta: u64,
    ) -> wasmtime::Result<Result<u64, Error>> {
        let store = self.store(&bucket)?;
        match encode_key(&key) {
            Ok(key) => Ok(timed(self.deadline(), add_up(&store, &key, delta)).await),
            Err(error) => Ok(Err(error)),
        }
    }
}

impl batch::Host for State {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<Vec<Option<(String, Vec<u8>)>>, Error>> {
        if let Err(error) = check_batch(keys.len()) {
            return Ok(Err(error));
        }
        let (mut values, mut size) = (Vec::with_capacity(keys.len()), 0);
        for key in keys {
            let bucket = Resource::new_borrow(bucket.rep());
            let value = match self.get(bucket, key.clone()).await? {
                Ok(value) => value,
                Err(error) => return Ok(Err(error)),
            };
            size += value.as_ref().map_or(0, Vec::len);
            if size > MAX_BATCH_BYTES {
                let message = format!("the values together exceed {MAX_BATCH_BYTES} bytes");
                return Ok(Err(Error::Other(message)));
            }
            values.push(value.map(|value| (key, value)));
        }
        Ok(Ok(values))
    }

    async fn set_many(
        &mut self,
        bucket: Resource<Bucket>,
        key_values: Vec<(String, Vec<u8>)>,
    ) -> wasmtime::Result<Result<(), Error>> {
        if let Err(error) = check_batch(key_values.len()) {
            return Ok(Err(error));
        }
        for (key, value) in key_values {
            let bucket = Resource::new_borrow(bucket.rep());
            if let Err(error) = self.set(bucket, key, value).await? {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    async fn delete_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<(), Error>> {
        if let Err(error) = check_batch(keys.len()) {
            return Ok(Err(error));
        }
        for key in keys {
            let bucket = Resource::new_borrow(bucket.rep());
            if let Err(error) = self.delete(bucket, key).await? {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }
}

/// Refuses a batch of too many keys.
fn check_batch(keys: usize) -> Result<(), Error> {
    if keys <= MAX_BATCH {
        return Ok(());
    }
    let message = format!("{keys} keys at a time are more than the limit of {MAX_BATCH}");
    Err(Error::Other(message))
}

impl State {
    fn store(&mut self, bucket: &Resource<Bucket>) -> wasmtime::Result<Store> {
        Ok(self.ctx().table.get(bucket)?.0.clone())
    }

    /// When the guest has to have an answer, if it is in a call.
    fn deadline(&self) -> Option<Instant> {
        self.current.as_ref().map(|c| before(c.deadline))
    }
}

/// What comes of this before the deadline.
async fn timed<T, E: fmt::Display>(
    deadline: Option<Instant>,
    done: impl Future<Output = Result<T, E>>,
) -> Result<T, Error> {
    let Some(deadline) = deadline else {
        return Err(outside());
    };
    match tokio::time::timeout_at(deadline.into(), done).await {
        Ok(result) => result.map_err(|error| Error::Other(error.to_string())),
        Err(_) => Err(Error::Other("NATS did not answer in time".to_owned())),
    }
}

/// While it is instantiated a component belongs to no call.
fn outside() -> Error {
    Error::Other("data was asked for before any call began".to_owned())
}

/// Adds to a number, again whenever somebody else changed it in between.
async fn add_up(store: &Store, key: &str, delta: u64) -> Result<u64, async_nats::Error> {
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
            .ok_or("what is there is no number")?;
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

/// The keys whose values were set longest ago, from a place in the bucket's stream on. One that is
/// set while the pages are read comes again and is not missed.
async fn page(store: &Store, cursor: Option<u64>) -> Result<KeyResponse, async_nats::Error> {
    let config = pull::Config {
        deliver_policy: match cursor {
            Some(start_sequence @ 1..) => DeliverPolicy::ByStartSequence { start_sequence },
            _ => DeliverPolicy::All,
        },
        ack_policy: AckPolicy::None,
        headers_only: true,
        inactive_threshold: std::time::Duration::from_secs(30),
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let consumer = store.stream.create_consumer(config).await?;
    let (mut keys, mut left, mut read) = (Vec::new(), consumer.cached_info().num_pending, 0);
    let mut next = None;
    while left > 0 && read < PAGE {
        let mut batch = consumer
            .fetch()
            .max_messages(PAGE - read)
            .messages()
            .await?;
        let before = read;
        while let Some(message) = batch.next().await {
            let message = message?;
            let info = message.info()?;
            read += 1;
            left = info.pending;
            next = Some(info.stream_sequence + 1);
            let operation = message.headers.as_ref().and_then(|h| h.get("KV-Operation"));
            let key = message.subject.strip_prefix(store.prefix.as_str());
            if let (None, Some(key)) = (operation, key.and_then(decode_key)) {
                keys.push(key);
            }
        }
        if read == before {
            break;
        }
    }
    // It would end by itself after a while.
    let _ = store
        .stream
        .delete_consumer(&consumer.cached_info().name)
        .await;
    Ok(KeyResponse {
        keys,
        cursor: next.filter(|_| left > 0),
    })
}

/// A key as the bucket takes it: letters, digits, `_`, `-` and `/` as they are, every other byte as
/// `=` and two digits, and nothing at all as `=`.
fn encode_key(key: &str) -> Result<String, Error> {
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
            return Err(Error::Other(message));
        }
    }
    if encoded.is_empty() {
        encoded.push('=');
    }
    Ok(encoded)
}

/// What [`encode_key`] was given; `None` for a key that somebody else made.
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
    fn a_key_of_somebody_else_is_none() {
        for key in ["=4", "=G0", "==", "=FF"] {
            assert_eq!(decode_key(key), None, "{key}");
        }
    }
}
