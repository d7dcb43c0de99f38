//! Values on their way: a chunk of each is in memory, whatever their size.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedSemaphorePermit;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use crate::interfaces::blobs::{BLOB_CHUNK, BlobError, BlobName, Blobs, Written};

/// Something that is under way. It is kept, because a guest may stop to wait for it and go on later.
type UnderWay<T> = Option<BoxFuture<'static, Result<T, BlobError>>>;

fn failed(error: BlobError) -> StreamError {
    StreamError::LastOperationFailed(wasmtime::Error::new(error))
}

/// The bytes of a value that a guest writes; its stream has a clone.
#[derive(Clone)]
pub(super) struct Upload(Arc<Mutex<Uploading>>);

struct Uploading {
    blobs: Arc<dyn Blobs>,
    written: Written,
    digest: Sha256,
    buffer: BytesMut,
    sending: UnderWay<()>,
    failed: Option<BlobError>,
    /// Whether the guest has dropped the stream.
    closed: bool,
    /// Whether the blob has got a name.
    named: bool,
    _open: OwnedSemaphorePermit,
}

impl Upload {
    pub(super) fn new(blobs: Arc<dyn Blobs>, open: OwnedSemaphorePermit) -> Self {
        Self(Arc::new(Mutex::new(Uploading {
            blobs,
            written: Written {
                blob: format!("{:032x}", rand::random::<u128>()),
                ..Written::default()
            },
            digest: Sha256::new(),
            buffer: BytesMut::new(),
            sending: None,
            failed: None,
            closed: false,
            named: false,
            _open: open,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Uploading> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its stream was dropped, so that no more bytes come.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// The stream that takes the bytes.
    pub(super) fn stream(&self) -> Box<dyn OutputStream> {
        Box::new(UploadStream(self.clone()))
    }

    /// Adds bytes of a copy.
    pub(super) async fn append(&self, bytes: Bytes) -> Result<(), BlobError> {
        self.settled().await;
        let mut upload = self.lock();
        if let Some(failed) = &upload.failed {
            return Err(failed.clone());
        }
        upload.buffer.extend_from_slice(&bytes);
        if upload.buffer.len() >= BLOB_CHUNK {
            upload.send();
        }
        Ok(())
    }

    /// Writes what is left, and gives it all its name.
    ///
    /// # Cancel safety
    ///
    /// It goes on when it is called again.
    pub(super) async fn commit(&self, name: &BlobName) -> Result<(), BlobError> {
        self.settled().await;
        self.lock().send();
        self.settled().await;
        let (blobs, written) = {
            let upload = self.lock();
            if let Some(failed) = &upload.failed {
                return Err(failed.clone());
            }
            let written = Written {
                digest: upload.digest.clone().finalize().into(),
                ..upload.written.clone()
            };
            (Arc::clone(&upload.blobs), written)
        };
        blobs.commit(&written, name).await?;
        self.lock().named = true;
        Ok(())
    }

    /// Waits until no chunk is under way.
    async fn settled(&self) {
        poll_fn(|context| self.lock().poll(context)).await;
    }
}

impl Uploading {
    /// Sends what has gathered, as a chunk.
    fn send(&mut self) {
        if self.buffer.is_empty() || self.failed.is_some() {
            return;
        }
        let chunk = self.buffer.split().freeze();
        self.digest.update(&chunk);
        self.written.size += chunk.len() as u64;
        self.written.chunks += 1;
        let (blobs, blob) = (Arc::clone(&self.blobs), self.written.blob.clone());
        self.sending = Some(Box::pin(async move { blobs.write(&blob, chunk).await }));
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(sending) = &mut self.sending else {
            return Poll::Ready(());
        };
        let Poll::Ready(sent) = sending.as_mut().poll(context) else {
            return Poll::Pending;
        };
        self.sending = None;
        self.failed = sent.err();
        Poll::Ready(())
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        if !self.named && self.written.chunks > 0 {
            self.blobs.abandon(&self.written.blob);
        }
    }
}

struct UploadStream(Upload);

#[wasmtime_wasi::async_trait]
impl Pollable for UploadStream {
    async fn ready(&mut self) {
        self.0.settled().await;
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for UploadStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > self.check_write()? {
            return Err(StreamError::trap("more bytes than there was room for"));
        }
        let mut upload = self.0.lock();
        upload.buffer.extend_from_slice(&bytes);
        if upload.buffer.len() >= BLOB_CHUNK {
            upload.send();
        }
        Ok(())
    }

    /// Does nothing: nothing is there to be read before the value is finished, and chunks are to be full.
    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let upload = self.0.lock();
        match (&upload.failed, &upload.sending) {
            (Some(error), _) => Err(failed(error.clone())),
            (None, Some(_)) => Ok(0),
            (None, None) => Ok(BLOB_CHUNK - upload.buffer.len()),
        }
    }
}

impl Drop for UploadStream {
    fn drop(&mut self) {
        self.0.lock().closed = true;
    }
}

/// The bytes of a value that a guest reads.
pub(super) struct Download {
    blobs: Arc<dyn Blobs>,
    blob: Arc<str>,
    /// Where it begins, until that was looked for.
    offset: Option<u64>,
    place: u64,
    /// Bytes to leave out.
    skip: u64,
    /// Bytes that are not fetched yet.
    left: u64,
    chunk: Bytes,
    fetching: UnderWay<Fetched>,
    failed: Option<BlobError>,
    _open: OwnedSemaphorePermit,
}

/// A chunk, and the places of both: of it after what is left out, and of the next one.
struct Fetched {
    chunk: Bytes,
    skip: u64,
    next: u64,
}

impl Download {
    pub(super) fn new(
        blobs: Arc<dyn Blobs>,
        blob: &str,
        (offset, size): (u64, u64),
        open: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            blobs,
            blob: blob.into(),
            offset: Some(offset),
            place: 0,
            skip: 0,
            left: size,
            chunk: Bytes::new(),
            fetching: None,
            failed: None,
            _open: open,
        }
    }

    /// All of it.
    pub(super) async fn whole(mut self) -> Result<Vec<u8>, BlobError> {
        let mut bytes = Vec::new();
        loop {
            poll_fn(|context| self.poll(context)).await;
            if let Some(failed) = self.failed {
                return Err(failed);
            }
            if self.chunk.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(&std::mem::take(&mut self.chunk));
        }
    }

    fn fetch(&mut self) -> BoxFuture<'static, Result<Fetched, BlobError>> {
        let (blobs, blob) = (Arc::clone(&self.blobs), Arc::clone(&self.blob));
        let (offset, place, skip) = (self.offset.take(), self.place, self.skip);
        Box::pin(async move {
            let (place, skip) = match offset {
                Some(0) | None => (place, skip),
                Some(offset) => {
                    let at = blobs.locate(&blob, offset).await?;
                    (at.place, at.skip)
                }
            };
            let gone =
                || BlobError("the object was replaced or deleted while it was read".to_owned());
            let (chunk, next) = blobs.read(&blob, place).await?.ok_or_else(gone)?;
            Ok(Fetched { chunk, skip, next })
        })
    }

    /// Waits until there is something to read, an error, or the end.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.chunk.is_empty() && self.left > 0 && self.failed.is_none() {
            if self.fetching.is_none() {
                self.fetching = Some(self.fetch());
            }
            let Some(fetching) = &mut self.fetching else {
                break;
            };
            let Poll::Ready(fetched) = fetching.as_mut().poll(context) else {
                return Poll::Pending;
            };
            self.fetching = None;
            match fetched {
                Ok(fetched) => self.take(fetched),
                Err(error) => self.failed = Some(error),
            }
        }
        Poll::Ready(())
    }

    fn take(
        &mut self,
        Fetched {
            mut chunk,
            skip,
            next,
        }: Fetched,
    ) {
        let length = chunk.len() as u64;
        let without = skip.min(length);
        self.skip = skip - without;
        self.place = next;
        // Both are at most the chunk's length.
        let of = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let _ = chunk.split_to(of(without));
        chunk.truncate(of(self.left.min(length)));
        self.left -= chunk.len() as u64;
        self.chunk = chunk;
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Download {
    async fn ready(&mut self) {
        poll_fn(|context| self.poll(context)).await;
    }
}

#[wasmtime_wasi::async_trait]
impl InputStream for Download {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if let Some(error) = &self.failed {
            return Err(failed(error.clone()));
        }
        if self.chunk.is_empty() && self.left == 0 {
            return Err(StreamError::Closed);
        }
        let size = size.min(self.chunk.len());
        Ok(self.chunk.split_to(size))
    }
}
