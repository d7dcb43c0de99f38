//! Files that are read again when they have changed.
//!
//! They are looked at from time to time: that also sees what a change of a link does, as secrets are mounted
//! in Kubernetes, and files of a network's file system, of neither of which a notification can be relied on.

use std::path::Path;
use std::time::SystemTime;

/// By what a changed file is known: its size, its time, and which file it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen(Vec<Option<(u64, Option<SystemTime>, u64)>>);

impl Seen {
    /// What these files are like now.
    pub(super) fn look<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Self {
        let look = |path: &Path| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.len(), found.modified().ok(), number(&found)))
        };
        Self(paths.into_iter().map(look).collect())
    }
}

#[cfg(unix)]
fn number(found: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(found)
}

#[cfg(not(unix))]
fn number(_: &std::fs::Metadata) -> u64 {
    0
}
