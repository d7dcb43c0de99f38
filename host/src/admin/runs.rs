//! Runs of pipelines over HTTP: the operations of `wasmbay runs` under the same names.

use http::StatusCode;
use serde_json::json as value;

use super::dead_letters::{if_match, tag, without_content};
use super::routes::AdminRequest;
use super::{Admin, Answer, Refusal, json, to_json};
use crate::call::Blame;
use crate::gateway::request::{check_json, read_body};
use crate::pipelines::{Edited, RunError, ShownRun};

impl Admin {
    pub(super) async fn list_runs(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        let asked = asked.query.only(&["all", "pipeline", "limit", "after"])?;
        let (all, limit) = (asked.flag("all")?, asked.limit()?);
        let from = asked.value("after", str::parse::<u64>)?;
        let page = self
            .runs
            .list(all, asked.text("pipeline"), from, limit)
            .await?;
        Ok(json(StatusCode::OK, to_json(&page)))
    }

    pub(super) async fn show_run(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        asked.query.only(&[])?;
        Ok(shown(&self.runs.show(asked.id).await?))
    }

    pub(super) async fn edit_run(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        let AdminRequest {
            request, query, id, ..
        } = asked;
        let query = query.only(&["step", "what"])?;
        let what = match query.text("what") {
            None | Some("undo") => Edited::Undo,
            Some("result") => Edited::Result,
            Some(_) => {
                let why = "what: accepted: undo, result";
                return Err(Refusal::caller(StatusCode::BAD_REQUEST, why));
            }
        };
        let revision = if_match(request.headers())?;
        check_json(request.headers())?;
        let body = read_body(request.body_mut(), self.link.max_payload()).await?;
        let step = query.text("step");
        let run = self.runs.edit(id, step, what, &body, revision).await;
        run.map(|run| shown(&run)).map_err(|error| match error {
            RunError::Changed { .. } if revision.is_some() => {
                Refusal::caller(StatusCode::PRECONDITION_FAILED, error.to_string())
            }
            error => error.into(),
        })
    }

    pub(super) async fn cancel_run(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        let id = alone(asked).await?;
        self.runs.cancel(id).await?;
        Ok(accepted(id))
    }

    pub(super) async fn retry_run(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        let id = alone(asked).await?;
        self.runs.retry(id).await?;
        Ok(accepted(id))
    }

    pub(super) async fn undo_run(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        let id = alone(asked).await?;
        self.runs.undo(id).await?;
        Ok(accepted(id))
    }
}

fn shown(run: &ShownRun) -> Answer {
    let mut answer = json(StatusCode::OK, to_json(run));
    tag(&mut answer, run.revision);
    answer
}

/// The id of a request that has nothing else.
async fn alone(asked: AdminRequest<'_>) -> Result<&str, Refusal> {
    asked.query.only(&[])?;
    without_content(asked.request).await?;
    Ok(asked.id)
}

fn accepted(id: &str) -> Answer {
    json(StatusCode::ACCEPTED, to_json(&value!({ "run": id })))
}

impl From<RunError> for Refusal {
    fn from(error: RunError) -> Self {
        let (status, blame) = match &error {
            RunError::NotFound(_) => (StatusCode::NOT_FOUND, Blame::Caller),
            RunError::NoId(_) => (StatusCode::BAD_REQUEST, Blame::Caller),
            RunError::State { .. } | RunError::Busy(_) | RunError::Changed { .. } => {
                (StatusCode::CONFLICT, Blame::Caller)
            }
            RunError::Misfit { .. } => (StatusCode::BAD_REQUEST, Blame::Caller),
            RunError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, Blame::Caller),
            RunError::Journal(_) => (StatusCode::SERVICE_UNAVAILABLE, Blame::Network),
        };
        Self::new(status, blame, error.to_string())
    }
}
