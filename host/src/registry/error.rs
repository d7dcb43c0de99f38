//! Why a component could not be fetched from a registry, or pushed to one.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::manifest::Reference;
use crate::text::shown;

/// Why a component could not be fetched or pushed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry wants a login, or another one.
    #[error("{registry} wants {} for {repository}", if *.known { "another login" } else { "a login" })]
    Unauthorized {
        /// The registry.
        registry: String,
        /// The name in it.
        repository: String,
        /// Whether there was a login, which was not enough.
        known: bool,
        /// Why there was none, where that is not just because there is none.
        source: Option<LoginError>,
    },
    /// The login does not allow it.
    #[error("{registry} refuses to have {repository} {}{}", if *.push { "pushed" } else { "pulled" }, and_says(.says))]
    Denied {
        /// The registry.
        registry: String,
        /// The name in it.
        repository: String,
        /// Whether it was to be pushed.
        push: bool,
        /// What the registry says.
        says: String,
    },
    /// There is no such thing.
    #[error("there is no {what} in {registry}")]
    NotFound {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
    },
    /// The registry has had too many requests.
    #[error("{registry} takes no more requests for {repository} {}", again(*.after))]
    RateLimited {
        /// The registry.
        registry: String,
        /// The name in it.
        repository: String,
        /// When it takes some again.
        after: Option<Duration>,
    },
    /// The registry answers with another status than it may.
    #[error("{registry} answers {status} for {what}{}", and_says(.says))]
    Status {
        /// The registry.
        registry: String,
        /// The HTTP status.
        status: u16,
        /// What was asked for.
        what: String,
        /// What the registry says.
        says: String,
    },
    /// There was no answer.
    #[error("cannot reach {host}")]
    Unreachable {
        /// The registry, or where it sent on to.
        host: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The answer was not what the protocol says.
    #[error("{registry} answers for {what} with {why}")]
    Malformed {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// It would have gone over the network for all to read and change.
    #[error("{host} is reached without TLS only where that is asked for")]
    Insecure {
        /// The registry, or where it sent on to.
        host: String,
    },
    /// It is larger than it may be.
    #[error("{what} from {registry} has more than {limit} bytes")]
    TooLarge {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
        /// The bytes that it may have.
        limit: u64,
    },
    /// The bytes are not those that were asked for.
    #[error("{registry} sends other bytes for {what}: their digest is sha256:{got}")]
    Digest {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
        /// What the digest of the bytes is.
        got: String,
    },
    /// What is there is something else than a component.
    #[error("{reference} is no component: {why}")]
    NotComponent {
        /// What was asked for.
        reference: Reference,
        /// What it is.
        why: String,
    },
    /// What was to be pushed is something else than a component.
    #[error("it cannot be pushed: {0}")]
    NotPushed(String),
    /// There is no folder for what is fetched.
    #[error("there is no folder to keep components in")]
    NoCache,
    /// The folder for what is fetched cannot be used.
    #[error("cannot use {} in the cache", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl RegistryError {
    /// Whether there was an answer without TLS, where TLS was spoken.
    #[must_use]
    pub fn lacks_tls(&self) -> bool {
        matches!(self.tls(), Some(rustls::Error::InvalidMessage(_)))
    }

    /// What was wrong with TLS, where that was why there was no answer.
    pub(super) fn tls(&self) -> Option<&rustls::Error> {
        let Self::Unreachable { source, .. } = self else {
            return None;
        };
        let mut next: Option<&(dyn Error + 'static)> = Some(source.as_ref());
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref() {
                return Some(error);
            }
            // The cause of one that wraps another is that of the inner one.
            let inner = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref);
            next = match inner {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        None
    }
}

/// Why a login that should be there is not.
#[derive(Debug, thiserror::Error)]
#[error("the login of docker cannot be had: {0}")]
pub struct LoginError(pub(super) String);

fn and_says(says: &str) -> String {
    match says {
        "" => String::new(),
        says => format!(": {}", shown(says)),
    }
}

fn again(after: Option<Duration>) -> String {
    match after {
        Some(after) => format!("for {} s", after.as_secs()),
        None => "for a while".to_owned(),
    }
}
