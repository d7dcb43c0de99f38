//! Runs of pipelines over HTTP: the operations of `wasmbay runs` under the same names.

use http::StatusCode;
use serde_json::json as value;

use super::dead_letters::without_content;
use super::routes::AdminRequest;
use super::{Admin, Answer, Refusal, json, to_json};
use crate::call::Blame;
use crate::pipelines::RunError;

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
        Ok(json(
            StatusCode::OK,
            to_json(&self.runs.show(asked.id).await?),
        ))
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
            RunError::State { .. } | RunError::Busy(_) => (StatusCode::CONFLICT, Blame::Caller),
            RunError::Journal(_) => (StatusCode::SERVICE_UNAVAILABLE, Blame::Network),
        };
        Self::new(status, blame, error.to_string())
    }
}
