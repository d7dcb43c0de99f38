//! A run of a job: its attempts, and what comes next. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::manifest::{JobSpec, When};
use crate::text::one_line;

/// Attempts of a run that are kept.
const MAX_ATTEMPTS: usize = 10;

/// Those whose output is kept.
const MAX_OUTPUTS: usize = 2;

/// Hosts that may be lost with a run: one that takes its host with it ends some time.
const MAX_LOST: u32 = 5;

/// Time after which a job that is always to run has begun well: the waits begin anew.
const STEADY: Duration = Duration::from_secs(60);

/// Bytes of the reason of a failure.
const MAX_WHY: usize = 1 << 10;

/// A run of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Run {
    /// Its id, which no other run of the job has.
    pub id: String,
    /// The job.
    pub job: String,
    /// What began it.
    pub cause: Cause,
    /// When it was due, in milliseconds since 1970.
    pub due: u64,
    /// Times before that which were missed, because no host was there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed: u32,
    /// The last attempts.
    #[serde(default)]
    pub attempts: Vec<Attempt>,
    /// Attempts that counted.
    #[serde(default)]
    pub tried: u32,
    /// Hosts that were lost with it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u32,
    /// When the next attempt begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Who wrote it last.
    #[serde(default)]
    pub(super) owner: String,
}

/// What began a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Cause {
    /// Its time.
    Schedule,
    /// A deployment.
    Deploy,
    /// An operator.
    Request,
    /// It is always to run.
    Always,
}

/// An attempt of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Attempt {
    /// Counts the attempts of the run from 1, those included that do not count.
    pub number: u32,
    /// The host.
    pub host: String,
    /// When it began, in milliseconds since 1970.
    pub began: u64,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The status with which it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The last lines that it printed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
}

/// How an attempt or a run has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// `run` returned without an error, or the status was 0.
    Succeeded,
    /// `run` returned an error, or the status was another one.
    Failed,
    /// It trapped.
    Trapped,
    /// It took longer than `limits.timeout`.
    TimedOut,
    /// No instance of it could be had.
    NotStarted,
    /// Its host fell silent.
    Lost,
    /// Its host stopped before it had ended.
    Interrupted,
    /// It was always to run, and was deployed anew.
    Replaced,
    /// Another run of the job was under way.
    Skipped,
}

impl Outcome {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Trapped => "trapped",
            Self::TimedOut => "timed-out",
            Self::NotStarted => "not-started",
            Self::Lost => "lost",
            Self::Interrupted => "interrupted",
            Self::Replaced => "replaced",
            Self::Skipped => "skipped",
        }
    }

    /// Whether an attempt that ended so counts.
    fn counts(self) -> bool {
        !matches!(self, Self::Lost | Self::Interrupted | Self::Replaced)
    }
}

/// How an attempt went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tried {
    pub(super) outcome: Outcome,
    pub(super) exit: Option<i32>,
    pub(super) why: Option<String>,
    pub(super) output: Vec<String>,
}

impl Tried {
    /// One of which nothing is known but how it ended.
    pub(super) fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            exit: None,
            why: None,
            output: Vec::new(),
        }
    }
}

/// What comes next in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// An attempt.
    Attempt,
    /// The next attempt, at this time.
    Wait(u64),
    /// Nothing: it has ended.
    Ended,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The id of a run that begins then, in milliseconds since 1970; unique among those of a job's schedule.
