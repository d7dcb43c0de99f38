//! The signatures of components, each beside its component.

use serde::{Deserialize, Serialize};

use super::{Store, StoreError, failed, to_json, unreadable};
use crate::fleet::records::{self, FORMAT};
use crate::fleet::signatures::{MAX_SIGNATURES, Signatures};
use crate::manifest::Digest;

#[derive(Serialize, Deserialize)]
struct Signed {
    format: u32,
    signatures: Signatures,
}

impl Store {
    /// The signatures of a component as they are kept: nothing of them is checked.
    ///
    /// # Errors
    ///
    /// JetStream cannot be asked, or they cannot be read.
    pub async fn signatures(&self, digest: &Digest) -> Result<Signatures, StoreError> {
        let bytes = match self.object(&name(digest), digest).await {
            Ok(bytes) => bytes,
            Err(StoreError::Missing(_)) => return Ok(Signatures::new()),
            Err(error) => return Err(error),
        };
        let read = records::read::<Signed>(&bytes);
        let what = format!("the signatures of component {}", digest.short());
        Ok(read.map_err(unreadable(what))?.signatures)
    }

    /// Adds signatures of a component to those that are kept, and takes the place of what cannot be read;
    /// returns whether there were other ones.
    ///
    /// # Errors
    ///
    /// JetStream does not take them.
    ///
    /// # Limits
    ///
    /// [`MAX_SIGNATURES`] are kept, the new ones first.
    pub async fn add_signatures(
        &self,
        digest: &Digest,
        new: &Signatures,
    ) -> Result<bool, StoreError> {
        if new.is_empty() {
            return Ok(false);
        }
        let known = match self.signatures(digest).await {
            Err(StoreError::Record { .. } | StoreError::Corrupted { .. }) => Signatures::new(),
            known => known?,
        };
        let mut signatures = new.clone();
        for (key, signature) in &known {
            if signatures.len() < MAX_SIGNATURES && !signatures.contains_key(key) {
                signatures.insert(key.clone(), signature.clone());
            }
        }
        if signatures == known {
            return Ok(false);
        }
        let format = FORMAT;
        let bytes = to_json(&Signed { format, signatures });
        let put = self.components.put(&*name(digest), &mut &*bytes).await;
        put.map_err(failed("store signatures"))?;
        Ok(true)
    }
}

fn name(digest: &Digest) -> String {
    format!("{digest}.signatures")
}
