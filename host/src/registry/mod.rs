//! Components in OCI registries: fetched by digest into a cache, and pushed.
//!
//! What a component is there, is `artifact`'s; how registries are asked, `client`'s, and for what, `contents`'s; logins are those of docker
//! (`login`). Nothing is handed on whose bytes do not have the digest that was asked for.

mod artifact;
mod cache;
mod client;
mod contents;
mod error;
mod http;
mod login;

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use artifact::{Artifact, INDEX, MANIFEST, MAX_SMALL};
use cache::Cache;
use client::{Client, malformed};
use contents::named;
pub use error::{LoginError, RegistryError};
pub use http::Moved;

use crate::manifest::{Digest, Reference};

/// Bytes at the start of a component that tell what it is.
const PREAMBLE: usize = 8;

/// Registries, with a cache of what was fetched from them.
pub struct Registries {
    client: Client,
    cache: Cache,
}

/// How registries are reached, and where what is fetched is kept.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// Hosts, with their ports, that are reached without TLS if they have none. Those of this machine always are.
    pub insecure: Vec<String>,
    /// The folder of what was fetched. Its size is bounded; what was not used for longest goes first.
    pub cache: Option<PathBuf>,
}

/// A component that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its file in the cache.
    pub file: PathBuf,
    /// The digest of its bytes.
    pub component: Digest,
    /// How many there are.
    pub bytes: u64,
    /// Whether it was in the cache.
    pub cached: bool,
}

