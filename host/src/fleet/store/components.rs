//! The components of a fleet: bytes by their digest, and their descriptions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use async_nats::jetstream::object_store::{GetErrorKind, InfoErrorKind, ObjectInfo};
use async_nats::jetstream::stream::DirectGetErrorKind;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::future::{join_all, try_join_all};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use super::{Store, StoreError, failed, keys, to_json, unreadable};
use crate::fleet::records::{self, FORMAT};
use crate::manifest::Digest;
use crate::plan::{Description, docs_fit};
use crate::runtime::MAX_BYTES;
use crate::subject::FLEET_COMPONENTS;

/// Time to fetch one component.
const FETCH: Duration = Duration::from_secs(60);

/// Components that no revision names are kept for this long: a deploy stores them before it is
/// written.
const COLLECT: Duration = Duration::from_secs(3_600);

/// Bytes of an object up to which it is fetched in pieces of 128 KiB, one request each. A larger one comes as a flow,
/// for which JetStream makes a consumer that it keeps for half a minute; of those it has no more than a
/// thousand or so, and an app may have as many services.
const IN_PIECES: usize = 1 << 20;

/// What is stored beside a component, so that others plan with it without compiling it.
#[derive(Serialize, Deserialize)]
struct Described {
    format: u32,
    description: Description,
}

impl Store {
    /// Stores a component that is not there yet; returns whether it was not.
    ///
    /// # Errors
    ///
    /// JetStream does not take it, or the bytes are too many.
    pub async fn put_component(
        &self,
        bytes: &[u8],
        description: &Description,
    ) -> Result<bool, StoreError> {
        const DOING: &str = "store a component";
        let digest = Digest::of(bytes);
        if self.is_stored(&digest, bytes.len()).await? {
            // Comments may have changed since, or who stored it did not have the WIT.
            let others = |stored: Description| stored.docs != description.docs;
            if !description.docs.is_empty() && self.description(&digest).await.is_ok_and(others) {
                self.describe(&digest, description).await?;
            }
            return Ok(false);
        }
        self.describe(&digest, description).await?;
        let put = self.components.put(digest.as_str(), &mut &*bytes).await;
        put.map_err(failed(DOING))?;
        Ok(true)
    }

    async fn describe(&self, digest: &Digest, description: &Description) -> Result<(), StoreError> {
        let described = to_json(&Described {
            format: FORMAT,
            description: description.clone(),
        });
        let name = description_name(digest);
        let put = self.components.put(&*name, &mut &*described).await;
        put.map_err(failed("store a component"))?;
        Ok(())
    }

    /// Whether a component is there with as many bytes. Whether they are the right ones is seen when
    /// they are read.
    async fn is_stored(&self, digest: &Digest, size: usize) -> Result<bool, StoreError> {
        for name in [description_name(digest), digest.to_string()] {
            match self.components.info(&name).await {
                Ok(info) if info.deleted => return Ok(false),
                Ok(info) if info.name == digest.as_str() && info.size != size => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == InfoErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(failed("look for a component")(error)),
            }
        }
        Ok(true)
    }

    /// Stores a component again whose stored bytes are not those of its digest.
    ///
    /// # Errors
    ///
    /// JetStream does not take it.
    pub async fn repair_component(
        &self,
        bytes: &[u8],
        description: &Description,
    ) -> Result<bool, StoreError> {
        let digest = Digest::of(bytes);
        match self.component(&digest).await {
            Ok(_) => Ok(false),
            Err(StoreError::Corrupted { .. } | StoreError::Missing(_)) => {
                // What is there does not count.
                let _gone = self.components.delete(digest.as_str()).await;
                self.put_component(bytes, description).await
            }
            Err(error) => Err(error),
        }
    }

    /// The bytes of a component, which are those of its digest.
    ///
    /// # Errors
    ///
    /// They are not there, or others are.
    ///
    /// # Limits
    ///
    /// As many bytes as a component may have, within a minute.
    pub async fn component(&self, digest: &Digest) -> Result<Bytes, StoreError> {
        let bytes = self.object(digest.as_str(), digest).await?;
        let found = Digest::of(&bytes);
        if found == *digest {
            Ok(bytes)
        } else {
            let (digest, found) = (digest.clone(), Some(found));
            Err(StoreError::Corrupted { digest, found })
        }
    }

