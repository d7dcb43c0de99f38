//! Jobs over HTTP: the operations of `wasmbay jobs`.

use http::StatusCode;
use serde_json::json as value;

use super::dead_letters::without_content;
use super::routes::AdminRequest;
use super::{Admin, Answer, Refusal, json, to_json};
use crate::call::Blame;
use crate::jobs::JobError;

impl Admin {
    pub(super) async fn list_jobs(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        asked.query.only(&[])?;
        let jobs = self.jobs.list().await?;
        Ok(json(StatusCode::OK, to_json(&value!({ "jobs": jobs }))))
    }

    pub(super) async fn show_job(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        asked.query.only(&[])?;
        let runs = self.jobs.history(asked.id).await?;
        let shown = value!({ "job": asked.id, "runs": runs });
        Ok(json(StatusCode::OK, to_json(&shown)))
    }

    pub(super) async fn run_job(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        asked.query.only(&[])?;
        without_content(asked.request).await?;
        let run = self.jobs.run(asked.id).await?;
        let begun = value!({ "job": asked.id, "run": run });
        Ok(json(StatusCode::ACCEPTED, to_json(&begun)))
    }
}

impl From<JobError> for Refusal {
    fn from(error: JobError) -> Self {
        let (status, blame) = match &error {
            JobError::NotFound { .. } => (StatusCode::NOT_FOUND, Blame::Caller),
            JobError::Busy { .. } | JobError::Always(_) => (StatusCode::CONFLICT, Blame::Caller),
            JobError::Store { .. } => (StatusCode::SERVICE_UNAVAILABLE, Blame::Network),
        };
        Self::new(status, blame, error.to_string())
    }
}
