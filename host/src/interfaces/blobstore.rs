//! `wasi:blobstore`: the service's own objects in containers, which no other service can open.
//!
//! A failure is a value for the guest and never a trap. Objects are of any size; a chunk of each value that is
//! open is in memory.

mod access;
mod streams;
mod values;

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Semaphore;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};

use super::Caller;
use super::blobs::{BlobName, Blobs, Written};
use access::Access;
use bindings::wasi::blobstore::container::{ContainerMetadata, ObjectMetadata};
use bindings::wasi::blobstore::types::ObjectId;
use bindings::wasi::blobstore::{blobstore, container, types};
use streams::Upload;

mod bindings {
    wasmtime::component::bindgen!({
        inline: "
            package wasmbay:host;
            world blobstore {
                import wasi:blobstore/types@0.2.0-draft;
                import wasi:blobstore/container@0.2.0-draft;
                import wasi:blobstore/blobstore@0.2.0-draft;
            }
        ",
        path: ["../wit/deps/wasi-io.wit", "../wit/deps/wasi-blobstore.wit"],
        world: "wasmbay:host/blobstore",
        imports: { default: async | trappable },
        with: {
            "wasi:io": wasmtime_wasi::p2::bindings::io,
            "wasi:blobstore/types.outgoing-value": super::OutgoingValue,
            "wasi:blobstore/types.incoming-value": super::IncomingValue,
            "wasi:blobstore/container.container": super::Container,
            "wasi:blobstore/container.stream-object-names": super::Names,
        },
    });
}

/// Upper bound of the values that an instance writes and reads at the same time: each has a chunk in memory, or two.
const MAX_OPEN: usize = 16;

/// Upper bound of the names of one call, in either direction.
const MAX_NAMES: usize = 1_000;

/// What a function returns; the outer error is a trap.
type Outcome<T> = wasmtime::Result<Result<T, String>>;

/// A container that a guest has opened.
#[expect(unreachable_pub, reason = "the bindings export it again")]
pub struct Container {
    name: String,
    created: u64,
    blobs: Arc<dyn Blobs>,
}

/// A value that a guest writes.
#[expect(unreachable_pub, reason = "the bindings export it again")]
#[derive(Default)]
pub struct OutgoingValue {
    /// What takes its bytes, once there is a stream for them.
    upload: Option<Upload>,
    /// Why there is none.
    failed: Option<String>,
    /// Where it goes.
    name: Option<(Arc<dyn Blobs>, BlobName)>,
    /// Whether it is there.
    done: bool,
}

/// A value that a guest reads.
#[expect(unreachable_pub, reason = "the bindings export it again")]
pub struct IncomingValue {
    blobs: Arc<dyn Blobs>,
    blob: String,
    offset: u64,
    size: u64,
}

/// Names that a guest reads.
#[expect(unreachable_pub, reason = "the bindings export it again")]
pub struct Names {
    blobs: Arc<dyn Blobs>,
    container: String,
    page: VecDeque<String>,
    /// Where the next page begins; `None` if there is none.
    next: Option<Option<u64>>,
}

/// The objects of a service.
pub(crate) struct BlobstoreCtx {
    bucket: Arc<str>,
    open: Arc<Semaphore>,
}

impl BlobstoreCtx {
    /// With this bucket.
    pub(crate) fn new(bucket: Arc<str>) -> Self {
        Self {
            bucket,
            open: Arc::new(Semaphore::new(MAX_OPEN)),
        }
    }
}

/// What the interface needs of a store.
pub(crate) struct BlobstoreCtxView<'a> {
    pub(crate) ctx: &'a BlobstoreCtx,
    pub(crate) caller: &'a Caller,
    pub(crate) table: &'a mut ResourceTable,
}

/// Gives the host access to [`BlobstoreCtxView`] in a store.
pub(crate) trait BlobstoreView: Send + 'static {
    fn blobstore(&mut self) -> BlobstoreCtxView<'_>;
}

struct HasBlobstore;

impl HasData for HasBlobstore {
    type Data<'a> = BlobstoreCtxView<'a>;
}