pub(super) fn id_at(millis: u64) -> String {
    let seconds = i64::try_from(millis / 1_000).unwrap_or_default();
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

impl Run {
    /// A run that nobody has begun.
    pub(super) fn new(id: String, job: &str, cause: Cause, due: u64) -> Self {
        Self {
            id,
            job: job.to_owned(),
            cause,
            due,
            missed: 0,
            attempts: Vec::new(),
            tried: 0,
            lost: 0,
            next: None,
            ended: None,
            outcome: None,
            owner: String::new(),
        }
    }

    /// The same, which is not begun since another one is under way.
    pub(super) fn skipped(mut self, other: &str, host: &str, now: u64) -> Self {
        self.attempts.push(Attempt {
            number: 0,
            host: host.to_owned(),
            began: now,
            ended: Some(now),
            outcome: Some(Outcome::Skipped),
            exit: None,
            why: Some(format!("run {other} was under way")),
            output: Vec::new(),
        });
        self.end(Outcome::Skipped, now);
        self
    }

    /// The attempt that is under way.
    #[must_use]
    pub fn current(&self) -> Option<&Attempt> {
        self.attempts.last().filter(|last| last.ended.is_none())
    }

    /// Makes this its owner. What was under way was another one's, which is lost.
    pub(super) fn take(&mut self, owner: &str, spec: &JobSpec, now: u64) {
        owner.clone_into(&mut self.owner);
        if self.current().is_some() {
            self.record(Tried::of(Outcome::Lost), spec, now);
        }
    }

    /// What comes next.
    pub(super) fn next(&self, now: u64) -> Next {
        match self.next {
            _ if self.ended.is_some() => Next::Ended,
            Some(next) if next > now => Next::Wait(next),
            _ => Next::Attempt,
        }
    }

    /// Begins an attempt.
    pub(super) fn begin(&mut self, host: &str, now: u64) {
        self.next = None;
        let before = self.attempts.last().map_or(0, |last| last.number);
        self.attempts.push(Attempt {
            number: before.saturating_add(1),
            host: host.to_owned(),
            began: now,
            ended: None,
            outcome: None,
            exit: None,
            why: None,
            output: Vec::new(),
        });
        let surplus = self.attempts.len().saturating_sub(MAX_ATTEMPTS);
        self.attempts.drain(..surplus);
    }

    /// Records how the attempt under way went, and decides what follows.
    pub(super) fn record(&mut self, tried: Tried, spec: &JobSpec, now: u64) {
        let outcome = tried.outcome;
        let Some(attempt) = self.attempts.last_mut() else {
            return;
        };
        attempt.ended = Some(now);
        attempt.outcome = Some(outcome);
        attempt.exit = tried.exit;
        attempt.why = tried.why.map(|why| one_line(&why, MAX_WHY).into_owned());
        attempt.output = tried.output;
        let took = Duration::from_millis(now.saturating_sub(attempt.began));
        let older = self.attempts.len().saturating_sub(MAX_OUTPUTS);
        for attempt in self.attempts.iter_mut().take(older) {
            attempt.output = Vec::new();
        }
        if outcome == Outcome::Lost {
            self.lost = self.lost.saturating_add(1);
        }
        if outcome.counts() {
            self.tried = self.tried.saturating_add(1);
        }
        if spec.when == When::Always {
            if !outcome.counts() || took >= STEADY {
                self.tried = u32::from(outcome.counts());
            }
            self.next = outcome.counts().then(|| self.again(spec, now));
            return;
        }
        match outcome {
            Outcome::Succeeded => self.end(outcome, now),
            Outcome::Lost if self.lost >= MAX_LOST => self.end(outcome, now),
            _ if !outcome.counts() => {}
            _ if self.tried >= spec.retry.attempts => self.end(outcome, now),
            _ => self.next = Some(self.again(spec, now)),
        }
    }

    /// When the next attempt begins after one that counted.
    fn again(&self, spec: &JobSpec, now: u64) -> u64 {
        let before = usize::try_from(self.tried.saturating_sub(1)).unwrap_or(usize::MAX);
        let waits = &spec.retry.backoff;
        let wait = waits.get(before).or(waits.last()).copied();
        let wait = wait.unwrap_or_default().as_millis();
        now.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    fn end(&mut self, outcome: Outcome, now: u64) {
        self.outcome = Some(outcome);
        self.ended = Some(now);
        self.next = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{JobKeep, JobRetry};

    fn spec(when: When, attempts: u32, backoff: &[u64]) -> JobSpec {
        JobSpec {
            when,
            retry: JobRetry {
                attempts,
                backoff: backoff.iter().copied().map(Duration::from_secs).collect(),
            },
            keep: JobKeep::default(),
        }
    }

    fn run() -> Run {
        Run::new("r".to_owned(), "report", Cause::Schedule, 0)
    }

    fn attempt(run: &mut Run, outcome: Outcome, spec: &JobSpec, now: u64) {
        assert_eq!(run.next(now), Next::Attempt);
        run.begin("a", now);
        run.record(Tried::of(outcome), spec, now);
    }

    #[test]
    fn a_run_that_succeeds_has_ended() {
        let (mut run, spec) = (run(), spec(When::Request, 3, &[1]));
        attempt(&mut run, Outcome::Succeeded, &spec, 7);
        assert_eq!(
            (run.next(7), run.outcome),
            (Next::Ended, Some(Outcome::Succeeded))
        );
        assert_eq!((run.ended, run.tried), (Some(7), 1));
    }

    #[test]
    fn a_run_that_fails_is_tried_after_its_waits_and_then_ends_as_it_failed_last() {
        let (mut run, spec) = (run(), spec(When::Request, 4, &[1, 10]));
        attempt(&mut run, Outcome::Failed, &spec, 0);
        assert_eq!(
            (run.next(999), run.next(1_000)),
            (Next::Wait(1_000), Next::Attempt)
        );
        attempt(&mut run, Outcome::Trapped, &spec, 1_000);
        assert_eq!(run.next(1_000), Next::Wait(11_000));
        attempt(&mut run, Outcome::TimedOut, &spec, 11_000);
        // The last wait repeats.
        assert_eq!(run.next(11_000), Next::Wait(21_000));
        attempt(&mut run, Outcome::NotStarted, &spec, 21_000);
        assert_eq!(
            (run.next(21_000), run.outcome),
            (Next::Ended, Some(Outcome::NotStarted))
        );
        let numbers: Vec<_> = run.attempts.iter().map(|attempt| attempt.number).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
    }

    #[test]
    fn attempts_whose_host_was_lost_or_stopped_do_not_count_but_hosts_are_not_lost_for_ever() {
        let (mut run, spec) = (run(), spec(When::Request, 1, &[1]));
        for _ in 0..20 {
            attempt(&mut run, Outcome::Interrupted, &spec, 0);
        }
        for lost in 1..MAX_LOST {
            run.begin("a", 0);
            run.take("another", &spec, 0);
            assert_eq!((run.lost, run.next(0)), (lost, Next::Attempt));
        }
        run.begin("a", 0);
        run.take("another", &spec, 0);
        assert_eq!(
            (run.next(0), run.outcome),
            (Next::Ended, Some(Outcome::Lost))
        );
        assert_eq!((run.tried, run.attempts.len()), (0, MAX_ATTEMPTS));
    }

    #[test]
    fn who_takes_a_run_that_waits_goes_on_waiting() {
        let (mut run, spec) = (run(), spec(When::Request, 2, &[60]));
        attempt(&mut run, Outcome::Failed, &spec, 0);
        run.take("another", &spec, 5);
        assert_eq!(
            (run.next(5), run.tried, run.lost),
            (Next::Wait(60_000), 1, 0)
        );
    }

    #[test]
    fn what_is_always_to_run_never_ends_and_waits_longer_until_it_was_steady() {
        let (mut run, spec) = (run(), spec(When::Always, 1, &[1, 2]));
        attempt(&mut run, Outcome::Succeeded, &spec, 0);
        assert_eq!(run.next(0), Next::Wait(1_000));
        attempt(&mut run, Outcome::Trapped, &spec, 1_000);
        assert_eq!(run.next(1_000), Next::Wait(3_000));
        run.begin("a", 3_000);
        run.record(Tried::of(Outcome::Failed), &spec, 63_000);
        assert_eq!(run.next(63_000), Next::Wait(64_000));
        attempt(&mut run, Outcome::Replaced, &spec, 64_000);
        assert_eq!((run.next(64_000), run.tried), (Next::Attempt, 0));
        for _ in 0..9 {
            attempt(&mut run, Outcome::Lost, &spec, 64_000);
        }
        assert_eq!(run.next(64_000), Next::Attempt);
    }

    #[test]
    fn the_output_of_the_last_attempts_is_kept() {
        let (mut run, spec) = (run(), spec(When::Request, 9, &[1]));
        for _ in 0..4 {
            run.begin("a", 0);
            let output = vec!["line".to_owned()];
            let tried = Tried {
                output,
                ..Tried::of(Outcome::Failed)
            };
            run.record(tried, &spec, 0);
        }
        let kept: Vec<_> = run.attempts.iter().map(|a| a.output.len()).collect();
        assert_eq!(kept, [0, 0, 1, 1]);
    }

    #[test]
    fn an_id_is_the_time_in_utc() {
        assert_eq!(id_at(1_796_083_200_999), "20261201T000000Z");
        assert_eq!(id_at(0), "19700101T000000Z");
    }
}
