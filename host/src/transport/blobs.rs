//! Object stores in JetStream: the stored objects of services, as clients of NATS know them too.
//!
//! Every object is a message with what is known of it (`M`), and chunks (`C`) that it names. The message is
//! written last and against the one that was there, so each blob that is replaced is removed by the one who
//! replaced it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_nats::jetstream;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::object_store::{self, ObjectInfo, ObjectOptions};
use async_nats::jetstream::stream::{DirectGetErrorKind, LastRawMessageErrorKind, Stream};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::Bytes;

use super::pages::page;
use crate::events::stream;
use crate::interfaces::{
    BLOB_CHUNK, BlobError, BlobInfo, BlobName, BlobPage, BlobPending, BlobPlace, Blobs, Written,
};
use crate::manifest::BlobstoreGrant;
use crate::nats::{Refusal, Violations};

/// Upper bound of the bytes of a name with its container, encoded: a third more is part of a subject, which
/// NATS sends in one line of at most 4 KiB.
const MAX_NAME: usize = 1 << 10;

/// Upper bound of the time for removing the chunks of a blob that gets no name.
const ABANDON: Duration = Duration::from_secs(10);

/// An object store of JetStream's.
#[derive(Clone)]
pub(super) struct Objects(Arc<Inner>);

struct Inner {
    name: String,
    stream: Stream,
    context: jetstream::Context,
    violations: Violations,
    granted: BlobstoreGrant,
}

type Failure = async_nats::Error;

impl Objects {
    /// Opens the store of this name, and creates it if there is none.
    pub(super) async fn open(
        context: jetstream::Context,
        violations: Violations,
        name: &str,
        granted: BlobstoreGrant,
    ) -> Result<Self, Failure> {
        let opened = violations.guard(|refusal| refusal.subject.contains(name), async {
            match stream::find(&context, &format!("OBJ_{name}")).await? {
                Some(stream) => {
                    super::keyvalue::enlarge(&context, &stream, granted.replicas, granted.size)
                        .await;
                    Ok::<_, Failure>(stream)
                }
                None => create(&context, name, granted).await,
            }
        });
        let stream = opened.await??;
        Ok(Self(Arc::new(Inner {
            name: name.to_owned(),
            stream,
            context,
            violations,
            granted,
        })))
    }
}

async fn create(
    context: &jetstream::Context,
    name: &str,
    granted: BlobstoreGrant,
) -> Result<Stream, Failure> {
    let config = object_store::Config {
        bucket: name.to_owned(),
        description: Some("objects of a service".to_owned()),
        max_bytes: i64::try_from(granted.size).unwrap_or(i64::MAX),
        num_replicas: granted.replicas.into(),
        ..object_store::Config::default()
    };
    let created = context.create_object_store(config).await;
    // Another instance may have created it between the two steps.
    match (stream::find(context, &format!("OBJ_{name}")).await, created) {
        (Ok(Some(stream)), _) => Ok(stream),
        (_, Err(error)) => Err(error.into()),
        (Err(error), Ok(_)) => Err(error),
        (Ok(None), Ok(_)) => Err("it was deleted as soon as it was created".into()),
    }
}

fn failed(error: impl std::fmt::Display) -> BlobError {
    BlobError(error.to_string())
}

impl Inner {
    /// Does something with the store. Where it was lost it is created again; what needs nothing of what was
    /// there is then done once more.
    async fn with<T, F>(&self, again: bool, operation: impl Fn() -> F) -> Result<T, BlobError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let ours = |refusal: &Refusal| refusal.subject.contains(self.name.as_str());
        let done = self.violations.guard(ours, operation()).await;
        let failure = match done.map_err(failed)? {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        let there = stream::find(&self.context, &format!("OBJ_{}", self.name)).await;
        if !matches!(there, Ok(None)) {
            return Err(failed(failure));
        }
        tracing::warn!(
            name = self.name,
            "the objects of a service are lost, their store is created again"
        );
        let created = create(&self.context, &self.name, self.granted).await;
        created.map_err(failed)?;
        if !again {
            let why = "the service's objects were lost, their store is created again";
            return Err(BlobError(why.to_owned()));
        }
        operation().await.map_err(failed)
    }

