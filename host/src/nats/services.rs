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
    let mut answers = Vec::new();
    let all = |answer: &Answer| {
        answers.push(answer.clone());
        None::<()>
    };
    find_service(link, verb, time, all).await?;
    Ok(answers)
}

/// What `look` finds in the first answer in which it finds something, within this time.
///
/// # Errors
///
/// The connection is closed.
pub(crate) async fn find_service<T>(
    link: &Link,
    verb: Verb,
    time: Duration,
    mut look: impl FnMut(&Answer) -> Option<T>,
) -> Result<Option<T>, PublishError> {
    let subject = verb.subject();
    let mut asking = Asking::new(link, subject.as_ref(), Bytes::new(), time).await?;
    while let Some(reply) = asking.next().await {
        // What answers in another way is no service of ADR-32.
        let answer = serde_json::from_slice::<Answer>(&reply.payload).ok();
        if let Some(found) = answer.as_ref().and_then(&mut look) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
