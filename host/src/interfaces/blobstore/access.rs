//! What several functions of `wasi:blobstore` do: the grant, the deadline, copies.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;

use super::bindings::wasi::blobstore::types::ObjectId;
use super::streams::Upload;
use super::{BlobstoreCtx, MAX_OPEN, no_object};
use crate::call::CallError;
use crate::interfaces::Caller;
use crate::interfaces::blobs::{BlobError, BlobName, Blobs};

/// What operations need that take a while: the rest of a store cannot be borrowed meanwhile.
#[derive(Clone, Copy)]
pub(super) struct Access<'a> {
    pub(super) ctx: &'a BlobstoreCtx,
    pub(super) caller: &'a Caller,
}

impl Access<'_> {
    /// The service's objects.
    pub(super) async fn blobs(self) -> Result<Arc<dyn Blobs>, String> {
        let service = &self.caller.service;
        let Some(granted) = service.grants.blobstore else {
            if self.caller.output.admits(0) {
                tracing::warn!(
                    service = service.name,
                    "objects refused; `grants = {{ blobstore = true }}` would allow it"
                );
            }
            return Err("the service is granted no objects".to_owned());
        };
        let Some(call) = &self.caller.call else {
            return Err("objects were used before any call began".to_owned());
        };
        self.caller.act();
        let opened = call.backend.blobs(&self.ctx.bucket, granted);
        let opened = async { opened.await.map_err(|error: CallError| error.message) };
        in_time(self.caller.deadline(), opened).await
    }

    pub(super) fn open(self) -> Result<OwnedSemaphorePermit, String> {
        let open = Arc::clone(&self.ctx.open).try_acquire_owned();
        open.map_err(|_| {
            format!(
                "{MAX_OPEN} values are written and read already, which is the limit of an instance"
            )
        })
    }

    /// What does something with a container or an object, before the deadline.
    pub(super) async fn done<T>(
        self,
        operation: impl Future<Output = Result<T, BlobError>>,
    ) -> Result<T, String> {
        self.caller.act();
        in_time(self.caller.deadline(), operation).await
    }

    /// A container that is there, and when it was made.
    pub(super) async fn existing(self, blobs: &dyn Blobs, name: &str) -> Result<u64, String> {
        let known = BlobName::container(name);
        match self.done(blobs.info(&known)).await? {
            Some(info) => Ok(info.created),
            None => Err(format!("there is no container `{name}`")),
        }
    }

    pub(super) async fn empty(self, blobs: &dyn Blobs, container: &str) -> Result<(), String> {
        let mut cursor = None;
        loop {
            let page = self.done(blobs.names(container, cursor)).await?;
            for name in page.names {
                let name = BlobName::object(container, name);
                self.done(blobs.remove(&name)).await?;
            }
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    /// Copies an object chunk by chunk: no more than one of them is in memory.
    pub(super) async fn copy(
        self,
        from: ObjectId,
        to: ObjectId,
    ) -> Result<Option<BlobName>, String> {
        let blobs = self.blobs().await?;
        let source = BlobName::object(&from.container, from.object);
        let target = BlobName::object(&to.container, to.object);
        let info = self.done(blobs.info(&source)).await?;
        let info = info.ok_or_else(|| no_object(&source))?;
        self.existing(&*blobs, &target.container).await?;
        if source == target {
            return Ok(None);
        }
        let _reading = self.open()?;
        let upload = Upload::new(Arc::clone(&blobs), self.open()?);
        let copying = async {
            let (mut left, mut place) = (info.size, 0);
            while left > 0 {
                let Some((chunk, next)) = blobs.read(&info.blob, place).await? else {
                    let why = "the object was replaced or deleted while it was copied";
                    return Err(BlobError(why.to_owned()));
                };
                left = left.saturating_sub(chunk.len() as u64);
                place = next;
                upload.append(chunk).await?;
            }
            upload.commit(&target).await
        };
        self.done(copying).await?;
        Ok(Some(source))
    }
}

/// The outcome of an operation before the deadline.
async fn in_time<T, E: ToString>(
    deadline: Option<Instant>,
    operation: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    let Some(deadline) = deadline else {
        return Err("objects were used before any call began".to_owned());
    };
    match tokio::time::timeout_at(deadline.into(), operation).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("NATS did not answer in time".to_owned()),
    }
}