/// `wasi:blobstore/blobstore`, `wasi:blobstore/container` and `wasi:blobstore/types`.
pub(crate) fn add_to_linker<T: BlobstoreView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    types::add_to_linker::<T, HasBlobstore>(linker, T::blobstore)?;
    container::add_to_linker::<T, HasBlobstore>(linker, T::blobstore)?;
    blobstore::add_to_linker::<T, HasBlobstore>(linker, T::blobstore)
}

impl BlobName {
    fn container(container: &str) -> Self {
        Self {
            container: container.to_owned(),
            object: None,
        }
    }

    fn object(container: &str, object: String) -> Self {
        Self {
            container: container.to_owned(),
            object: Some(object),
        }
    }
}

fn check_names(names: usize) -> Result<(), String> {
    if names <= MAX_NAMES {
        return Ok(());
    }
    Err(format!(
        "{names} names at a time are more than the limit of {MAX_NAMES}"
    ))
}

impl<'a> BlobstoreCtxView<'a> {
    fn access(&self) -> Access<'a> {
        Access {
            ctx: self.ctx,
            caller: self.caller,
        }
    }

    fn container_at(
        &self,
        container: &Resource<Container>,
    ) -> wasmtime::Result<(Arc<dyn Blobs>, String)> {
        let Container { name, blobs, .. } = self.table.get(container)?;
        Ok((Arc::clone(blobs), name.clone()))
    }
}

fn no_object(BlobName { container, object }: &BlobName) -> String {
    let object = object.as_deref().unwrap_or_default();
    format!("there is no object `{object}` in container `{container}`")
}

/// The range of an object's bytes, of which both ends are read, as offset and size.
fn range(size: u64, start: u64, end: u64) -> Result<(u64, u64), String> {
    if end < start {
        return Err(format!(
            "the range ends at {end}, before it starts at {start}"
        ));
    }
    if start > size || start == size && size > 0 {
        return Err(format!(
            "the range starts at {start}, the object has {size} bytes"
        ));
    }
    Ok((start, end.saturating_add(1).min(size) - start))
}

impl blobstore::Host for BlobstoreCtxView<'_> {
    async fn create_container(&mut self, name: String) -> Outcome<Resource<Container>> {
        let access = self.access();
        let made = async {
            let blobs = access.blobs().await?;
            let known = BlobName::container(&name);
            if access.done(blobs.info(&known)).await?.is_some() {
                return Err(format!("there is a container `{name}` already"));
            }
            access
                .done(blobs.commit(&Written::default(), &known))
                .await?;
            let created = access.existing(&*blobs, &name).await?;
            Ok((blobs, created))
        };
        let made = made.await;
        self.hand_out(name, made)
    }

    async fn get_container(&mut self, name: String) -> Outcome<Resource<Container>> {
        let access = self.access();
        let found = async {
            let blobs = access.blobs().await?;
            let created = access.existing(&*blobs, &name).await?;
            Ok((blobs, created))
        };
        let found = found.await;
        self.hand_out(name, found)
    }

    async fn delete_container(&mut self, name: String) -> Outcome<()> {
        let access = self.access();
        let deleted = async {
            let blobs = access.blobs().await?;
            access.existing(&*blobs, &name).await?;
            access.empty(&*blobs, &name).await?;
            let known = BlobName::container(&name);
            access.done(blobs.remove(&known)).await
        };
        Ok(deleted.await)
    }

    async fn container_exists(&mut self, name: String) -> Outcome<bool> {
        let access = self.access();
        let found = async {
            let blobs = access.blobs().await?;
            let known = BlobName::container(&name);
            let info = access.done(blobs.info(&known)).await?;
            Ok(info.is_some())
        };
        Ok(found.await)
    }

    async fn copy_object(&mut self, src: ObjectId, dest: ObjectId) -> Outcome<()> {
        Ok(self.access().copy(src, dest).await.map(drop))
    }

    async fn move_object(&mut self, src: ObjectId, dest: ObjectId) -> Outcome<()> {
        let access = self.access();
        let moved = async {
            let Some(source) = access.copy(src, dest).await? else {
                return Ok(());
            };
            let blobs = access.blobs().await?;
            access.done(blobs.remove(&source)).await
        };
        Ok(moved.await)
    }
}

