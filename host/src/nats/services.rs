//! Asking the NATS micro services of a system, of which there may be none or many.

use std::time::Duration;

use bytes::Bytes;

use super::link::{Asking, Link, PublishError};
use crate::micro::{Answer, Verb};

/// The answers of all services that come within this time; none at once where nothing would answer.
///
/// # Errors
///
/// The connection is closed.
pub(crate) async fn ask_services(
    link: &Link,
    verb: Verb,
    time: Duration,
) -> Result<Vec<Answer>, PublishError> {
    let subject = verb.subject();
    let mut asking = Asking::new(link, subject.as_ref(), Bytes::new(), time).await?;
    let mut answers = Vec::new();
    while let Some(reply) = asking.next().await {
        // What answers in another way is no service of ADR-32.
        answers.extend(serde_json::from_slice::<Answer>(&reply.payload));
    }
    Ok(answers)
}