    fn meta_subject(&self, name: &str) -> String {
        format!("$O.{}.M.{}", self.name, URL_SAFE.encode(name))
    }

    fn chunk_subject(&self, blob: &str) -> String {
        format!("$O.{}.C.{blob}", self.name)
    }

    /// The last message of this name. It asks the stream's leader: what was written is read.
    async fn meta(&self, name: &str) -> Result<Option<(ObjectInfo, StreamMessage)>, Failure> {
        let subject = self.meta_subject(name);
        let message = match self.stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => message,
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Some((serde_json::from_slice(&message.payload)?, message)))
    }

    /// Writes what is known of an object against what was, and removes the chunks of that. Returns the
    /// sequence of the message, if `make` has made one.
    async fn replace(
        &self,
        name: &str,
        make: impl Fn(Option<&ObjectInfo>) -> Option<ObjectInfo>,
    ) -> Result<Option<u64>, Failure> {
        loop {
            let before = self.meta(name).await?;
            let Some(info) = make(before.as_ref().map(|(info, _)| info)) else {
                return Ok(None);
            };
            let sequence = before.as_ref().map_or(0, |(_, message)| message.sequence);
            let message = PublishMessage::build()
                .payload(serde_json::to_vec(&info)?.into())
                .header("Nats-Rollup", "sub")
                .expected_last_subject_sequence(sequence);
            let subject = self.meta_subject(name);
            let ack = match self.context.send_publish(subject, message).await {
                Ok(ack) => ack.await,
                Err(error) => Err(error),
            };
            match ack {
                Ok(ack) => {
                    if let Some((before, _)) =
                        before.as_ref().filter(|(before, _)| before.chunks > 0)
                    {
                        let chunks = self.chunk_subject(&before.nuid);
                        self.stream.purge().filter(chunks).await?;
                    }
                    return Ok(Some(ack.sequence));
                }
                // Another writer was faster.
                Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn info(&self, name: &BlobName) -> Result<Option<BlobInfo>, Failure> {
        let Ok(name) = encode(name) else {
            // It is too long to have been written.
            return Ok(None);
        };
        let Some((info, message)) = self.meta(&name).await? else {
            return Ok(None);
        };
        if info.options.is_some_and(|options| options.link.is_some()) {
            return Err("it is a link to another object, which is not followed".into());
        }
        Ok((!info.deleted).then(|| BlobInfo {
            blob: info.nuid,
            size: info.size as u64,
            created: u64::try_from(message.time.unix_timestamp()).unwrap_or_default(),
        }))
    }

    async fn commit(&self, written: &Written, name: &BlobName) -> Result<(), Failure> {
        let name = encode(name)?;
        let replaced = self.replace(&name, |_| {
            Some(ObjectInfo {
                name: name.clone(),
                description: None,
                metadata: HashMap::new(),
                headers: None,
                options: Some(ObjectOptions {
                    link: None,
                    max_chunk_size: Some(BLOB_CHUNK),
                }),
                bucket: self.name.clone(),
                nuid: written.blob.clone(),
                size: usize::try_from(written.size).unwrap_or(usize::MAX),
                chunks: written.chunks,
                modified: Some(SystemTime::now().into()),
                digest: Some(format!("SHA-256={}", URL_SAFE.encode(written.digest))),
                deleted: false,
            })
        });
        replaced.await.map(drop)
    }

    /// Removes an object and leaves nothing of it. The usual way leaves a marker, for ever, and a store whose
    /// objects come and go would be full of those.
    async fn remove(&self, name: &BlobName) -> Result<(), Failure> {
        let Ok(name) = encode(name) else {
            // It is too long to have been written.
            return Ok(());
        };
        let marker = |before: Option<&ObjectInfo>| {
            Some(ObjectInfo {
                size: 0,
                chunks: 0,
                deleted: true,
                ..before?.clone()
            })
        };
        if let Some(sequence) = self.replace(&name, marker).await? {
            let subject = self.meta_subject(&name);
            let purge = self.stream.purge().sequence(sequence + 1);
            purge.filter(subject).await?;
        }
        Ok(())
    }

    async fn read(&self, blob: &str, place: u64) -> Result<Option<(Bytes, u64)>, Failure> {
        let subject = self.chunk_subject(blob);
        let place = place.max(1);
        let direct = self
            .stream
            .direct_get_next_for_subject(subject.as_str(), Some(place));
        let message = match direct.await {
            Ok(message) => message,
            // A copy of the stream answered, which may be behind its leader.
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => {
                let last = self.stream.get_last_raw_message_by_subject(&subject).await;
                match last {
                    Ok(last) if last.sequence >= place => {
                        self.stream
                            .get_first_raw_message_by_subject(&subject, place)
                            .await?
                    }
                    Ok(_) => return Ok(None),
                    Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                        return Ok(None);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Some((message.payload, message.sequence + 1)))
    }

    async fn names(&self, container: &str, cursor: Option<u64>) -> Result<BlobPage, Failure> {
        let mut names = Vec::new();
        let metas = format!("$O.{}.M.>", self.name);
        let cursor = page(&self.stream, metas, cursor, false, |message, _| {
            let info = serde_json::from_slice::<ObjectInfo>(&message.payload);
            let info = info.ok().filter(|info| !info.deleted);
            let name = info.and_then(|info| decode(&info.name));
            let name = name.filter(|name| name.container == container);
            names.extend(name.and_then(|name| name.object));
            true
        });
        let cursor = cursor.await?;
        Ok(BlobPage { names, cursor })
    }

    async fn locate(&self, blob: &str, offset: u64) -> Result<BlobPlace, Failure> {
        let (mut found, mut passed, mut from) = (None, 0, None);
        loop {
            // Their sizes, without the bytes.
            let chunks = self.chunk_subject(blob);
            let next = page(&self.stream, chunks, from, true, |message, sequence| {
                let size = message
                    .headers
                    .as_ref()
                    .and_then(|h| h.get("Nats-Msg-Size"));
                let size = size.and_then(|size| size.as_str().parse::<u64>().ok());
                let size = size.unwrap_or_default();
                if passed + size > offset {
                    found = Some(BlobPlace {
                        place: sequence,
                        skip: offset - passed,
                    });
                    return false;
                }
                passed += size;
                true
            });
            from = next.await?;
            match found {
                Some(found) => return Ok(found),
                None if from.is_none() => return Err("the object ends before that".into()),
                None => {}
            }
        }
    }
}

impl Blobs for Objects {
    fn info<'a>(&'a self, name: &'a BlobName) -> BlobPending<'a, Option<BlobInfo>> {
        Box::pin(self.0.with(true, || self.0.info(name)))
    }

    fn names<'a>(&'a self, container: &'a str, cursor: Option<u64>) -> BlobPending<'a, BlobPage> {
        Box::pin(self.0.with(true, move || self.0.names(container, cursor)))
    }

    fn locate<'a>(&'a self, blob: &'a str, offset: u64) -> BlobPending<'a, BlobPlace> {
        Box::pin(self.0.with(false, move || self.0.locate(blob, offset)))
    }

    fn read<'a>(&'a self, blob: &'a str, place: u64) -> BlobPending<'a, Option<(Bytes, u64)>> {
        Box::pin(self.0.with(false, move || self.0.read(blob, place)))
    }

    fn write<'a>(&'a self, blob: &'a str, chunk: Bytes) -> BlobPending<'a, ()> {
        Box::pin(async move {
            let write = || async {
                let subject = self.0.chunk_subject(blob);
                self.0
                    .context
                    .publish(subject, chunk.clone())
                    .await?
                    .await?;
                Ok(())
            };
            // The chunks before it are lost.
            self.0.with(false, write).await
        })
    }

    fn commit<'a>(&'a self, written: &'a Written, name: &'a BlobName) -> BlobPending<'a, ()> {
        let commit = || self.0.commit(written, name);
        Box::pin(self.0.with(written.chunks == 0, commit))
    }

    fn abandon(&self, blob: &str) {
        let (inner, chunks) = (Arc::clone(&self.0), self.0.chunk_subject(blob));
        // It ends by itself, soon; outside of a runtime nothing is left that could do it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let purge = async { inner.stream.purge().filter(&chunks).await };
                match tokio::time::timeout(ABANDON, purge).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(chunks, %error, "chunks without an object stay");
                    }
                    Err(_) => tracing::warn!(chunks, "chunks without an object stay"),
                }
            });
        }
    }

    fn remove<'a>(&'a self, name: &'a BlobName) -> BlobPending<'a, ()> {
        Box::pin(self.0.with(true, || self.0.remove(name)))
    }
}

