//! What is in a registry, by the OCI distribution specification: manifests, blobs, and what refers to them.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, StatusCode};

use super::artifact::{ACCEPTED, Descriptor};
use super::client::{Ask, Client, location, malformed, unread};
use super::error::RegistryError;
use super::http::{Failure, Moved, Sent, read, read_all};
use crate::manifest::{Digest, Reference};

/// Bytes of a manifest, as the specification has them.
const MAX_MANIFEST: u64 = 4 << 20;

/// Says that the registry keeps track itself of what refers to a manifest.
const SUBJECT: &str = "oci-subject";

impl Client {
    /// The bytes of a manifest, by tag or digest.
    pub(super) async fn manifest(
        &self,
        of: &Reference,
        name: &str,
    ) -> Result<Vec<u8>, RegistryError> {
        let url = self.url(of, &["manifests", name]).await?;
        let what = named(of, name);
        let ask = Ask::get(of, url, what.clone()).with(ACCEPT, ACCEPTED);
        let response = self.ask_for(ask, &[StatusCode::OK]).await?;
        let bytes = read_all(response.into_body(), MAX_MANIFEST).await;
        bytes.map_err(|error| unread(of, what, MAX_MANIFEST, error))
    }

    /// The bytes of a manifest, if it is there.
    pub(super) async fn find_manifest(
        &self,
        of: &Reference,
        name: &str,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        match self.manifest(of, name).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The index of what refers to a manifest, where the registry keeps one itself.
    pub(super) async fn referrers(
        &self,
        of: &Reference,
        digest: &Digest,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        let url = self
            .url(of, &["referrers", &format!("sha256:{digest}")])
            .await?;
        let what = format!("what refers to {of}");
        let ask = Ask::get(of, url, what.clone()).with(ACCEPT, ACCEPTED);
        let response = match self.ask_for(ask, &[StatusCode::OK]).await {
            Ok(response) => response,
            Err(RegistryError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let bytes = read_all(response.into_body(), MAX_MANIFEST).await;
        bytes
            .map(Some)
            .map_err(|error| unread(of, what, MAX_MANIFEST, error))
    }

    /// Reads a blob piece by piece, no more of it than its descriptor says. Its digest is for the caller to check.
    pub(super) async fn blob(
        &self,
        of: &Reference,
        blob: &Descriptor,
        moved: Option<&Moved>,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), RegistryError> {
        let digest = blob
            .digest()
            .map_err(|why| malformed(of, of.to_string(), why))?;
        let url = self
            .url(of, &["blobs", &format!("sha256:{digest}")])
            .await?;
        let what = of.to_string();
        let response = self
            .ask_for(Ask::get(of, url, what.clone()), &[StatusCode::OK])
            .await?;
        let mut done = 0;
        let take = |data: &[u8]| {
            done += data.len() as u64;
            if let Some(moved) = moved {
                moved(done, blob.size);
            }
            take(data)
        };
        let all = read(response.into_body(), blob.size, take).await;
        all.map_err(|error| unread(of, what, blob.size, error))
    }

    /// Stores a blob, unless it is there.
    pub(super) async fn put_blob(
        &self,
        of: &Reference,
        bytes: Bytes,
        moved: Option<&Moved>,
    ) -> Result<(), RegistryError> {
        let digest = format!("sha256:{}", Digest::of(&bytes));
        let url = self.url(of, &["blobs", &digest]).await?;
        let ask = Ask::push(of, Method::HEAD, url, Sent::default());
        // One that is kept elsewhere is there.
        let is_there = [
            StatusCode::OK,
            StatusCode::FOUND,
            StatusCode::TEMPORARY_REDIRECT,
        ];
        match self.ask_for(ask, &is_there).await {
            Ok(_) => return Ok(()),
            Err(RegistryError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let url = self.url(of, &["blobs", "uploads", ""]).await?;
        let ask = Ask::push(of, Method::POST, url.clone(), Sent::default());
        let begun = self.ask_for(ask, &[StatusCode::ACCEPTED]).await?;
        let mut url = location(of, &url, begun.headers())?;
        url.query_pairs_mut().append_pair("digest", &digest);
        let ask = Ask::push(of, Method::PUT, url, Sent::new(bytes, moved))
            .with(CONTENT_TYPE, "application/octet-stream");
        self.ask_for(ask, &[StatusCode::CREATED, StatusCode::NO_CONTENT])
            .await?;
        Ok(())
    }

    /// Stores a manifest under a tag or its digest; returns whether the registry notes what it refers to.
    pub(super) async fn put_manifest(
        &self,
        of: &Reference,
        name: &str,
        media_type: &'static str,
        bytes: &[u8],
    ) -> Result<bool, RegistryError> {
        let url = self.url(of, &["manifests", name]).await?;
        let body = Sent::new(bytes.to_owned(), None);
        let ask = Ask::push(of, Method::PUT, url, body).with(CONTENT_TYPE, media_type);
        let put = self
            .ask_for(ask, &[StatusCode::CREATED, StatusCode::OK])
            .await?;
        Ok(put.headers().contains_key(SUBJECT))
    }
}

/// A manifest by tag or digest, as people write it.
pub(super) fn named(of: &Reference, name: &str) -> String {
    let mark = if name.contains(':') { '@' } else { ':' };
    format!("{}{mark}{name}", of.repository())
}
