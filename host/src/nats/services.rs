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
    let last = Instant::now() + time;
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(inbox.clone()).await?;
    client
        .publish_with_reply(verb.subject(), inbox, Bytes::new())
        .await?;
    let mut answers = Vec::new();
    while let Ok(Some(reply)) = timeout_at(last, replies.next()).await {
        if reply.status == Some(StatusCode::NO_RESPONDERS) {
            break;
        }
        // What answers in another way is no service of ADR-32.
        answers.extend(serde_json::from_slice::<Answer>(&reply.payload));
    }
    Ok(answers)
}
