//! Whether JetStream is there, which is asked before anything is created in it: a cluster without enough of
//! its servers answers nothing at all, or that it has no leader.

use std::time::Duration;

use async_nats::jetstream::context::AccountErrorKind;
use async_nats::jetstream::{Context, ErrorCode};
use tokio::time::{Instant, sleep};

/// Time for one answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Time between two questions.
const AGAIN: Duration = Duration::from_millis(250);

/// Answers of a cluster that is not complete, or has just begun.
pub(super) const INCOMPLETE: [ErrorCode; 6] = [
    ErrorCode::CLUSTER_INCOMPLETE,
    ErrorCode::CLUSTER_NO_PEERS,
    ErrorCode::CLUSTER_NOT_ACTIVE,
    ErrorCode::CLUSTER_NOT_ASSIGNED,
    ErrorCode::CLUSTER_NOT_AVAILABLE,
    ErrorCode::CLUSTER_NOT_LEADER,
];

/// Why JetStream cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// Nothing answers for it.
    #[error(
        "this NATS system has no JetStream; `nats-server -js` has it, and a leaf node without its own uses that of the \
         domain that `--js-domain` names"
    )]
    Absent,
    /// It is not for the account of the login.
    #[error("JetStream is not enabled for the account of this login")]
    NotForAccount,
    /// Too few servers of its cluster run.
    #[error("JetStream has no leader: more than half of the servers of its cluster have to run")]
    NoLeader,
    /// It may have no leader, or the login may not ask.
    #[error(
        "JetStream does not answer: more than half of the servers of its cluster have to run, and the login needs \
         permission to publish on `$JS.API.>`"
    )]
    Silent,
}

impl Unavailable {
    /// Whether it may be there a moment later, without a change of the configuration.
    #[must_use]
    pub fn may_pass(self) -> bool {
        matches!(self, Self::NoLeader | Self::Silent)
    }

    /// What an answer says; `None` if it does not concern JetStream as a whole.
    fn of(kind: &AccountErrorKind) -> Option<Self> {
        match kind {
            AccountErrorKind::TimedOut | AccountErrorKind::Other => Some(Self::Silent),
            AccountErrorKind::JetStreamUnavailable => Some(Self::Absent),
            AccountErrorKind::JetStream(error) => match error.error_code() {
                ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
                    Some(Self::NotForAccount)
                }
                code if INCOMPLETE.contains(&code) => Some(Self::NoLeader),
                _ => None,
            },
        }
    }
}

/// Waits until JetStream is there, for as long as it may come by itself.
///
/// # Errors
///
/// It is not there, or was not by then.
pub(crate) async fn available(context: &Context, until: Instant) -> Result<(), Unavailable> {
    let mut context = context.clone();
    context.set_timeout(ANSWER);
    let mut is_said = false;
    loop {
        let Err(error) = context.query_account().await else {
            return Ok(());
        };
        let Some(why) = Unavailable::of(&error.kind()) else {
            return Ok(());
        };
        if !why.may_pass() || Instant::now() + AGAIN > until {
            return Err(why);
        }
        if !is_said {
            tracing::warn!("waiting for JetStream: {why}");
            is_said = true;
        }
        sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: u64) -> Option<Unavailable> {
        let error = serde_json::json!({ "code": 503, "err_code": code, "description": "x" });
        Unavailable::of(&AccountErrorKind::JetStream(
            serde_json::from_value(error).unwrap(),
        ))
    }

    #[test]
    fn answers_say_what_is_missing_and_whether_it_may_come() {
        assert_eq!(answered(10_008), Some(Unavailable::NoLeader));
        assert_eq!(answered(10_039), Some(Unavailable::NotForAccount));
        assert_eq!(answered(10_076), Some(Unavailable::NotForAccount));
        assert_eq!(answered(10_003), None);
        let absent = Unavailable::of(&AccountErrorKind::JetStreamUnavailable);
        assert_eq!(absent, Some(Unavailable::Absent));
        assert!(Unavailable::NoLeader.may_pass() && Unavailable::Silent.may_pass());
        assert!(!Unavailable::Absent.may_pass() && !Unavailable::NotForAccount.may_pass());
    }
}
