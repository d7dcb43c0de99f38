//! Who answers a function with another type: asked of discovery when a reply did not decode, so that
//! replies need not say who sent them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::micro::{Answer, Verb};
use crate::nats::{Link, find_service};
use crate::shape::Signature;
use crate::text::shown;

/// Upper bound of the time that a call which has failed waits for the name of the responder.
const LOOKUP: Duration = Duration::from_millis(300);

/// Time for which an answer holds: calls that fail the same way do not ask all services each.
const FRESH: Duration = Duration::from_secs(10);

/// Functions of which an answer is kept.
const MAX_KEPT: usize = 256;

/// What discovery said of functions whose replies did not decode, by subject.
#[derive(Default)]
pub(super) struct Responders(Mutex<HashMap<String, (Instant, Option<String>)>>);

impl Responders {
    /// The service that answers on `subject` with a type that a caller of `wanted` cannot read, as words
    /// for an error.
    pub(super) async fn misfit(
        &self,
        link: &Link,
        subject: &str,
        wanted: &Signature,
        deadline: Instant,
    ) -> Option<String> {
        let now = Instant::now();
        {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.retain(|_, (asked, _)| now < *asked + FRESH);
            if let Some((_, said)) = kept.get(subject) {
                return said.clone();
            }
            if kept.len() >= MAX_KEPT {
                return None;
            }
            // Those that fail meanwhile do not ask as well.
            kept.insert(subject.to_owned(), (now, None));
        }
        let time = LOOKUP.min(deadline.saturating_duration_since(now));
        let said = |answer: &Answer| describe(answer, subject, wanted);
        let found = find_service(link, Verb::Info, time, said).await;
        let found = found.unwrap_or_default();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(subject.to_owned(), (now, found.clone()));
        found
    }
}

/// What of a service's answer explains that its reply cannot be read.
fn describe(answer: &Answer, subject: &str, wanted: &Signature) -> Option<String> {
    let endpoints = answer.endpoints.iter().flatten();
    let mut same = endpoints.filter(|endpoint| endpoint.subject == subject);
    let why = same.find_map(|endpoint| {
        let theirs: Signature = endpoint.metadata.get("signature")?.parse().ok()?;
        wanted.can_call(&theirs).err()
    })?;
    let of = |key: &str| answer.metadata.get(key).map_or("unknown", String::as_str);
    let digest = of("digest");
    Some(format!(
        "it has another type in service \"{}\" (digest {}) on host {}: {why}",
        shown(&answer.name),
        shown(digest.get(..12).unwrap_or(digest)),
        shown(of("host")),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(signature: &str) -> Option<String> {
        let answer = serde_json::from_value(serde_json::json!({
            "type": "io.nats.micro.v1.info_response",
            "name": "stock",
            "id": "h2-stock",
            "version": "0.0.0",
            "metadata": { "host": "h2", "digest": "0123456789abcdef" },
            "endpoints": [{ "name": "get", "subject": "bay.a.get", "metadata": { "signature": signature } }],
        }));
        let wanted = "func(sku: string) -> u32".parse().unwrap();
        describe(&answer.unwrap(), "bay.a.get", &wanted)
    }

    #[test]
    fn the_service_with_another_type_is_named() {
        assert_eq!(
            said("func(sku: string) -> string").unwrap(),
            "it has another type in service \"stock\" (digest 0123456789ab) on host h2: result: a `u32` is expected \
             and a `string` comes"
        );
        assert_eq!(said("func(sku: string) -> u32"), None);
        assert_eq!(said("no signature"), None);
    }
}
