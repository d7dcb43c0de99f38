//! Asking the NATS micro services of a system, of which there may be none or many.

use std::time::Duration;

use async_nats::{Client, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

use crate::micro::{Answer, Verb};

/// The answers of all services that come within this time; none at once where nothing would answer.
///
/// # Errors
///
/// The connection is closed.
pub(crate) async fn ask_services(
    client: &Client,
    verb: Verb,
    time: Duration,
) -> Result<Vec<Answer>, async_nats::Error> {
    let mut answers = Vec::new();
    let all = |answer: &Answer| {
        answers.push(answer.clone());
        None::<()>
    };
    find_service(client, verb, time, all).await?;
    Ok(answers)
}

/// What `look` finds in the first answer in which it finds something, within this time.
///
/// # Errors
///
/// The connection is closed.
pub(crate) async fn find_service<T>(
    client: &Client,
    verb: Verb,
    time: Duration,
    mut look: impl FnMut(&Answer) -> Option<T>,
) -> Result<Option<T>, async_nats::Error> {
    let last = Instant::now() + time;
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(inbox.clone()).await?;
    client
        .publish_with_reply(verb.subject(), inbox, Bytes::new())
        .await?;
    while let Ok(Some(reply)) = timeout_at(last, replies.next()).await {
        if reply.status == Some(StatusCode::NO_RESPONDERS) {
            break;
        }
        // What answers in another way is no service of ADR-32.
        let answer = serde_json::from_slice::<Answer>(&reply.payload).ok();
        if let Some(found) = answer.as_ref().and_then(&mut look) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