impl Registries {
    /// # Errors
    ///
    /// TLS cannot be set up.
    pub fn new(options: RegistryOptions) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self {
            client: Client::new(options.insecure)?,
            cache: Cache::new(options.cache),
        })
    }

    /// The digest of the manifest that a reference stands for now.
    ///
    /// # Errors
    ///
    /// The registry does not say, or has something else there than a component.
    pub async fn look_up(&self, reference: &Reference) -> Result<Digest, RegistryError> {
        if let Some(digest) = reference.digest() {
            return Ok(digest.clone());
        }
        // What has no digest has a tag.
        let tag = reference.tag().unwrap_or_default();
        let manifest = self.client.manifest(reference, tag).await?;
        component_in(reference, &manifest)?;
        let digest = Digest::of(&manifest);
        self.cache.put_manifest(&digest, &manifest)?;
        Ok(digest)
    }

    /// The component with the manifest of this digest, from the cache if it is there.
    ///
    /// # Errors
    ///
    /// It is not there, is no component, or its bytes are others.
    ///
    /// # Limits
    ///
    /// A manifest has 4 MiB at most, a component [`MAX_BYTES`](crate::runtime::MAX_BYTES): what has more is not read
    /// to its end. What takes more than half a minute without a byte is given up.
    pub async fn fetch(
        &self,
        reference: &Reference,
        digest: &Digest,
        moved: Option<&Moved>,
    ) -> Result<Fetched, RegistryError> {
        let manifest = match self.cache.manifest(digest) {
            Some(manifest) => manifest,
            None => {
                let name = format!("sha256:{digest}");
                let manifest = self.client.manifest(reference, &name).await?;
                check(
                    reference,
                    &named(reference, &name),
                    digest,
                    &Digest::of(&manifest),
                )?;
                self.cache.put_manifest(digest, &manifest)?;
                manifest
            }
        };
        let layer = component_in(reference, &manifest)?;
        let component = layer.digest().map_err(not_component(reference))?;
        if let Some(file) = self.cache.component(&component) {
            let bytes = layer.size;
            return Ok(Fetched {
                file,
                component,
                bytes,
                cached: true,
            });
        }
        let mut file = self.cache.create()?;
        let (mut hash, mut bytes, mut start) = (Sha256::new(), 0, Vec::new());
        let take = |data: &[u8]| {
            hash.update(data);
            bytes += data.len() as u64;
            start.extend(data.iter().take(PREAMBLE.saturating_sub(start.len())));
            std::io::Write::write_all(&mut file, data)?;
            Ok(())
        };
        self.client.blob(reference, &layer, moved, take).await?;
        check(
            reference,
            &reference.to_string(),
            &component,
            &Digest::finish(hash),
        )?;
        artifact::check_component(&start)
            .map_err(|why| not_component(reference)(why.to_owned()))?;
        let file = self.cache.put_component(&component, file)?;
        Ok(Fetched {
            file,
            component,
            bytes,
            cached: false,
        })
    }

    /// The signatures that were pushed of the component with this manifest, each a text as `wasmbay sign` writes it.
    /// Whose they are, and whether they are right, is not looked at.
    ///
    /// # Errors
    ///
    /// The registry does not say.
    pub async fn signatures(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<Vec<String>, RegistryError> {
        let index = match self.client.referrers(reference, digest).await? {
            Some(index) => Some(index),
            None => {
                self.client
                    .find_manifest(reference, &artifact::referrers_tag(digest))
                    .await?
            }
        };
        let Some(index) = index else {
            return Ok(Vec::new());
        };
        let what = || format!("the signatures of {reference}");
        let wrong = |why| malformed(reference, what(), why);
        let mut signatures = Vec::new();
        for listed in artifact::signatures_in(&index).map_err(wrong)? {
            let digest = listed.digest().map_err(wrong)?;
            let name = format!("sha256:{digest}");
            let manifest = self.client.manifest(reference, &name).await?;
            check(
                reference,
                &named(reference, &name),
                &digest,
                &Digest::of(&manifest),
            )?;
            let layer = artifact::signatures_of(&manifest).map_err(wrong)?;
            let mut text = Vec::new();
            let take = |data: &[u8]| {
                text.extend_from_slice(data);
                Ok(())
            };
            self.client.blob(reference, &layer, None, take).await?;
            check(
                reference,
                &what(),
                &layer.digest().map_err(wrong)?,
                &Digest::of(&text),
            )?;
            signatures.push(String::from_utf8(text).map_err(|error| wrong(error.to_string()))?);
        }
        Ok(signatures)
    }

    /// Pushes a component under a tag, with these annotations besides those that it has of itself; returns the digest
    /// of its manifest. The same bytes under the same name, at the same time, have the same one.
    ///
    /// # Errors
    ///
    /// The bytes are no component, or the registry does not take it.
    pub async fn push(
        &self,
        reference: &Reference,
        component: Vec<u8>,
        annotations: &BTreeMap<String, String>,
        created: Option<OffsetDateTime>,
        moved: Option<&Moved>,
    ) -> Result<Digest, RegistryError> {
        let made = Artifact::of_component(reference, &component, annotations, created);
        let Artifact { manifest, config } = made.map_err(RegistryError::NotPushed)?;
        let digest = Digest::of(&manifest);
        let by_digest = format!("sha256:{digest}");
        if let Some(expected) = reference.digest().filter(|expected| **expected != digest) {
            return Err(RegistryError::NotPushed(format!(
                "its manifest has the digest sha256:{digest} and not sha256:{expected}; name a tag"
            )));
        }
        self.client
            .put_blob(reference, Bytes::from(component), moved)
            .await?;
        self.client
            .put_blob(reference, Bytes::from(config), None)
            .await?;
        let name = reference.tag().unwrap_or(&by_digest);
        self.client
            .put_manifest(reference, name, MANIFEST, &manifest)
            .await?;
        Ok(digest)
    }

    /// Pushes signatures of the component with this manifest, which was pushed before.
    ///
    /// # Errors
    ///
    /// The registry does not take them.
    pub async fn push_signatures(
        &self,
        reference: &Reference,
        digest: &Digest,
        signatures: &str,
    ) -> Result<(), RegistryError> {
        let name = format!("sha256:{digest}");
        let subject = self.client.manifest(reference, &name).await?;
        check(
            reference,
            &named(reference, &name),
            digest,
            &Digest::of(&subject),
        )?;
        let signatures = signatures.as_bytes();
        if signatures.len() as u64 > MAX_SMALL {
            let why = format!("its signatures have more than {MAX_SMALL} bytes");
            return Err(RegistryError::NotPushed(why));
        }
        let Artifact { manifest, config } = Artifact::of_signatures(&subject, signatures);
        self.client
            .put_blob(reference, Bytes::copy_from_slice(signatures), None)
            .await?;
        self.client
            .put_blob(reference, Bytes::from(config), None)
            .await?;
        let name = format!("sha256:{}", Digest::of(&manifest));
        if self
            .client
            .put_manifest(reference, &name, MANIFEST, &manifest)
            .await?
        {
            return Ok(());
        }
        // A registry that does not keep track of what refers to what has an index under a tag.
        let tag = artifact::referrers_tag(digest);
        let index = self.client.find_manifest(reference, &tag).await?;
        let index = artifact::listed_in(index.as_deref(), &manifest);
        let wrong = |why| malformed(reference, format!("the tag {tag}"), why);
        if let Some(index) = index.map_err(wrong)? {
            self.client
                .put_manifest(reference, &tag, INDEX, &index)
                .await?;
        }
        Ok(())
    }
}

fn component_in(
    reference: &Reference,
    manifest: &[u8],
) -> Result<artifact::Descriptor, RegistryError> {
    artifact::component_of(manifest).map_err(not_component(reference))
}

fn not_component(reference: &Reference) -> impl FnOnce(String) -> RegistryError {
    let reference = reference.clone();
    move |why| RegistryError::NotComponent { reference, why }
}

fn check(
    reference: &Reference,
    what: &str,
    wanted: &Digest,
    got: &Digest,
) -> Result<(), RegistryError> {
    if wanted == got {
        return Ok(());
    }
    Err(RegistryError::Digest {
        registry: reference.registry().to_owned(),
        what: what.to_owned(),
        got: got.to_string(),
    })
}
