//! Many dead letters at once: filters, pages and paced replays.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_nats::StatusCode;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use futures_util::StreamExt as _;
use serde::{Serialize, Serializer};
use tokio::time::{Instant, Interval, MissedTickBehavior, timeout, timeout_at};

use super::error::failed;
use super::{DeadLetter, DeadLetterError, DeadLetters, Unreadable, read};
use crate::headers::Headers;
use crate::interface::FunctionRef;
use crate::nats::{Delivered, Message, Subscription};
use crate::subject;

/// Dead letters of one request to the server.
const BATCH: usize = 256;

/// Time for the server to send the next one.
const ANSWER: Duration = Duration::from_secs(5);

const WHAT: &str = "list dead letters";

/// Upper bound of the dead letters replayed in a second.
pub const MAX_RATE: u32 = 100_000;

/// A selection of dead letters; the default selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those of this subscriber.
    pub service: Option<String>,
    /// Those of these functions.
    pub function: Option<FunctionRef>,
    /// The one with this id.
    pub id: Option<String>,
}

impl Filter {
    /// Only the one with this id.
    #[must_use]
    pub fn only(id: &str) -> Self {
        Self {
            id: Some(id.to_owned()),
            ..Self::default()
        }
    }
}

/// One entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A dead letter without its body.
    DeadLetter(Box<DeadLetter>),
    /// A message that is none.
    Unreadable(Box<Unreadable>),
}

impl Entry {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::DeadLetter(dead_letter) => &dead_letter.id,
            Self::Unreadable(unreadable) => &unreadable.id,
        }
    }

    /// Its sequence in the stream.
    #[must_use]
    pub fn revision(&self) -> u64 {
        match self {
            Self::DeadLetter(dead_letter) => dead_letter.revision,
            Self::Unreadable(unreadable) => unreadable.revision,
        }
    }

    /// The dead letter, if it is one.
    #[must_use]
    pub fn dead_letter(&self) -> Option<&DeadLetter> {
        match self {
            Self::DeadLetter(dead_letter) => Some(dead_letter),
            Self::Unreadable(_) => None,
        }
    }
}

/// The position of the next page. The list ends with the dead letters that were there when it began,
/// so that one which fails again meanwhile does not come twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    after: u64,
    end: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.after, self.end)
    }
}

/// A text is no [`Cursor`].
#[derive(Debug, thiserror::Error)]
#[error("accepted: what an earlier answer has as `next`")]
pub struct NoCursor;

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let (after, end) = text.split_once('-').ok_or(NoCursor)?;
        let number = |text: &str| {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            // The largest would have nothing after it.
            let number = text.parse().ok().filter(|n| digits && *n < u64::MAX);
            number.ok_or(NoCursor)
        };
        Ok(Self {
            after: number(after)?,
            end: number(end)?,
        })
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Some of the selected dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Page {
    /// The dead letters, the oldest failure first.
    #[serde(rename = "deadLetters")]
    pub entries: Vec<Entry>,
    /// The position of the next page, if there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Cursor>,
}

/// The rate of replays.
#[derive(Debug)]
pub struct Pace(Option<Interval>);

/// A text is no [`Pace`].
#[derive(Debug, thiserror::Error)]
#[error("accepted: a number of dead letters a second such as 10/s, at most {MAX_RATE}/s")]
pub struct NoPace;

impl Pace {
    /// Upper bound of the dead letters a second; without one, as fast as they can be stored.
    #[must_use]
    pub fn new(rate: Option<u32>) -> Self {
        Self(rate.map(|rate| {
            let period = Duration::from_secs(1) / rate.clamp(1, MAX_RATE);
            let mut interval = tokio::time::interval(period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        }))
    }

    /// Reads a rate such as `10/s`.
    ///
    /// # Errors
    ///
    /// It is none, or out of range.
    pub fn rate(text: &str) -> Result<u32, NoPace> {
        let number = text.strip_suffix("/s").unwrap_or(text);
        let rate = number.parse().ok();
        rate.filter(|rate| (1..=MAX_RATE).contains(rate))
            .ok_or(NoPace)
    }

    /// Waits until the next dead letter may be replayed.
    pub async fn wait(&mut self) {
        if let Some(interval) = &mut self.0 {
            interval.tick().await;
        }
    }
}

/// The outcome of replaying many dead letters.
#[derive(Debug, Default)]
pub struct Replays {
    /// The ids of those that are on their way to their subscribers.
    pub replayed: Vec<String>,
    /// The ids and errors of those that could not be replayed.
    pub failed: Vec<(String, DeadLetterError)>,
    /// The position to go on at, if there are more.
    pub next: Option<Cursor>,
}

impl DeadLetters {
    /// A page of the dead letters that `filter` selects, `limit` at most, without their bodies.
    /// Empty for an app without a stream of dead letters.
    ///
    /// # Errors
    ///
    /// JetStream cannot be reached.
    ///
    /// # Cost
    ///
    /// Reads the headers of each dead letter from the server, some KiB each.
    pub async fn list(
        &self,
        filter: &Filter,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, DeadLetterError> {
        let Some(stream) = self.stream().await? else {
            return Ok(Page::default());
        };
        let after = from.map_or(0, |cursor| cursor.after);
        let end = from.map_or(stream.cached_info().state.last_sequence, |cursor| {
            cursor.end
        });
        let config = pull::Config {
            filter_subject: self.subjects(filter)?,
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: after.saturating_add(1),
            },
            ack_policy: AckPolicy::None,
            headers_only: true,
            inactive_threshold: Duration::from_secs(30),
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(failed(WHAT))?;
        // With one more it is known whether there are more.
        let wanted = limit.saturating_add(1);
        let mut page = Page::default();
        let mut batches = Batches::new(self, &consumer.cached_info().name)?;
        'pages: while page.entries.len() < wanted {
            let most = (wanted - page.entries.len()).min(BATCH);
            batches.ask(most).await?;
            let before = page.entries.len();
            while let Some(message) = batches.next().await? {
                let delivered = message.reply.as_deref().and_then(Delivered::parse);
                let delivered = delivered.ok_or("a message without its sequence");
                let revision = delivered.map_err(failed(WHAT))?.sequence;
                if revision > end {
                    break 'pages;
                }
                let headers = match message.malformed {
                    Some(why) => Err(why),
                    None => Ok(message.headers.as_ref()),
                };
                page.entries
                    .push(match read(&self.app, &message.subject, headers, revision) {
                        Ok(dead_letter) => Entry::DeadLetter(Box::new(dead_letter)),
                        Err(unreadable) => Entry::Unreadable(Box::new(unreadable)),
                    });
            }
            if page.entries.len() == before {
                break;
            }
        }
        if page.entries.len() > limit {
            page.entries.truncate(limit);
            let after = page.entries.last().map_or(after, Entry::revision);
            page.next = Some(Cursor { after, end });
        }
        // It would expire by itself.
        let _ = stream.delete_consumer(&consumer.cached_info().name).await;
        Ok(page)
    }