    /// The description of a component, without documentation comments that are larger than they may be.
    ///
    /// # Errors
    ///
    /// It is not there or cannot be read.
    pub async fn description(&self, digest: &Digest) -> Result<Description, StoreError> {
        let bytes = self.object(&description_name(digest), digest).await?;
        let read = records::read::<Described>(&bytes);
        let what = format!("the description of component {}", digest.short());
        let mut description = read.map_err(unreadable(what))?.description;
        if !docs_fit(&description.docs) {
            description.docs.clear();
        }
        Ok(description)
    }

    /// The descriptions of the components of an app, by service.
    ///
    /// # Errors
    ///
    /// One of them is not there or cannot be read.
    pub async fn descriptions(
        &self,
        components: &BTreeMap<String, Digest>,
    ) -> Result<BTreeMap<String, Description>, StoreError> {
        let mut found = BTreeMap::new();
        let digests: BTreeSet<_> = components.values().collect();
        let digests: Vec<_> = digests.into_iter().collect();
        // So many at a time: each is a request or a few.
        for some in digests.chunks(16) {
            let some = some.iter().map(async |digest| {
                let description = self.description(digest).await?;
                Ok::<_, StoreError>(((*digest).clone(), description))
            });
            found.extend(try_join_all(some).await?);
        }
        let of = |(service, digest): (&String, &Digest)| {
            Some((service.clone(), found.get(digest)?.clone()))
        };
        Ok(components.iter().filter_map(of).collect())
    }

    pub(super) async fn object(&self, name: &str, digest: &Digest) -> Result<Bytes, StoreError> {
        const DOING: &str = "fetch a component";
        let corrupted = || StoreError::Corrupted {
            digest: digest.clone(),
            found: None,
        };
        let missing = || StoreError::Missing(digest.clone());
        let fetch = async {
            let info = match self.components.info(name).await {
                Ok(info) if info.deleted => return Err(missing()),
                Ok(info) => info,
                Err(error) if error.kind() == InfoErrorKind::NotFound => return Err(missing()),
                Err(error) => return Err(failed(DOING)(error)),
            };
            if info.size as u64 > MAX_BYTES {
                return Err(corrupted());
            }
            if info.size <= IN_PIECES {
                let pieces = self.pieces(&info).await?;
                return pieces.ok_or_else(corrupted);
            }
            let mut object = match self.components.get(name).await {
                Ok(object) => object,
                Err(error) if error.kind() == GetErrorKind::NotFound => return Err(missing()),
                Err(error) => return Err(failed(DOING)(error)),
            };
            if object.info.size as u64 > MAX_BYTES {
                return Err(corrupted());
            }
            let mut bytes = Vec::with_capacity(object.info.size);
            match object.read_to_end(&mut bytes).await {
                Ok(_) => Ok(Bytes::from(bytes)),
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Err(corrupted()),
                Err(error) => Err(failed(DOING)(error)),
            }
        };
        timeout(FETCH, fetch).await.map_err(failed(DOING))?
    }

    /// The bytes of an object, a request for each of its pieces; nothing if one is not there.
    async fn pieces(&self, info: &ObjectInfo) -> Result<Option<Bytes>, StoreError> {
        const DOING: &str = "fetch a component";
        let stream = format!("OBJ_{FLEET_COMPONENTS}");
        let stream = self.context.get_stream_no_info(stream).await;
        let stream = stream.map_err(failed(DOING))?;
        let subject = format!("$O.{FLEET_COMPONENTS}.C.{}", info.nuid);
        let (mut bytes, mut next) = (Vec::with_capacity(info.size), None);
        for _ in 0..info.chunks {
            let piece = stream.direct_get_next_for_subject(subject.as_str(), next);
            let piece = match piece.await {
                Ok(piece) => piece,
                Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(failed(DOING)(error)),
            };
            next = Some(piece.sequence + 1);
            bytes.extend_from_slice(&piece.payload);
            if bytes.len() > info.size {
                return Ok(None);
            }
        }
        Ok((bytes.len() == info.size).then(|| bytes.into()))
    }

    /// Removes the components that no revision of any app names and no open run began with, unless they are new; returns
    /// how many.
    ///
    /// # Errors
    ///
    /// JetStream cannot be asked. What was removed until then is gone.
    pub async fn collect(&self) -> Result<usize, StoreError> {
        self.collect_older(COLLECT).await
    }

