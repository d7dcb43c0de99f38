//! The record of a dead letter: the event, the subscriber, and the attempts.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::call::Blame;
use crate::manifest::Outcome;
use crate::subject;
use crate::text::hex;

/// Upper bound of the bytes of a dead letter besides its event's body. Publishing an event to a
/// stream leaves room for them, so that it still fits as a dead letter.
pub const HEADROOM: usize = 32 << 10;

/// Upper bound of the bytes of an attempt's error; the rest is cut.
const MAX_ERROR: usize = 4 << 10;

/// Upper bound of the bytes of all attempts of a dead letter; the oldest are left out beyond it.
const MAX_ATTEMPTS: usize = 20 << 10;

/// Upper bound of the bytes of an event's own headers; further ones are left out.
const MAX_HEADERS: usize = 8 << 10;

/// An event that a subscriber could not handle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// The id: the same for the same event and subscriber.
    pub id: String,
    /// The subscriber.
    pub service: String,
    /// SHA-256 of the component that failed last.
    pub digest: String,
    /// The event's function as `namespace:package/interface.function@version`; for a message
    /// its handler.
    pub function: String,
    /// The subject that the event was published on.
    pub subject: String,
    /// The event's headers.
    pub headers: BTreeMap<String, Vec<String>>,
    /// The stream that stored the event.
    pub stream: String,
    /// The event's sequence in the stream.
    pub sequence: u64,
    /// Time at which the event was stored, as RFC 3339 by the NATS server's clock.
    pub published: String,
    /// The attempts, the oldest first.
    pub attempts: Vec<Attempt>,
    /// Number of older attempts that were left out.
    #[serde(default)]
    pub left_out: usize,
    /// Whether the body was edited.
    #[serde(default)]
    pub edited: bool,
    /// The subject of an event with the edited body, if its key belongs to another partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<String>,
    /// Bytes of the body.
    pub size: usize,
    /// Whether the body did not fit and is still in the stream of the event.
    #[serde(default)]
    pub body_left: bool,
    /// The sequence of the dead letter in its stream: another one after each change.
    #[serde(skip)]
    pub revision: u64,
    /// The body; empty in a list.
    #[serde(skip)]
    pub body: Bytes,
}

impl DeadLetter {
    /// Whether it is of a message, which has no type, and not of an event.
    #[must_use]
    pub fn is_message(&self) -> bool {
        !subject::is_own(&self.subject)
    }

    /// The subject that it is stored under, made of the function that it was for.
    pub(super) fn stored_subject(&self, app: &str) -> String {
        let Self {
            service,
            subject,
            function,
            id,
            ..
        } = self;
        match function.parse() {
            Ok(function) if self.is_message() => {
                let handler = subject::of_function(app, &function);
                subject::dead_letter(app, service, &handler, id)
            }
            _ => subject::dead_letter(app, service, subject, id),
        }
    }
}

/// One attempt of a subscriber at an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Time of its end, as RFC 3339 by the host's clock.
    pub time: String,
    /// The kind of failure; absent when no attempt could succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The status of the error, absent for an `err` value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// The party at fault.
    pub blame: Blame,
    /// The error's message, or the `err` value as JSON.
    pub error: String,
}