    /// Replays the dead letters that `filter` selects, `limit` at most, and none after `until`. One
    /// that is gone by then was handled or purged meanwhile, which is no failure.
    ///
    /// # Errors
    ///
    /// They cannot be listed.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has replayed the first ones.
    pub async fn replay_all(
        &self,
        filter: &Filter,
        from: Option<Cursor>,
        limit: usize,
        pace: &mut Pace,
        until: Option<Instant>,
    ) -> Result<Replays, DeadLetterError> {
        let page = self.list(filter, from, limit).await?;
        let mut replays = Replays {
            next: page.next,
            ..Replays::default()
        };
        let last = page.entries.last().map_or(0, Entry::revision);
        let end = page.next.or(from).map_or(last, |cursor| cursor.end);
        let mut after = from.map_or(0, |cursor| cursor.after);
        for entry in page.entries {
            let in_time = match until {
                Some(until) => {
                    Instant::now() < until && timeout_at(until, pace.wait()).await.is_ok()
                }
                None => {
                    pace.wait().await;
                    true
                }
            };
            if !in_time {
                replays.next = Some(Cursor { after, end });
                break;
            }
            after = entry.revision();
            let id = entry.id().to_owned();
            let replayed = match entry {
                Entry::DeadLetter(dead_letter) => self.replay(&dead_letter.id).await,
                Entry::Unreadable(unreadable) => Err(DeadLetterError::Unreadable(unreadable)),
            };
            match replayed {
                Ok(()) => replays.replayed.push(id),
                Err(DeadLetterError::NotFound { .. }) => {}
                Err(error) => replays.failed.push((id, error)),
            }
        }
        Ok(replays)
    }
}

/// What a consumer has, in batches. Over a connection on which a malformed message is one message.
struct Batches<'a> {
    letters: &'a DeadLetters,
    api: String,
    inbox: String,
    arrived: Subscription,
    /// Messages of the present batch that have not come.
    left: usize,
}

impl<'a> Batches<'a> {
    fn new(letters: &'a DeadLetters, consumer: &str) -> Result<Self, DeadLetterError> {
        let link = &letters.link;
        let stream = subject::dead_letter_stream(&letters.app);
        let inbox = link.new_inbox();
        let arrived = link.subscribe(&inbox, None).map_err(failed(WHAT))?;
        Ok(Self {
            letters,
            api: format!(
                "{}.CONSUMER.MSG.NEXT.{stream}.{consumer}",
                link.jetstream_api()
            ),
            inbox,
            arrived,
            left: 0,
        })
    }

    async fn ask(&mut self, most: usize) -> Result<(), DeadLetterError> {
        let pull = format!(r#"{{"batch":{most},"no_wait":true}}"#);
        let (inbox, none) = (Some(&*self.inbox), Headers::new());
        let link = &self.letters.link;
        let sent = link.publish(&self.api, inbox, &none, pull.as_bytes());
        sent.await.map_err(failed(WHAT))?;
        self.left = most;
        Ok(())
    }

    /// The next message of the batch; `None` at its end.
    async fn next(&mut self) -> Result<Option<Message>, DeadLetterError> {
        if self.left == 0 {
            return Ok(None);
        }
        let next = timeout(ANSWER, self.arrived.next()).await;
        let message = next.map_err(failed(WHAT))?;
        let message = message.ok_or("the connection is closed");
        let message = message.map_err(failed(WHAT))?;
        // What is stored has a subject to acknowledge it, and any status.
        match message.status.filter(|_| message.reply.is_none()) {
            // There are no more.
            Some(StatusCode::NOT_FOUND | StatusCode::TIMEOUT) => Ok(None),
            Some(status) => Err(failed(WHAT)(format!("the server answers {status}"))),
            None => {
                self.left -= 1;
                Ok(Some(message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let cursor = Cursor { after: 7, end: 40 };
        assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        for text in [
            "",
            "7",
            "7-",
            "-7",
            "+7-9",
            "7-9-1",
            "18446744073709551615-1",
            "x-1",
        ] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_is_a_number_a_second() {
        assert_eq!(Pace::rate("10/s").unwrap(), 10);
        assert_eq!(Pace::rate("10").unwrap(), 10);
        assert_eq!(Pace::rate("100000/s").unwrap(), MAX_RATE);
        for text in ["", "/s", "0/s", "-1/s", "1/m", "100001/s", "1.5/s"] {
            assert!(Pace::rate(text).is_err(), "{text}");
        }
    }
}
