//! What `wasi:blobstore` needs from outside: objects of a service in chunks, by names.

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// The outcome of an operation on objects.
pub type BlobPending<'a, T> = BoxFuture<'a, Result<T, BlobError>>;

/// Bytes of a chunk that is written, as the object stores of NATS have them.
pub const BLOB_CHUNK: usize = 128 << 10;

/// The objects of a service. Names are any text.
pub trait Blobs: Send + Sync {
    /// What is known of an object or a container, if it is there.
    fn info<'a>(&'a self, name: &'a BlobName) -> BlobPending<'a, Option<BlobInfo>>;

    /// A page of the names in a container, from the cursor of an earlier page on. One that is written
    /// while pages are read may come twice and is not missed.
    fn names<'a>(&'a self, container: &'a str, cursor: Option<u64>) -> BlobPending<'a, BlobPage>;

    /// Where to read a blob from this offset on.
    fn locate<'a>(&'a self, blob: &'a str, offset: u64) -> BlobPending<'a, BlobPlace>;

    /// The next chunk of a blob at this place, and the place after it; `None` if it is gone.
    fn read<'a>(&'a self, blob: &'a str, place: u64) -> BlobPending<'a, Option<(Bytes, u64)>>;

    /// Writes the next chunk of a blob that has no name yet.
    fn write<'a>(&'a self, blob: &'a str, chunk: Bytes) -> BlobPending<'a, ()>;

    /// Gives a blob its name, in place of what has it.
    fn commit<'a>(&'a self, written: &'a Written, name: &'a BlobName) -> BlobPending<'a, ()>;

    /// Removes the chunks of a blob that gets no name, at some time soon.
    fn abandon(&self, blob: &str);

    /// Removes an object or the name of a container, whether or not it is there.
    fn remove<'a>(&'a self, name: &'a BlobName) -> BlobPending<'a, ()>;
}

/// The name of an object, or of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobName {
    /// The container.
    pub container: String,
    /// The object in it; `None` is the container itself.
    pub object: Option<String>,
}

/// What is known of an object or a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its blob, by which it is read.
    pub blob: String,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub created: u64,
}

/// Where a byte of a blob is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlobPlace {
    /// The place of a chunk.
    pub place: u64,
    /// Bytes to leave out from there on.
    pub skip: u64,
}

/// Some of the names in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobPage {
    /// The names.
    pub names: Vec<String>,
    /// The position of the next page, if there are more.
    pub cursor: Option<u64>,
}

/// A blob whose chunks are all written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The blob.
    pub blob: String,
    /// Bytes.
    pub size: u64,
    /// How many chunks.
    pub chunks: usize,
    /// SHA-256 of the bytes.
    pub digest: [u8; 32],
}

/// Why an operation on objects failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BlobError(pub String);
