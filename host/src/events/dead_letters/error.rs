//! Errors of work on dead letters.

use async_nats::jetstream::context::{PublishError, PublishErrorKind};

use super::Sequence;
use crate::text::one_line;

/// An error of work on dead letters.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// There is no dead letter with this id.
    #[error("there is no dead letter \"{id}\"")]
    NotFound {
        /// The id.
        id: String,
    },
    /// A text that cannot be an id.
    #[error("`{0}` is no id of a dead letter; accepted: 16 hexadecimal digits")]
    NoId(String),
    /// The body was too large for the dead letter, and the stream has dropped the event since.
    #[error(
        "the body of dead letter \"{id}\" is gone: it was too large to be kept, and the event has expired"
    )]
    NoBody {
        /// The id.
        id: String,
    },
    /// A body is too large for a dead letter.
    #[error("{size} bytes are too many for a dead letter; at most {limit}")]
    TooLarge {
        /// Bytes of the body and the headers.
        size: usize,
        /// Upper bound of NATS.
        limit: usize,
    },
    /// The dead letter is at another revision than the one that was read.
    #[error("dead letter \"{id}\" has changed meanwhile; look at it again")]
    Changed {
        /// The id.
        id: String,
    },
    /// A body is not of the event's type.
    #[error("the arguments do not fit: {why}")]
    Misfit {
        /// The path in the body, and the expected value.
        why: String,
        /// The event's function.
        function: String,
        /// Its parameters as WIT has them.
        takes: String,
    },
    /// The event's type is in no stream and no deployment.
    #[error("the type of `{function}` is unknown")]
    Untyped {
        /// The event's function.
        function: String,
    },
    /// A stored message is no dead letter.
    #[error("dead letter {} cannot be read: {}", .0.id, .0.unreadable)]
    Unreadable(Box<Unreadable>),
    /// JetStream cannot be reached or refuses.
    #[error("cannot {what}")]
    Store {
        /// The operation.
        what: &'static str,
        /// The error of NATS.
        source: async_nats::Error,
    },
}

/// A message in the stream of dead letters that is none. It cannot be replayed, only purged.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Unreadable {
    /// Its subject's id, or `at-` and its revision if the subject has none.
    pub id: String,
    /// The reason.
    pub unreadable: String,
    /// The subject that it is stored under.
    pub subject: String,
    /// Its sequence in the stream.
    pub revision: u64,
}

impl Unreadable {
    pub(super) fn new(subject: &str, revision: u64, why: &str) -> Self {
        let last = subject.rsplit('.').next().unwrap_or_default();
        Self {
            id: if super::is_id(last) {
                last.to_owned()
            } else {
                Sequence(revision).to_string()
            },
            // Any client may have written this.
            unreadable: one_line(why, 200).into_owned(),
            subject: subject.to_owned(),
            revision,
        }
    }
}

pub(super) fn failed<E: Into<async_nats::Error>>(
    what: &'static str,
) -> impl FnOnce(E) -> DeadLetterError {
    move |source| DeadLetterError::Store {
        what,
        source: source.into(),
    }
}

/// The error of storing a dead letter instead of an expected revision.
pub(super) fn refused(id: &str) -> impl FnOnce(PublishError) -> DeadLetterError {
    move |error| match error.kind() {
        PublishErrorKind::WrongLastSequence => DeadLetterError::Changed { id: id.to_owned() },
        _ => failed("store a dead letter")(error),
    }
}