    /// As [`collect`](Self::collect), where those are new that were stored in this time.
    ///
    /// # Errors
    ///
    /// As for [`collect`](Self::collect).
    pub async fn collect_older(&self, than: Duration) -> Result<usize, StoreError> {
        self.collect_from_before(SystemTime::now() - than).await
    }

    async fn collect_from_before(&self, time: SystemTime) -> Result<usize, StoreError> {
        const DOING: &str = "remove old components";
        let names = keys(&self.apps, DOING).await?;
        let histories = join_all(names.iter().map(|name| self.history(name))).await;
        let mut named = BTreeSet::new();
        for one in try_join_all(names.iter().map(|name| self.for_runs(name))).await? {
            named.extend(one.into_iter().flat_map(|one| one.components.into_values()));
        }
        for history in histories {
            for one in history? {
                let specifications = [one.specification, one.stable, one.refused];
                let specifications = specifications.into_iter().flatten();
                named.extend(specifications.flat_map(|one| one.components.into_values()));
            }
        }
        let objects = self.components.list().await.map_err(failed(DOING))?;
        let objects: Vec<_> = objects.try_collect().await.map_err(failed(DOING))?;
        let mut removed = 0;
        for object in objects {
            let is_named = named.iter().any(|digest| is_of(&object.name, digest));
            let is_old = object
                .modified
                .is_some_and(|at| SystemTime::from(at) < time);
            if is_old && !is_named {
                let deleted = self.components.delete(&object.name).await;
                deleted.map_err(failed(DOING))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn description_name(digest: &Digest) -> String {
    format!("{digest}.types")
}

/// Whether an object is a component's bytes, description or signatures.
fn is_of(object: &str, digest: &Digest) -> bool {
    object.split('.').next() == Some(digest.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::store::tests::alone;
    use crate::fleet::{Revision, SigningKey};

    #[test]
    fn an_object_is_of_one_component() {
        let digest = Digest::of(b"a");
        let names = ["", ".types", ".signatures"].map(|end| format!("{digest}{end}"));
        assert!(names.iter().all(|name| is_of(name, &digest)));
        assert!(!names.iter().any(|name| is_of(name, &Digest::of(b"b"))));
        assert!(!is_of("", &digest) && !is_of(&format!("{digest}x"), &digest));
    }

    #[tokio::test]
    async fn what_no_kept_revision_names_is_collected_when_it_is_old() {
        let (_folder, server, store) = alone().await;
        // A revision names the first one; a later one without it leaves it named, as it is kept.
        let (named, not_named) = (&b"a"[..], &b"b"[..]);
        let revision = Revision::of_shop(1, "");
        for bytes in [named, not_named] {
            let stored = store.put_component(bytes, &Description::default()).await;
            assert!(stored.unwrap());
            let digest = Digest::of(bytes);
            let signature = SigningKey::generate().sign(&digest).unwrap();
            let signatures = [signature].into_iter().collect();
            assert!(store.add_signatures(&digest, &signatures).await.unwrap());
        }
        store.write("shop", &revision, None).await.unwrap();
        let first = store.app("shop").await.unwrap().unwrap();
        let undeployed = Revision {
            specification: None,
            ..Revision::of_shop(2, "")
        };
        let after = Some(first.sequence);
        store.write("shop", &undeployed, after).await.unwrap();

        // Nothing is an hour old.
        assert_eq!(store.collect().await.unwrap(), 0);
        let later = SystemTime::now() + COLLECT;
        assert_eq!(store.collect_from_before(later).await.unwrap(), 3);
        let [there, gone] = [named, not_named].map(Digest::of);
        assert_eq!(store.component(&there).await.unwrap(), named);
        assert_eq!(store.signatures(&there).await.unwrap().len(), 1);
        assert!(store.signatures(&gone).await.unwrap().is_empty());
        let missing = store.component(&gone).await.unwrap_err();
        assert!(matches!(missing, StoreError::Missing(_)), "{missing}");
        assert_eq!(store.collect_from_before(later).await.unwrap(), 0);
        assert!(
            store
                .put_component(not_named, &Description::default())
                .await
                .unwrap()
        );
        server.stop().await;
    }
}
