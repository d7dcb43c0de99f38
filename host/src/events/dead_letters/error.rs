//! Why something could not be done with a letter.

use async_nats::jetstream::context::{PublishError, PublishErrorKind};

use super::Sequence;
use crate::text::one_line;

/// Why something could not be done with a letter.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// There is none with this id.
    #[error("there is no dead letter \"{id}\"")]
    NotFound {
        /// The id.
        id: String,
    },
    /// What is given as an id cannot be one.
    #[error("`{0}` is no id of a dead letter; accepted: 16 hexadecimal digits")]
    NoId(String),
    /// Its event was too large to be kept with it, and the stream has dropped it since.
    #[error(
        "the body of dead letter \"{id}\" is gone: it was too large to be kept, and the event has expired"
    )]
    NoBody {
        /// The id.
        id: String,
    },
    /// A body is too large to be kept in a letter.
    #[error("{size} bytes are too many for a dead letter; at most {limit}")]
    TooLarge {
        /// Bytes of the body and everything else.
        size: usize,
        /// As many as NATS takes.
        limit: usize,
    },
    /// It is another than the one that was looked at.
    #[error("dead letter \"{id}\" has changed meanwhile; look at it again")]
    Changed {
        /// The id.
        id: String,
    },
    /// A body is not of the event's type.
    #[error("the arguments do not fit: {why}")]
    Misfit {
        /// Where in the body, and what is expected there.
        why: String,
        /// The event's function.
        function: String,
        /// Its parameters as WIT has them.
        takes: String,
    },
    /// Neither the event's stream nor anybody else knows its type.
    #[error("nobody tells what `{function}` carries")]
    Untyped {
        /// The event's function.
        function: String,
    },
    /// What is stored is no letter.
    #[error("dead letter {} cannot be read: {}", .0.id, .0.unreadable)]
    Unreadable(Box<Unreadable>),
    /// JetStream cannot be reached or refuses.
    #[error("cannot {what}")]
    Store {
        /// What was to be done.
        what: &'static str,
        /// What NATS said.
        source: async_nats::Error,
    },
}

/// Something among the letters that is none. It cannot be replayed, only purged.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Unreadable {
    /// What it can be named by: its subject's id, or `at-` and its revision if that has none.
    pub id: String,
    /// Why it cannot be read.
    pub unreadable: String,
    /// What it is stored under.
    pub subject: String,
    /// Where it is stored.
    pub revision: u64,
}

impl Unreadable {
    pub(super) fn new(subject: &str, revision: u64, why: &str) -> Self {
        let last = subject.rsplit('.').next().unwrap_or_default();
        Self {
            id: match super::is_id(last) {
                true => last.to_owned(),
                false => Sequence(revision).to_string(),
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

/// What comes of a letter that was to replace a certain one.
pub(super) fn refused(id: &str) -> impl FnOnce(PublishError) -> DeadLetterError {
    move |error| match error.kind() {
        PublishErrorKind::WrongLastSequence => DeadLetterError::Changed { id: id.to_owned() },
        _ => failed("store a dead letter")(error),
    }
}
