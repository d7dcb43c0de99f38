//! The retry policy: a failed attempt at a stored event leads to another one after a wait, or to a
//! dead letter. Pure.

use std::time::Duration;

use crate::call::{Blame, CallError, Code};
use crate::manifest::{Outcome, Retry};

/// The failure of an attempt.
pub(crate) struct Failure {
    /// The outcome that `retry.on` lists; `None` when no attempt can succeed.
    pub(crate) outcome: Option<Outcome>,
    pub(crate) code: Option<Code>,
    pub(crate) blame: Blame,
    pub(crate) error: String,
}

impl Failure {
    /// The guest returned an `err` value.
    pub(crate) fn returned(error: impl Into<String>) -> Self {
        Self {
            outcome: Some(Outcome::Err),
            code: None,
            blame: Blame::Guest,
            error: error.into(),
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let CallError {
            code,
            blame,
            message,
            ..
        } = error;
        let outcome = match code {
            Code::BadArguments | Code::NotFound | Code::TooLarge | Code::TooManyHops => None,
            Code::Trap | Code::Dependency => Some(Outcome::Trap),
            Code::Deadline => Some(Outcome::Timeout),
            Code::Accepted | Code::Overloaded | Code::Unavailable => Some(Outcome::Overload),
        };
        Self {
            outcome,
            code: Some(code),
            blame,
            error: message,
        }
    }
}

/// The next step after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The event is delivered again after this time.
    Retry(Duration),
    /// The event becomes a dead letter.
    DeadLetter,
}

/// The next step after the last of `attempts` failed with `outcome`; `random` is from -1 to 1.
pub(crate) fn next(retry: &Retry, outcome: Option<Outcome>, attempts: u32, random: f64) -> Next {
    let retried = outcome.is_some_and(|outcome| retry.on.contains(&outcome));
    if retried && attempts < retry.attempts {
        Next::Retry(delay(retry, attempts, random))
    } else {
        Next::DeadLetter
    }
}

/// The number of attempts at an event: those that are written down, or the times that it was handed out
/// if those are more. Writing one down can fail, and then only the server has counted it; what ended with
/// its host is among them.
pub(crate) fn tried(written: usize, delivered: i64) -> u32 {
    let written = u32::try_from(written).unwrap_or(u32::MAX);
    written.max(u32::try_from(delivered.max(0)).unwrap_or(u32::MAX))
}

/// The wait after so many failed attempts.
fn delay(retry: &Retry, attempts: u32, random: f64) -> Duration {
    let step = usize::try_from(attempts)
        .unwrap_or(usize::MAX)
        .saturating_sub(1);
    let steps = &retry.backoff;
    let wait = steps
        .get(step)
        .or(steps.last())
        .copied()
        .unwrap_or_default();
    wait.mul_f64(1.0 + random * f64::from(retry.jitter) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_follow_the_backoff_and_its_last_step_repeats() {
        let retry = Retry::default();
        let waits = [1, 2, 3, 4, 900].map(|tried| delay(&retry, tried, 0.0).as_millis());
        assert_eq!(waits, [100, 1_000, 10_000, 10_000, 10_000]);
        assert_eq!(delay(&retry, 2, 1.0).as_millis(), 1_200);
        assert_eq!(delay(&retry, 2, -1.0).as_millis(), 800);
    }

    #[test]
    fn attempts_that_could_not_be_written_down_count() {
        assert_eq!(tried(1, 3), 3);
        // A consumer that was created again has delivered nothing yet.
        assert_eq!(tried(3, 1), 3);
        assert_eq!(tried(1, i64::MAX), u32::MAX);
    }

    #[test]
    fn what_cannot_succeed_is_not_tried_again() {
        for code in crate::call::CODES {
            let failure = Failure::from(CallError::new(code, Blame::Guest, "x"));
            let hopeless = matches!(code.status(), 400 | 404 | 413 | 508);
            assert_eq!(failure.outcome.is_none(), hopeless, "{code:?}");
        }
    }

    #[test]
    fn an_event_is_tried_as_often_as_the_policy_says() {
        let retry = Retry {
            attempts: 3,
            on: vec![Outcome::Trap],
            ..Retry::default()
        };
        let trap = Some(Outcome::Trap);
        let second = Duration::from_secs(1);
        assert_eq!(next(&retry, trap, 2, 0.0), Next::Retry(second));
        assert_eq!(next(&retry, trap, 3, 0.0), Next::DeadLetter);
        assert_eq!(next(&retry, Some(Outcome::Err), 1, 0.0), Next::DeadLetter);
        assert_eq!(next(&retry, None, 1, 0.0), Next::DeadLetter);
    }
}
