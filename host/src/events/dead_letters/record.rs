//! What a letter says: the event, the subscriber, and the history of both.

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

/// Bytes of a letter besides its event's body. Publishing an event that is to be stored leaves
/// room for them, so that it still fits when it has become a letter.
pub const HEADROOM: usize = 32 << 10;

/// Bytes of an attempt's error that are kept.
const MAX_ERROR: usize = 4 << 10;

/// Bytes of all attempts of a letter. The oldest are left out when it is more.
const MAX_ATTEMPTS: usize = 20 << 10;

/// Bytes of an event's own headers that are kept.
const MAX_HEADERS: usize = 8 << 10;

/// An event that a subscriber could not handle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// The letter's name: the same for the same event and subscriber.
    pub id: String,
    /// The subscriber.
    pub service: String,
    /// SHA-256 of the component that failed last.
    pub digest: String,
    /// The event's function as `namespace:package/interface.function@version`; for a raw message
    /// the function that handles it.
    pub function: String,
    /// The subject that the event was published on.
    pub subject: String,
    /// The event's headers.
    pub headers: BTreeMap<String, Vec<String>>,
    /// The stream that stored the event.
    pub stream: String,
    /// The event's place in the stream.
    pub sequence: u64,
    /// When the event was stored, as RFC 3339 by the NATS server's clock.
    pub published: String,
    /// The attempts at it, the oldest first.
    pub attempts: Vec<Attempt>,
    /// Attempts that were left out, older than all of those.
    #[serde(default)]
    pub left_out: usize,
    /// Whether the body is another than the event's.
    #[serde(default)]
    pub edited: bool,
    /// What the event would have been published on with the body that it has now, where that is
    /// another partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<String>,
    /// Bytes of the body.
    pub size: usize,
    /// Whether the body did not fit and has to be taken from the stream.
    #[serde(default)]
    pub body_left: bool,
    /// Where the letter is stored: another place each time that something about it changes.
    #[serde(skip)]
    pub revision: u64,
    /// The body; empty in a list.
    #[serde(skip)]
    pub body: Bytes,
}

impl DeadLetter {
    /// Whether it is of a raw message, whose body has no type.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        !subject::is_own(&self.subject)
    }

    /// What it is stored under: by the function that it was for.
    pub(super) fn place(&self, app: &str) -> String {
        let Self {
            service,
            subject,
            function,
            id,
            ..
        } = self;
        match function.parse() {
            Ok(function) if self.is_raw() => {
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
    /// When it ended, as RFC 3339 by the host's clock.
    pub time: String,
    /// How it failed; absent when no attempt could succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The status of the error, absent for an `err` value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Who has to change something.
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

/// The id of the letter that this event is for this service.
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

/// What makes JetStream store a replay of this state of a letter once.
pub(super) fn replay_id(letter: &DeadLetter) -> String {
    let DeadLetter {
        id,
        attempts,
        left_out,
        edited,
        ..
    } = letter;
    let attempts = left_out + attempts.len();
    // An edited letter can be replayed although it has not failed since.
    let edited = match edited {
        true => {
            let body = Sha256::digest(&letter.body);
            hex(body.get(..4).unwrap_or_default())
        }
        false => String::new(),
    };
    format!("replay-{id}-{attempts}{edited}")
}

/// The letter of an event that was replayed and has failed again.
pub(super) fn continued(before: DeadLetter, now: DeadLetter) -> DeadLetter {
    let mut attempts = before.attempts;
    attempts.extend(now.attempts);
    DeadLetter {
        attempts,
        left_out: before.left_out + now.left_out,
        digest: now.digest,
        ..before
    }
}

/// Leaves out what is too much, the oldest attempts first.
pub(super) fn shorten(letter: &mut DeadLetter) {
    let bytes = |attempt: &Attempt| serde_json::to_string(attempt).map_or(0, |text| text.len() + 1);
    let mut size: usize = letter.attempts.iter().map(bytes).sum();
    let mut drop = 0;
    for attempt in &letter.attempts {
        if size <= MAX_ATTEMPTS {
            break;
        }
        size -= bytes(attempt);
        drop += 1;
    }
    letter.attempts.drain(..drop);
    letter.left_out += drop;
    let mut size = 0;
    letter.headers.retain(|name, values| {
        size += name.len() + values.iter().map(String::len).sum::<usize>();
        size <= MAX_HEADERS
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(attempts: usize, error: &str) -> DeadLetter {
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
    fn a_letter_is_one_line_and_is_read_as_it_was_written() {
        let letter = letter(2, "trap:\n at 0x1\r\n\"quoted\"");
        let text = serde_json::to_string(&letter).unwrap();
        assert!(!text.contains(['\n', '\r']));
        assert_eq!(serde_json::from_str::<DeadLetter>(&text).unwrap(), letter);
    }

    #[test]
    fn a_letter_leaves_out_its_oldest_attempts_and_fits_into_its_room() {
        let mut long = letter(100, &"\"".repeat(MAX_ERROR + 7));
        long.headers = (0..100)
            .map(|n| (format!("h{n}"), vec!["x".repeat(200)]))
            .collect();
        shorten(&mut long);
        assert_eq!(long.left_out + long.attempts.len(), 100);
        assert!(!long.attempts.is_empty());
        let text = serde_json::to_string(&long).unwrap();
        assert!(text.len() < HEADROOM, "{}", text.len());
        let few = letter(3, "small");
        let mut same = few.clone();
        shorten(&mut same);
        assert_eq!(same, few);
    }

    #[test]
    fn a_body_is_shown_as_what_it_is() {
        let shown = |body: &'static [u8]| {
            let letter = DeadLetter {
                body: Bytes::from_static(body),
                revision: 17,
                ..letter(1, "x")
            };
            let text = serde_json::to_string(&letter.with_body()).unwrap();
            assert!(text.contains(r#""revision":17"#), "{text}");
            text.rsplit_once(",\"body").unwrap().1.to_owned()
        };
        assert_eq!(shown(br#"{"b":1.50,"a":2}"#), r#"":{"b":1.50,"a":2}}"#);
        assert_eq!(shown(b"plain"), r#"Text":"plain"}"#);
        assert_eq!(shown(&[255, 0]), r#"Base64":"/wA="}"#);
    }

    #[test]
    fn ids_tell_events_and_subscribers_apart() {
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