impl container::Host for BlobstoreCtxView<'_> {}

impl container::HostContainer for BlobstoreCtxView<'_> {
    async fn name(&mut self, container: Resource<Container>) -> Outcome<String> {
        Ok(Ok(self.table.get(&container)?.name.clone()))
    }

    async fn info(&mut self, container: Resource<Container>) -> Outcome<ContainerMetadata> {
        let Container { name, created, .. } = self.table.get(&container)?;
        Ok(Ok(ContainerMetadata {
            name: name.clone(),
            created_at: *created,
        }))
    }

    async fn get_data(
        &mut self,
        container: Resource<Container>,
        name: String,
        start: u64,
        end: u64,
    ) -> Outcome<Resource<IncomingValue>> {
        let (blobs, container) = self.container_at(&container)?;
        let name = BlobName::object(&container, name);
        let found = self.access().done(blobs.info(&name)).await;
        let found = found.and_then(|info| info.ok_or_else(|| no_object(&name)));
        let found = found.and_then(|info| Ok((range(info.size, start, end)?, info.blob)));
        let ((offset, size), blob) = match found {
            Ok(found) => found,
            Err(why) => return Ok(Err(why)),
        };
        let value = IncomingValue {
            blobs,
            blob,
            offset,
            size,
        };
        Ok(Ok(self.table.push(value)?))
    }

    async fn write_data(
        &mut self,
        container: Resource<Container>,
        name: String,
        data: Resource<OutgoingValue>,
    ) -> Outcome<()> {
        let (blobs, container) = self.container_at(&container)?;
        if let Err(why) = self.access().existing(&*blobs, &container).await {
            return Ok(Err(why));
        }
        let name = BlobName::object(&container, name);
        let value = self.table.get_mut(&data)?;
        if let Some(why) = &value.failed {
            return Ok(Err(why.clone()));
        }
        if value.name.is_some() {
            return Ok(Err("the value is written to an object already".to_owned()));
        }
        value.name = Some((blobs, name.clone()));
        // All bytes are there; else they come, and `finish` says when that was all.
        let Some(upload) = value.upload.clone().filter(Upload::is_closed) else {
            return Ok(Ok(()));
        };
        let done = self.access().done(upload.commit(&name)).await;
        self.table.get_mut(&data)?.done = done.is_ok();
        Ok(done)
    }

    async fn list_objects(&mut self, container: Resource<Container>) -> Outcome<Resource<Names>> {
        let (blobs, container) = self.container_at(&container)?;
        if let Err(why) = self.access().existing(&*blobs, &container).await {
            return Ok(Err(why));
        }
        let names = Names {
            blobs,
            container,
            page: VecDeque::new(),
            next: Some(None),
        };
        Ok(Ok(self.table.push(names)?))
    }

    async fn delete_object(&mut self, container: Resource<Container>, name: String) -> Outcome<()> {
        self.delete_objects(container, vec![name]).await
    }

    async fn delete_objects(
        &mut self,
        container: Resource<Container>,
        names: Vec<String>,
    ) -> Outcome<()> {
        if let Err(why) = check_names(names.len()) {
            return Ok(Err(why));
        }
        let (blobs, container) = self.container_at(&container)?;
        for name in names {
            let name = BlobName::object(&container, name);
            if let Err(why) = self.access().done(blobs.remove(&name)).await {
                return Ok(Err(why));
            }
        }
        Ok(Ok(()))
    }

    async fn has_object(&mut self, container: Resource<Container>, name: String) -> Outcome<bool> {
        let (blobs, container) = self.container_at(&container)?;
        let name = BlobName::object(&container, name);
        let info = self.access().done(blobs.info(&name)).await;
        Ok(info.map(|info| info.is_some()))
    }

    async fn object_info(
        &mut self,
        container: Resource<Container>,
        name: String,
    ) -> Outcome<ObjectMetadata> {
        let (blobs, container) = self.container_at(&container)?;
        let at = BlobName::object(&container, name.clone());
        let info = self.access().done(blobs.info(&at)).await;
        let info = info.and_then(|info| info.ok_or_else(|| no_object(&at)));
        Ok(info.map(|info| ObjectMetadata {
            name,
            container,
            created_at: info.created,
            size: info.size,
        }))
    }

    async fn clear(&mut self, container: Resource<Container>) -> Outcome<()> {
        let (blobs, container) = self.container_at(&container)?;
        Ok(self.access().empty(&*blobs, &container).await)
    }

    async fn drop(&mut self, container: Resource<Container>) -> wasmtime::Result<()> {
        self.table.delete(container)?;
        Ok(())
    }
}

