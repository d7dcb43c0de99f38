//! `wasi:keyvalue`: the service's own bucket, which no other service can open.
//!
//! A failure is a value for the guest and never a trap.

mod draft2;

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};

use super::{Caller, KeyValue, KeyValueError};
use crate::call::CallError;
use bindings::wasi::keyvalue::store::HostBucket as _;
use bindings::wasi::keyvalue::store::{Error, KeyResponse};
use bindings::wasi::keyvalue::{atomics, batch, store};

pub(super) mod bindings {
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

/// Upper bound of the keys of one batch.
const MAX_BATCH: usize = 1_000;

/// Upper bound of the bytes of all values that a batch returns.
const MAX_BATCH_BYTES: usize = 16 << 20;

/// A bucket that a guest has opened.
#[expect(unreachable_pub, reason = "the bindings export it again")]
pub struct Bucket(Arc<dyn KeyValue>);

/// The bucket of a service.
pub(crate) struct KeyValueCtx {
    pub(crate) bucket: Arc<str>,
}

/// What the interface needs of a store.
pub(crate) struct KeyValueCtxView<'a> {
    pub(crate) ctx: &'a KeyValueCtx,
    pub(crate) caller: &'a Caller,
    pub(crate) table: &'a mut ResourceTable,
}

/// Gives the host access to [`KeyValueCtxView`] in a store.
pub(crate) trait KeyValueView: Send + 'static {
    fn keyvalue(&mut self) -> KeyValueCtxView<'_>;
}

pub(super) struct HasKeyValue;

impl HasData for HasKeyValue {
    type Data<'a> = KeyValueCtxView<'a>;
}

/// `wasi:keyvalue/store`, `wasi:keyvalue/atomics` and `wasi:keyvalue/batch`.
pub(crate) fn add_to_linker<T: KeyValueView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    store::add_to_linker::<T, HasKeyValue>(linker, T::keyvalue)?;
    atomics::add_to_linker::<T, HasKeyValue>(linker, T::keyvalue)?;
    batch::add_to_linker::<T, HasKeyValue>(linker, T::keyvalue)?;
    draft2::add_to_linker(linker)
}

impl From<KeyValueError> for Error {
    fn from(error: KeyValueError) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        Self::Other(error.message)
    }
}

impl store::Host for KeyValueCtxView<'_> {
    async fn open(
        &mut self,
        identifier: String,
    ) -> wasmtime::Result<Result<Resource<Bucket>, Error>> {
        let service = &self.caller.service;
        let Some(granted) = service.grants.keyvalue else {
            if self.caller.output.admits(0) {
                tracing::warn!(
                    service = service.name,
                    "data refused; `grants = {{ keyvalue = true }}` would allow it"
                );
            }
            return Ok(Err(Error::AccessDenied));
        };
        if !matches!(identifier.as_str(), "" | "default") {
            return Ok(Err(Error::NoSuchStore));
        }
        let Some(call) = &self.caller.call else {
            return Ok(Err(outside_of_a_call()));
        };
        let opened = call.backend.open(&self.ctx.bucket, granted);
        match in_time(self.caller.deadline(), opened).await {
            Ok(bucket) => Ok(Ok(self.table.push(Bucket(bucket))?)),
            Err(error) => Ok(Err(error)),
        }
    }
}

impl store::HostBucket for KeyValueCtxView<'_> {
    async fn get(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        let bucket = self.bucket(&bucket)?;
        let value = in_time(self.caller.deadline(), bucket.get(&key)).await;
        Ok(value.map(|value| value.map(Vec::from)))
    }

    async fn set(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let bucket = self.bucket(&bucket)?;
        let (size, limit) = (value.len(), self.caller.service.limits.message);
        if size > limit {
            let message = format!("a value of {size} bytes is larger than the limit of {limit}");
            return Ok(Err(Error::Other(message)));
        }
        Ok(in_time(self.caller.deadline(), bucket.set(&key, value.into())).await)
    }

    async fn delete(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        let bucket = self.bucket(&bucket)?;
        Ok(in_time(self.caller.deadline(), bucket.delete(&key)).await)
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
        let bucket = self.bucket(&bucket)?;
        let page = in_time(self.caller.deadline(), bucket.keys(cursor)).await;
        Ok(page.map(|page| KeyResponse {
            keys: page.keys,
            cursor: page.cursor,
        }))
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for KeyValueCtxView<'_> {
    async fn increment(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        delta: u64,
    ) -> wasmtime::Result<Result<u64, Error>> {
        let bucket = self.bucket(&bucket)?;
        Ok(in_time(self.caller.deadline(), bucket.increment(&key, delta)).await)
    }
}

impl batch::Host for KeyValueCtxView<'_> {
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

impl KeyValueCtxView<'_> {
    fn bucket(&self, bucket: &Resource<Bucket>) -> wasmtime::Result<Arc<dyn KeyValue>> {
        self.caller.act();
        Ok(Arc::clone(&self.table.get(bucket)?.0))
    }
}

/// The outcome of an operation before the deadline.
async fn in_time<T, E: Into<Error>>(
    deadline: Option<Instant>,
    operation: impl Future<Output = Result<T, E>>,
) -> Result<T, Error> {
    let Some(deadline) = deadline else {
        return Err(outside_of_a_call());
    };
    match tokio::time::timeout_at(deadline.into(), operation).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(Error::Other("NATS did not answer in time".to_owned())),
    }
}

/// While it is instantiated a component belongs to no call.
fn outside_of_a_call() -> Error {
    Error::Other("a bucket was used before any call began".to_owned())
}
