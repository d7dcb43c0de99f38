//! What a server refuses to a login.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::pin;

use tokio::sync::watch;

use crate::subject;
use crate::text::one_line;

/// Refusals that are kept; a client that goes on publishing what it may not would fill memory.
const MAX_REFUSALS: usize = 256;

/// Bytes of a subject that are kept.
const MAX_SUBJECT: usize = 1_024;

/// The permissions that servers have refused to connections since those were opened.
#[derive(Clone, Debug, Default)]
pub struct Violations(watch::Sender<Noted>);

#[derive(Debug, Default)]
struct Noted {
    /// Counts all, so that one which comes again is seen again.
    count: u64,
    /// The latest of each, the oldest first.
    refusals: VecDeque<(u64, Refusal)>,
}

/// A permission that the login of a connection lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the NATS login may not {action} {subject}")]
pub struct Refusal {
    /// What it may not do.
    pub action: Action,
    /// Where.
    pub subject: String,
}

/// What needs a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Publishing on a subject.
    Publish,
    /// Subscribing to a subject.
    Subscribe,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Publish => "publish on",
            Self::Subscribe => "subscribe to",
        })
    }
}

impl Refusal {
    /// What a server says, such as `Permissions Violation for Publish to "a.b"`.
    fn read(words: &str) -> Option<Self> {
        if !words.contains("Permissions Violation") {
            return None;
        }
        let kinds = [
            ("Publish to \"", Action::Publish),
            ("Subscription to \"", Action::Subscribe),
        ];
        kinds.into_iter().find_map(|(start, action)| {
            let (_, rest) = words.split_once(start)?;
            let (subject, _) = rest.split_once('"')?;
            let subject = one_line(subject, MAX_SUBJECT).into_owned();
            Some(Self { action, subject })
        })
    }

    /// Whether it is JetStream's list of streams, which everyone who asks for can do without.
    #[must_use]
    pub(crate) fn is_of_stream_list(&self) -> bool {
        self.subject.ends_with("API.STREAM.LIST")
    }

    /// Whether it is of keeping log records, which a host can do without, and says itself.
    #[must_use]
    pub(crate) fn is_of_logs(&self) -> bool {
        let of_stream = self.subject.contains("API.STREAM.");
        of_stream && self.subject.ends_with(&format!(".{}", subject::LOG_STREAM))
            || self.subject.starts_with(&subject::log_prefix())
    }
}

impl Violations {
    /// Notes and logs what a server said, if that is a refusal; returns whether it is.
    pub(super) fn note(&self, connection: &str, words: &str) -> bool {
        let Some(refusal) = Refusal::read(words) else {
            return false;
        };
        if refusal.is_of_stream_list() {
            tracing::debug!(connection, "streams cannot be listed: {refusal}");
        } else if refusal.is_of_logs() {
            tracing::debug!(connection, "{refusal}");
        } else {
            tracing::error!(connection, "{refusal}");
        }
        self.0.send_modify(|noted| {
            noted.refusals.retain(|(_, known)| *known != refusal);
            if noted.refusals.len() == MAX_REFUSALS {
                noted.refusals.pop_front();
            }
            noted.count += 1;
            noted.refusals.push_back((noted.count, refusal));
        });
        true
    }

    /// A refusal of this subject, or of one that starts so.
    #[must_use]
    pub fn of(&self, subject: &str) -> Option<Refusal> {
        let noted = self.0.borrow();
        let mut refusals = noted.refusals.iter().map(|(_, refusal)| refusal);
        refusals
            .find(|refusal| refusal.subject.starts_with(subject))
            .cloned()
    }

    /// What is refused from now on.
    #[must_use]
    pub(crate) fn next_refusals(&self) -> Refusals {
        let noted = self.0.subscribe();
        let seen = noted.borrow().count;
        Refusals { noted, seen }
    }

    /// Does what a server may refuse, and ends at once when it does: what waits for the answer to
    /// something that was refused would wait in vain.
    ///
    /// # Errors
    ///
    /// Something that `counts` was refused meanwhile.
    ///
    /// # Cancel safety
    ///
    /// That of the work, which is dropped when something is refused.
    pub async fn guard<T>(
        &self,
        counts: impl Fn(&Refusal) -> bool,
        work: impl Future<Output = T>,
    ) -> Result<T, Refusal> {
        let mut refusals = self.next_refusals();
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                refusal = refusals.next() => {
                    if counts(&refusal) {
                        return Err(refusal);
                    }
                }
            }
        }
    }
}

/// Refusals, in their order.
pub(crate) struct Refusals {
    noted: watch::Receiver<Noted>,
    seen: u64,
}

impl Refusals {
    /// The next one; waits for ever where there is none.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has taken none.
    pub(crate) async fn next(&mut self) -> Refusal {
        loop {
            if let Some(refusal) = self.ready() {
                return refusal;
            }
            if self.noted.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The next one, if there is one already.
    pub(crate) fn ready(&mut self) -> Option<Refusal> {
        let noted = self.noted.borrow_and_update();
        let mut refusals = noted.refusals.iter();
        let (at, refusal) = refusals.find(|(at, _)| *at > self.seen)?;
        self.seen = *at;
        Some(refusal.clone())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const PUBLISH: &str = "Permissions Violation for Publish to \"$KV.a.b\"";
    const SUBSCRIBE: &str =
        "'Permissions Violation for Subscription to \"bay.app.>\" using queue \"bay\"'";

    #[test]
    fn a_refusal_names_its_subject() {
        let told = |words| Refusal::read(words).unwrap().to_string();
        assert_eq!(told(PUBLISH), "the NATS login may not publish on $KV.a.b");
        assert_eq!(
            told(SUBSCRIBE),
            "the NATS login may not subscribe to bay.app.>"
        );
        for words in [
            "",
            "Authorization Violation",
            "Publish to \"a\"",
            "Permissions Violation",
        ] {
            assert_eq!(Refusal::read(words), None, "{words}");
        }
    }

    #[tokio::test]
    async fn work_ends_when_what_it_needs_is_refused() {
        let violations = Violations::default();
        violations.note("test", PUBLISH);
        let ours = |refusal: &Refusal| refusal.subject.starts_with("$KV.");
        // What was refused before is no matter of this work.
        assert_eq!(violations.guard(ours, async { 1 }).await, Ok(1));
        let mut work = pin!(violations.guard(ours, std::future::pending::<()>()));
        assert!(work.as_mut().now_or_never().is_none());
        violations.note("test", SUBSCRIBE);
        assert!(work.as_mut().now_or_never().is_none());
        violations.note("test", PUBLISH);
        let refusal = work.as_mut().now_or_never().unwrap().unwrap_err();
        assert_eq!(refusal.subject, "$KV.a.b");
    }

    #[test]
    fn the_latest_refusals_are_kept() {
        let violations = Violations::default();
        for n in 0..=MAX_REFUSALS {
            violations.note(
                "test",
                &format!("Permissions Violation for Publish to \"a.{n}x\""),
            );
        }
        assert_eq!(violations.of("a.0x"), None);
        assert!(violations.of("a.1x").is_some() && violations.of("b").is_none());
        assert_eq!(violations.0.borrow().refusals.len(), MAX_REFUSALS);
    }
}
