//! Dead letters over HTTP: the operations of `wasmbay dlq` under the same names.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ETAG, IF_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::json as value;

use super::routes::AdminRequest;
use super::{Admin, Answer, Refusal, TIMEOUT, json, to_json};
use crate::call::Blame;
use crate::events::dead_letters::{Cursor, DeadLetter, DeadLetterError, Filter, Pace};
use crate::gateway::connection::Received;
use crate::gateway::request::{check_json, read_body};
use crate::interface::FunctionId;
use crate::shape::Signature;
use crate::wire::ErrorDetail;

/// Time between the end of the replays of one request and its timeout: the rest is answered as
/// `next`.
const SPARE: Duration = Duration::from_secs(10);

/// The answer to a request to replay many.
#[derive(Serialize)]
struct Replayed {
    replayed: Vec<String>,
    failed: Vec<Failed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Cursor>,
}

#[derive(Serialize)]
struct Failed {
    id: String,
    error: ErrorDetail,
}

impl Admin {
    pub(super) async fn list(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        let asked = asked
            .query
            .only(&["service", "function", "limit", "after"])?;
        let (filter, limit) = (asked.filter()?, asked.limit()?);
        let from = asked.value("after", str::parse::<Cursor>)?;
        let page = self.dead_letters.list(&filter, from, limit).await?;
        Ok(json(StatusCode::OK, to_json(&page)))
    }

    pub(super) async fn show(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        asked.query.only(&[])?;
        Ok(shown(&self.dead_letters.get(asked.id).await?))
    }

    pub(super) async fn edit(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        let AdminRequest {
            request, query, id, ..
        } = asked;
        query.only(&[])?;
        let expected = if_match(request.headers())?;
        let limit = self.link.max_payload();
        let dead_letter = self.dead_letters.find(id).await?;
        // A message may be anything. No browser sends a PUT for a page of another origin.
        if !dead_letter.is_message() {
            check_json(request.headers())?;
        }
        let body = read_body(request.body_mut(), limit).await?;
        if expected.is_some_and(|expected| expected != dead_letter.revision) {
            let (id, now) = (&dead_letter.id, dead_letter.revision);
            let why = format!("dead letter \"{id}\" is at revision {now} by now; look at it again");
            return Err(Refusal::caller(StatusCode::PRECONDITION_FAILED, why));
        }
        let fallback = async { self.deployed_type(&dead_letter) };
        Ok(shown(
            &self.dead_letters.edit(&dead_letter, body, fallback).await?,
        ))
    }

    /// The type of the dead letter's event in the current deployment.
    fn deployed_type(&self, dead_letter: &DeadLetter) -> Option<Signature> {
        let function: FunctionId = dead_letter.function.parse().ok()?;
        let deployment = self.insight.current.get();
        let wire = deployment.plan.event_wire(&function.interface)?;
        Some(wire.functions.get(&function.name)?.signature.clone())
    }

    pub(super) async fn replay(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        let AdminRequest {
            request, query, id, ..
        } = asked;
        query.only(&[])?;
        without_content(request).await?;
        self.dead_letters.replay(id).await?;
        let replayed = value!({ "replayed": [id] });
        Ok(json(StatusCode::ACCEPTED, to_json(&replayed)))
    }

    pub(super) async fn replay_many(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        let AdminRequest {
            request,
            query,
            started,
            ..
        } = asked;
        let asked = query.only(&["all", "service", "function", "rate", "limit", "after"])?;
        let (filter, limit) = (asked.required_filter()?, asked.limit()?);
        let from = asked.value("after", str::parse::<Cursor>)?;
        let mut pace = Pace::new(asked.value("rate", Pace::rate)?);
        without_content(request).await?;
        let until = started + TIMEOUT.saturating_sub(SPARE);
        let dead_letters = &self.dead_letters;
        let replays = dead_letters.replay_all(&filter, from, limit, &mut pace, Some(until));
        let replays = replays.await?;
        let failed = replays.failed.into_iter().map(|(id, error)| Failed {
            id,
            error: Refusal::from(error).body().error,
        });
        let answer = Replayed {
            replayed: replays.replayed,
            failed: failed.collect(),
            next: replays.next,
        };
        Ok(json(StatusCode::ACCEPTED, to_json(&answer)))
    }

    pub(super) async fn purge(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        let AdminRequest {
            request, query, id, ..
        } = asked;
        query.only(&[])?;
        without_content(request).await?;
        match self.dead_letters.purge(&Filter::only(id)).await? {
            0 => Err(DeadLetterError::NotFound { id: id.to_owned() }.into()),
            purged => Ok(json(StatusCode::OK, to_json(&value!({ "purged": purged })))),
        }
    }

    pub(super) async fn purge_many(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        let AdminRequest { request, query, .. } = asked;
        let filter = query
            .only(&["all", "service", "function"])?
            .required_filter()?;
        without_content(request).await?;
        let purged = self.dead_letters.purge(&filter).await?;
        Ok(json(StatusCode::OK, to_json(&value!({ "purged": purged }))))
    }
}

/// One dead letter, with its revision as the ETag for a later `If-Match`.
fn shown(dead_letter: &DeadLetter) -> Answer {
    let mut answer = json(StatusCode::OK, to_json(&dead_letter.with_body()));
    tag(&mut answer, dead_letter.revision);
    answer
}

/// Says in an answer which revision it shows.
pub(super) fn tag(answer: &mut Answer, revision: u64) {
    // Digits in quotes are always a header's value.
    if let Ok(tag) = HeaderValue::try_from(format!("\"{revision}\"")) {
        answer.headers_mut().insert(ETAG, tag);
    }
}

/// The revision of `If-Match`; any without one.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let Some(tag) = headers.get(IF_MATCH) else {
        return Ok(None);
    };
    let tag = tag.to_str().unwrap_or_default().trim();
    if tag == "*" {
        return Ok(None);
    }
    let revision = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    match revision.and_then(|revision| revision.parse().ok()) {
        Some(revision) => Ok(Some(revision)),
        None => Err(Refusal::caller(
            StatusCode::BAD_REQUEST,
            "If-Match: accepted: the ETag of what is edited, such as \"17\"",
        )),
    }
}

/// Refuses a body where none means anything. A browser's form has a type even without one.
pub(super) async fn without_content(request: &mut Received) -> Result<(), Refusal> {
    check_json(request.headers())?;
    read_body(request.body_mut(), 0).await.map(|_: Bytes| ())
}

impl From<DeadLetterError> for Refusal {
    fn from(error: DeadLetterError) -> Self {
        let (status, blame) = match &error {
            DeadLetterError::NotFound { .. } | DeadLetterError::NoId(_) => {
                (StatusCode::NOT_FOUND, Blame::Caller)
            }
            DeadLetterError::NoBody { .. } => (StatusCode::GONE, Blame::Caller),
            DeadLetterError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, Blame::Caller),
            DeadLetterError::Changed { .. } => (StatusCode::CONFLICT, Blame::Caller),
            DeadLetterError::Misfit { .. } => (StatusCode::BAD_REQUEST, Blame::Caller),
            DeadLetterError::Untyped { .. } => (StatusCode::CONFLICT, Blame::Host),
            DeadLetterError::Unreadable(_) => (StatusCode::INTERNAL_SERVER_ERROR, Blame::Host),
            DeadLetterError::Store { .. } => (StatusCode::SERVICE_UNAVAILABLE, Blame::Network),
        };
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(why) = cause {
            message = format!("{message}: {why}");
            cause = why.source();
        }
        Self::new(status, blame, message)
    }
}