/// Encodes a name for the store: the container, in which `/` and `%` are `%` and two digits, and which is `%` if it
/// is empty; of an object also `/` and its name as it is.
fn encode(BlobName { container, object }: &BlobName) -> Result<String, Failure> {
    let mut encoded = String::with_capacity(container.len());
    for char in container.chars() {
        match char {
            '/' | '%' => write!(encoded, "%{:02X}", u32::from(char))?,
            char => encoded.push(char),
        }
    }
    if encoded.is_empty() {
        encoded.push('%');
    }
    if let Some(object) = object {
        encoded.push('/');
        encoded.push_str(object);
    }
    if encoded.len() > MAX_NAME {
        return Err(format!("the name is longer than the limit of {MAX_NAME} bytes").into());
    }
    Ok(encoded)
}

/// Decodes a name of [`encode`]; `None` for a name of another writer that could be none.
fn decode(encoded: &str) -> Option<BlobName> {
    let (container, object) = match encoded.split_once('/') {
        Some((container, object)) => (container, Some(object.to_owned())),
        None => (encoded, None),
    };
    let container = match container {
        "%" => String::new(),
        container => {
            let decoded = container.replace("%2F", "/").replace("%25", "%");
            // Nothing else is encoded, and nothing that is encoded is left.
            let again = BlobName {
                container: decoded.clone(),
                object: None,
            };
            (encode(&again).ok()? == container).then_some(decoded)?
        }
    };
    Some(BlobName { container, object })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_were_written() {
        let long = "k".repeat(MAX_NAME - 2);
        for container in ["", "a", "a/b", "%", "%2F", "é ü", "*.>"] {
            for object in [
                None,
                Some(""),
                Some("/"),
                Some("a/b.c"),
                Some("%2F"),
                Some("*.> é\n"),
            ] {
                let name = BlobName {
                    container: container.to_owned(),
                    object: object.map(str::to_owned),
                };
                let encoded = encode(&name).unwrap();
                assert_eq!(decode(&encoded), Some(name), "{encoded}");
            }
        }
        let named = |object: &str| BlobName {
            container: "c".to_owned(),
            object: Some(object.to_owned()),
        };
        assert!(encode(&named(&long)).is_ok());
        let why = encode(&named(&format!("{long}k"))).unwrap_err().to_string();
        assert_eq!(why, "the name is longer than the limit of 1024 bytes");
    }

    #[test]
    fn a_name_of_another_writer_is_none() {
        for name in ["a%b/c", "%2f/c", "", "/c"] {
            assert_eq!(decode(name), None, "{name}");
        }
    }
}