impl BlobstoreCtxView<'_> {
    /// Gives the guest a container of this name, or says why there is none.
    fn hand_out(
        &mut self,
        name: String,
        opened: Result<(Arc<dyn Blobs>, u64), String>,
    ) -> Outcome<Resource<Container>> {
        let (blobs, created) = match opened {
            Ok(opened) => opened,
            Err(why) => return Ok(Err(why)),
        };
        let container = Container {
            name,
            created,
            blobs,
        };
        Ok(Ok(self.table.push(container)?))
    }

    /// Takes up to so many names, and says whether these were the last.
    async fn take(&mut self, names: &Resource<Names>, len: usize) -> Outcome<(Vec<String>, bool)> {
        let mut taken = Vec::new();
        loop {
            let known = self.table.get_mut(names)?;
            let count = known.page.len().min(len - taken.len());
            taken.extend(known.page.drain(..count));
            let Some(cursor) = known.next else {
                let was_last = known.page.is_empty();
                return Ok(Ok((taken, was_last)));
            };
            if taken.len() == len {
                return Ok(Ok((taken, false)));
            }
            let (blobs, container) = (Arc::clone(&known.blobs), known.container.clone());
            match self.access().done(blobs.names(&container, cursor)).await {
                Ok(page) => {
                    let known = self.table.get_mut(names)?;
                    known.page.extend(page.names);
                    known.next = page.cursor.map(Some);
                }
                Err(why) => return Ok(Err(why)),
            }
        }
    }
}

impl container::HostStreamObjectNames for BlobstoreCtxView<'_> {
    async fn read_stream_object_names(
        &mut self,
        names: Resource<Names>,
        len: u64,
    ) -> Outcome<(Vec<String>, bool)> {
        let len = usize::try_from(len).unwrap_or(MAX_NAMES).min(MAX_NAMES);
        self.take(&names, len).await
    }

    async fn skip_stream_object_names(
        &mut self,
        names: Resource<Names>,
        num: u64,
    ) -> Outcome<(u64, bool)> {
        let mut skipped = 0;
        loop {
            let len = usize::try_from(num - skipped).unwrap_or(MAX_NAMES);
            let (taken, was_last) = match self.take(&names, len.min(MAX_NAMES)).await? {
                Ok(taken) => taken,
                Err(why) => return Ok(Err(why)),
            };
            skipped += taken.len() as u64;
            if was_last || skipped == num {
                return Ok(Ok((skipped, was_last)));
            }
        }
    }

    async fn drop(&mut self, names: Resource<Names>) -> wasmtime::Result<()> {
        self.table.delete(names)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_both_of_its_ends() {
        assert_eq!(range(10, 0, 0), Ok((0, 1)));
        assert_eq!(range(10, 2, 5), Ok((2, 4)));
        assert_eq!(range(10, 9, 9), Ok((9, 1)));
        assert_eq!(range(10, 3, u64::MAX), Ok((3, 7)));
        assert_eq!(range(0, 0, u64::MAX), Ok((0, 0)));
        for (size, start, end) in [(10, 10, 10), (10, 5, 4), (0, 1, 1)] {
            assert!(range(size, start, end).is_err(), "{start} to {end}");
        }
    }
}