impl Attempt {
    /// An attempt that ended now.
    pub(crate) fn now(
        outcome: Option<Outcome>,
        code: Option<u16>,
        blame: Blame,
        error: &str,
    ) -> Self {
        Self {
            // A clock before year 0 or after 9999 is none.
            time: rfc3339(OffsetDateTime::now_utc()),
            outcome,
            code,
            blame,
            error: error
                .get(..error.floor_char_boundary(MAX_ERROR))
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

pub(crate) fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

/// The id of the dead letter of an event at a service.
pub(crate) fn dead_letter_id(
    stream: &str,
    sequence: u64,
    published: OffsetDateTime,
    service: &str,
) -> String {
    let published = published.unix_timestamp_nanos();
    let name = format!("{stream}/{sequence}/{published}/{service}");
    hex(Sha256::digest(name).get(..8).unwrap_or_default())
}

/// The message id by which JetStream stores a replay of this state of a dead letter once.
pub(super) fn replay_id(dead_letter: &DeadLetter) -> String {
    let DeadLetter {
        id,
        attempts,
        left_out,
        edited,
        ..
    } = dead_letter;
    let attempts = left_out + attempts.len();
    // An edited dead letter can be replayed although it has not failed since.
    let edited = if *edited {
        let body = Sha256::digest(&dead_letter.body);
        hex(body.get(..4).unwrap_or_default())
    } else {
        String::new()
    };
    format!("replay-{id}-{attempts}{edited}")
}

/// The dead letter of an event that was replayed and has failed again: the earlier one with the later
/// attempts.
pub(super) fn with_history_of(before: DeadLetter, now: DeadLetter) -> DeadLetter {
    let mut attempts = before.attempts;
    attempts.extend(now.attempts);
    DeadLetter {
        attempts,
        left_out: before.left_out + now.left_out,
        digest: now.digest,
        ..before
    }
}

/// Leaves out the oldest attempts, and headers, beyond the bounds.
pub(super) fn shorten(dead_letter: &mut DeadLetter) {
    let bytes = |attempt: &Attempt| serde_json::to_string(attempt).map_or(0, |text| text.len() + 1);
    let mut size: usize = dead_letter.attempts.iter().map(bytes).sum();
    let mut drop = 0;
    for attempt in &dead_letter.attempts {
        if size <= MAX_ATTEMPTS {
            break;
        }
        size -= bytes(attempt);
        drop += 1;
    }
    dead_letter.attempts.drain(..drop);
    dead_letter.left_out += drop;
    let mut size = 0;
    dead_letter.headers.retain(|name, values| {
        size += name.len() + values.iter().map(String::len).sum::<usize>();
        size <= MAX_HEADERS
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead_letter(attempts: usize, error: &str) -> DeadLetter {
        let attempt = Attempt::now(Some(Outcome::Trap), Some(500), Blame::Guest, error);
        DeadLetter {
            id: "0123456789abcdef".into(),
            service: "mail".into(),
            digest: "ab".into(),
            function: "shop:orders/events.placed@0.1.0".into(),
            subject: "bay.shop.shop.orders.events.v0_1.placed".into(),
            headers: BTreeMap::from([("Bay-Hops".into(), vec!["1".into()])]),
            stream: "bay_shop_shop_orders_events_v0_1".into(),
            sequence: 7,
            published: "2026-11-22T00:00:00Z".into(),
            attempts: vec![attempt; attempts],
            left_out: 0,
            edited: false,
            moved_to: None,
            size: 2,
            body_left: false,
            revision: 0,
            body: Bytes::new(),
        }
    }

    #[test]
    fn a_record_is_one_line_and_is_read_as_it_was_written() {
        let dead_letter = dead_letter(2, "trap:\n at 0x1\r\n\"quoted\"");
        let text = serde_json::to_string(&dead_letter).unwrap();
        assert!(!text.contains(['\n', '\r']));
        assert_eq!(
            serde_json::from_str::<DeadLetter>(&text).unwrap(),
            dead_letter
        );
    }

    #[test]
    fn a_dead_letter_leaves_out_its_oldest_attempts_and_fits_into_its_room() {
        let mut long = dead_letter(100, &"\"".repeat(MAX_ERROR + 7));
        long.headers = (0..100)
            .map(|n| (format!("h{n}"), vec!["x".repeat(200)]))
            .collect();
        shorten(&mut long);
        assert_eq!(long.left_out + long.attempts.len(), 100);
        assert!(!long.attempts.is_empty());
        let text = serde_json::to_string(&long).unwrap();
        assert!(text.len() < HEADROOM, "{}", text.len());
        let few = dead_letter(3, "small");
        let mut same = few.clone();
        shorten(&mut same);
        assert_eq!(same, few);
    }

    #[test]
    fn a_body_is_shown_as_what_it_is() {
        let shown = |body: &'static [u8]| {
            let dead_letter = DeadLetter {
                body: Bytes::from_static(body),
                revision: 17,
                ..dead_letter(1, "x")
            };
            let text = serde_json::to_string(&dead_letter.with_body()).unwrap();
            assert!(text.contains(r#""revision":17"#), "{text}");
            text.rsplit_once(",\"body").unwrap().1.to_owned()
        };
        assert_eq!(shown(br#"{"b":1.50,"a":2}"#), r#"":{"b":1.50,"a":2}}"#);
        assert_eq!(shown(b"plain"), r#"Text":"plain"}"#);
        assert_eq!(shown(&[255, 0]), r#"Base64":"/wA="}"#);
    }

    #[test]
    fn ids_differ_by_event_and_subscriber() {
        let at = OffsetDateTime::UNIX_EPOCH;
        let id = dead_letter_id("s", 1, at, "mail");
        assert_eq!(id.len(), 16);
        assert_eq!(id, dead_letter_id("s", 1, at, "mail"));
        for other in [
            dead_letter_id("s", 2, at, "mail"),
            dead_letter_id("s", 1, at, "stats"),
            dead_letter_id("s", 1, at + time::Duration::SECOND, "mail"),
        ] {
            assert_ne!(id, other);
        }
    }
}
