//! `wasi:blobstore/types`: the bytes of objects, as guests write and read them.

use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream};

use super::bindings::wasi::blobstore::types;
use super::streams::{Download, Upload};
use super::{BlobstoreCtxView, IncomingValue, Outcome, OutgoingValue};

impl types::Host for BlobstoreCtxView<'_> {}

impl types::HostOutgoingValue for BlobstoreCtxView<'_> {
    async fn new_outgoing_value(&mut self) -> wasmtime::Result<Resource<OutgoingValue>> {
        Ok(self.table.push(OutgoingValue::default())?)
    }

    async fn outgoing_value_write_body(
        &mut self,
        value: Resource<OutgoingValue>,
    ) -> wasmtime::Result<Result<Resource<DynOutputStream>, ()>> {
        let known = self.table.get(&value)?;
        if known.upload.is_some() || known.failed.is_some() {
            return Ok(Err(()));
        }
        let opened = self.access().open();
        let upload = match self.access().blobs().await {
            Ok(blobs) => opened.map(|open| Upload::new(blobs, open)),
            Err(why) => Err(why),
        };
        let known = self.table.get_mut(&value)?;
        match upload {
            Ok(upload) => {
                let stream: DynOutputStream = upload.stream();
                known.upload = Some(upload);
                Ok(Ok(self.table.push_child(stream, &value)?))
            }
            // The function has no place for the reason; what takes the value next says it.
            Err(why) => {
                known.failed = Some(why);
                Ok(Err(()))
            }
        }
    }

    async fn finish(&mut self, value: Resource<OutgoingValue>) -> Outcome<()> {
        // Its stream has to be dropped.
        let value = self.table.delete(value)?;
        if let Some(why) = value.failed {
            return Ok(Err(why));
        }
        let Some((blobs, name)) = value.name.filter(|_| !value.done) else {
            return Ok(Ok(()));
        };
        let upload = match value.upload {
            Some(upload) => upload,
            // Nothing was written: an empty object.
            None => match self.access().open() {
                Ok(open) => Upload::new(blobs, open),
                Err(why) => return Ok(Err(why)),
            },
        };
        Ok(self.access().done(upload.commit(&name)).await)
    }

    async fn drop(&mut self, value: Resource<OutgoingValue>) -> wasmtime::Result<()> {
        self.table.delete(value)?;
        Ok(())
    }
}

impl types::HostIncomingValue for BlobstoreCtxView<'_> {
    async fn incoming_value_consume_sync(
        &mut self,
        value: Resource<IncomingValue>,
    ) -> Outcome<Vec<u8>> {
        let value = self.table.delete(value)?;
        let (size, limit) = (value.size, self.caller.service.limits.message);
        if size > limit as u64 {
            return Ok(Err(format!(
                "{size} bytes at a time are more than the limit of {limit}; read them as a stream"
            )));
        }
        match self.access().open() {
            Ok(open) => Ok(self.access().done(value.download(open).whole()).await),
            Err(why) => Ok(Err(why)),
        }
    }

    async fn incoming_value_consume_async(
        &mut self,
        value: Resource<IncomingValue>,
    ) -> Outcome<Resource<DynInputStream>> {
        let value = self.table.delete(value)?;
        match self.access().open() {
            Ok(open) => {
                let stream: DynInputStream = Box::new(value.download(open));
                Ok(Ok(self.table.push(stream)?))
            }
            Err(why) => Ok(Err(why)),
        }
    }

    async fn size(&mut self, value: Resource<IncomingValue>) -> wasmtime::Result<u64> {
        Ok(self.table.get(&value)?.size)
    }

    async fn drop(&mut self, value: Resource<IncomingValue>) -> wasmtime::Result<()> {
        self.table.delete(value)?;
        Ok(())
    }
}

impl IncomingValue {
    fn download(self, open: OwnedSemaphorePermit) -> Download {
        Download::new(self.blobs, &self.blob, (self.offset, self.size), open)
    }
}
