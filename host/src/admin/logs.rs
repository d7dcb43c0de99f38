//! Log records of all hosts of the app.

use std::collections::VecDeque;
use std::time::Duration;

use http::StatusCode;
use serde_json::json as value;

use super::query::bad;
use super::routes::AdminRequest;
use super::{Admin, Answer, Refusal, json, to_json};
use crate::call::Blame;
use crate::interface::is_label;
use crate::logs::{self, LogsError, Wanted};
use crate::manifest::values::parse_duration;

/// Age of the records that are read unless the query says otherwise.
const SINCE: Duration = Duration::from_secs(600);

impl Admin {
    /// The last records, the oldest of them first.
    pub(super) async fn list_logs(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        let query = asked
            .query
            .only(&["service", "host", "trace", "since", "limit"])?;
        let limit = query.limit()?;
        let since = query.value("since", |text| {
            parse_duration(text).ok_or("accepted: a duration such as 90s, 10m, 2h or 1d")
        })?;
        let service = query.text("service").map(str::to_owned);
        // It becomes a token of a subject.
        if service.as_ref().is_some_and(|service| !is_label(service)) {
            return Err(bad("`service`: accepted: the name of a service"));
        }
        let trace = query.text("trace");
        let wanted = Wanted {
            app: Some(self.insight.app.clone()),
            service,
            host: query.text("host").map(str::to_owned),
            since: since.unwrap_or(SINCE),
            follow: false,
        };
        let mut records = VecDeque::new();
        let read = logs::read(&self.context, &wanted, |record| {
            if trace.is_none_or(|trace| record.trace_id.as_deref() == Some(trace)) {
                if records.len() >= limit {
                    records.pop_front();
                }
                records.push_back(record);
            }
            true
        });
        match read.await {
            // Hosts without JetStream, or a login that may not keep records, have none.
            Ok(()) | Err(LogsError::None) => {}
            Err(error @ LogsError::JetStream(_)) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                return Err(Refusal::new(status, Blame::Network, error.to_string()));
            }
        }
        Ok(json(StatusCode::OK, to_json(&value!({ "logs": records }))))
    }
}
