//! Circuit breakers: a wire whose calls fail too often is not used for a while.
//!
//! A host counts the calls that it sends, whatever they come from: guests' imports, routes, RPC paths and
//! steps. What a breaker decides is [`Circuit`], which is pure; [`Breakers`] has those of an app by subject.
//! A call of a wire without one asks a flag, and a call of a wire with one takes a lock twice.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::by_subject::BySubject;
use crate::call::{Blame, CallError, Code};
use crate::interface::InterfaceId;
use crate::manifest::BreakerPolicy;
use crate::plan;
use crate::subject;

/// Parts of a window; what is older than a window is forgotten by one of them at a time.
const PARTS: usize = 10;

/// The state of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Calls are sent.
    Closed,
    /// None is sent until this time.
    Open(Instant),
    /// One was sent, whose outcome decides.
    Trying,
}

impl State {
    /// As operators read it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open(_) => "open",
            Self::Trying => "trying",
        }
    }
}

/// Counts of calls, in parts of a window, and the state that follows from them. Pure.
#[derive(Debug)]
struct Circuit {
    policy: BreakerPolicy,
    began: Instant,
    /// Calls and failures of each part, of which `at` is the last; parts count from `began`.
    parts: [(u32, u32); PARTS],
    at: u128,
    state: State,
    /// Distinguishes the calls that were sent before it opened from those after.
    generation: u64,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    /// It is sent, and its outcome counts for this generation.
    Sent(u64),
    /// It is not, for this long.
    Refused(Duration),
}

impl Circuit {
    fn new(policy: BreakerPolicy, now: Instant) -> Self {
        Self {
            policy,
            began: now,
            parts: [(0, 0); PARTS],
            at: 0,
            state: State::Closed,
            generation: 0,
        }
    }

    fn admit(&mut self, now: Instant) -> Admission {
        match self.state {
            State::Closed => Admission::Sent(self.generation),
            State::Open(until) if now < until => Admission::Refused(until - now),
            State::Open(_) => {
                self.state = State::Trying;
                self.generation += 1;
                Admission::Sent(self.generation)
            }
            // The one that was sent ends by its deadline at the latest.
            State::Trying => Admission::Refused(Duration::ZERO),
        }
    }

    /// Counts the outcome of a call; returns the state if it is another one now.
    fn record(&mut self, generation: u64, failed: bool, now: Instant) -> Option<State> {
        if generation != self.generation {
            return None;
        }
        match self.state {
            State::Closed => {
                self.forget(now);
                let part = self.parts.last_mut()?;
                part.0 = part.0.saturating_add(1);
                part.1 = part.1.saturating_add(u32::from(failed));
                if !self.is_too_much() {
                    return None;
                }
                self.open(now)
            }
            State::Trying if failed => self.open(now),
            State::Trying => {
                self.parts = [(0, 0); PARTS];
                self.state = State::Closed;
                Some(self.state)
            }
            State::Open(_) => None,
        }
    }

    /// Has the next call tried, as the one that was is lost.
    fn lose(&mut self, generation: u64, now: Instant) {
        if generation == self.generation && self.state == State::Trying {
            self.state = State::Open(now);
        }
    }

    fn open(&mut self, now: Instant) -> Option<State> {
        self.state = State::Open(now + self.policy.open);
        self.generation += 1;
        Some(self.state)
    }

    /// Moves the window up to now.
    fn forget(&mut self, now: Instant) {
        let part = self.policy.window.as_nanos() / PARTS as u128;
        let at = now.saturating_duration_since(self.began).as_nanos() / part.max(1);
        let passed = at.saturating_sub(self.at).min(PARTS as u128);
        for _ in 0..passed {
            self.parts.rotate_left(1);
            if let Some(last) = self.parts.last_mut() {
                *last = (0, 0);
            }
        }
        self.at = self.at.max(at);
    }

    fn counts(&self) -> (u64, u64) {
        let parts = self.parts.iter();
        parts.fold((0, 0), |(calls, failed), part| {
            (calls + u64::from(part.0), failed + u64::from(part.1))
        })
    }

    fn is_too_much(&self) -> bool {
        let (calls, failed) = self.counts();
        calls >= u64::from(self.policy.calls)
            && failed * 10_000 >= calls * u64::from(self.policy.errors.0)
    }
}

/// The breaker of a wire.
pub(crate) struct Breaker {
    /// The interface as the manifest has it.
    pub(crate) wire: InterfaceId,
    policy: BreakerPolicy,
    circuit: Mutex<Circuit>,
    opened: AtomicU64,
    refused: AtomicU64,
    fallbacks: AtomicU64,
}

/// What a breaker has counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BreakerCounts {
    pub(crate) state: State,
    /// How often it opened.
    pub(crate) opened: u64,
    /// Calls that were not sent.
    pub(crate) refused: u64,
    /// Those of them that a fallback answered.
    pub(crate) fallbacks: u64,
}

impl Breaker {
    fn new(planned: &plan::Breaker) -> Self {
        Self {
            wire: planned.wire.clone(),
            policy: planned.policy.clone(),
            circuit: Mutex::new(Circuit::new(planned.policy.clone(), Instant::now())),
            opened: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            fallbacks: AtomicU64::new(0),
        }
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn counts(&self) -> BreakerCounts {
        let state = self.circuit().state;
        BreakerCounts {
            state,
            opened: self.opened.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            fallbacks: self.fallbacks.load(Ordering::Relaxed),
        }
    }

    fn changed(&self, state: Option<State>) {
        let wire = &self.wire;
        match state {
            Some(State::Open(_)) => {
                self.opened.fetch_add(1, Ordering::Relaxed);
                let open = self.policy.open;
                tracing::warn!(%wire, ?open, "too many calls fail: the breaker is open");
            }
            Some(State::Closed) => tracing::info!(%wire, "a call succeeded: the breaker is closed"),
            Some(State::Trying) | None => {}
        }
    }

    fn refuse(&self, wait: Duration) -> CallError {
        let BreakerPolicy { errors, window, .. } = self.policy;
        let wire = &self.wire;
        let next = if wait.is_zero() {
            "one that was sent decides".to_owned()
        } else {
            format!("the next is sent in {} ms", wait.as_millis().max(1))
        };
        CallError::no_responders(format_args!(
            "the breaker of wire {wire} is open: {errors} of its calls within {window:?} had failed; {next}"
        ))
    }
}

/// A call that was sent, whose outcome is to be counted. Dropped, it counts as neither good nor bad.
pub(crate) struct Sent {
    breaker: Arc<Breaker>,
    generation: u64,
    counted: bool,
}

impl Sent {
    /// Counts how the call ended. A caller's own fault says nothing about who answers.
    pub(crate) fn count<T>(mut self, outcome: &Result<T, CallError>) {
        let failed = outcome.as_ref().is_err_and(|error| {
            // A run that goes on has not failed.
            error.blame != Blame::Caller && error.code != Code::Accepted
        });
        let now = Instant::now();
        let changed = self.breaker.circuit().record(self.generation, failed, now);
        self.counted = true;
        self.breaker.changed(changed);
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if !self.counted {
            self.breaker.circuit().lose(self.generation, Instant::now());
        }
    }
}

/// What answers a call that is not sent.
#[derive(Clone, Debug)]
pub(crate) enum Instead {
    /// The function of this subject.
    Subject(String),
    /// This result.
    Json(Bytes),
}

/// What becomes of a call.
pub(crate) enum Passage {
    /// No breaker is on its way.
    Free,
    /// It is sent.
    Sent(Sent),
    /// It is not; what answers instead, and the error if nothing does.
    Refused(Refused),
}

/// A call that is not sent.
pub(crate) struct Refused {
    breaker: Arc<Breaker>,
    instead: Option<Instead>,
    wait: Duration,
}

impl Refused {
    /// What answers instead of the call.
    ///
    /// # Errors
    ///
    /// Nothing does, or `may` it is not used.
    pub(crate) fn instead(self, may: bool) -> Result<Instead, CallError> {
        self.breaker.refused.fetch_add(1, Ordering::Relaxed);
        match self.instead.filter(|_| may) {
            Some(instead) => {
                self.breaker.fallbacks.fetch_add(1, Ordering::Relaxed);
                Ok(instead)
            }
            None => Err(self.breaker.refuse(self.wait)),
        }
    }
}

/// A function behind a breaker.
struct Guarded {
    breaker: Arc<Breaker>,
    instead: Option<Instead>,
}

/// The breakers of an app on a host.
#[derive(Default)]
pub(crate) struct Breakers(BySubject<Guarded>);

impl Breakers {
    /// Replaces the breakers. One whose wire and policy are as before goes on with what it has counted.
    pub(crate) fn apply(&self, app: &str, planned: &[plan::Breaker]) {
        self.0.replace(|before| {
            let mut functions = HashMap::new();
            for planned in planned {
                let mut same = before.values().map(|guarded| &guarded.breaker);
                let same = same.find(|b| b.wire == planned.wire && b.policy == planned.policy);
                let breaker = same.map_or_else(|| Arc::new(Breaker::new(planned)), Arc::clone);
                for (function, instead) in &planned.functions {
                    let instead = instead.as_ref().map(|instead| match instead {
                        plan::Instead::Service(service) => {
                            Instead::Subject(subject::of_service_function(app, service, function))
                        }
                        plan::Instead::Json(text) => Instead::Json(text.clone().into()),
                    });
                    let guarded = Guarded {
                        breaker: Arc::clone(&breaker),
                        instead,
                    };
                    functions.insert(subject::of_function(app, function), guarded);
                }
            }
            functions
        });
    }

    /// What becomes of a call of this subject now.
    pub(crate) fn pass(&self, subject: &str) -> Passage {
        let passage = self.0.read(subject, |Guarded { breaker, instead }| {
            let admission = breaker.circuit().admit(Instant::now());
            let breaker = Arc::clone(breaker);
            match admission {
                Admission::Sent(generation) => Passage::Sent(Sent {
                    breaker,
                    generation,
                    counted: false,
                }),
                Admission::Refused(wait) => Passage::Refused(Refused {
                    breaker,
                    instead: instead.clone(),
                    wait,
                }),
            }
        });
        passage.unwrap_or(Passage::Free)
    }

    /// All breakers, by wire.
    pub(crate) fn all(&self) -> Vec<Arc<Breaker>> {
        let mut all = self.0.all(|guarded| Arc::clone(&guarded.breaker));
        all.sort_by(|one, other| one.wire.cmp(&other.wire));
        all.dedup_by(|one, other| Arc::ptr_eq(one, other));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Percent;

    const MS: Duration = Duration::from_millis(1);

    fn circuit() -> (Circuit, Instant) {
        let began = Instant::now();
        let policy = BreakerPolicy {
            errors: Percent(5_000),
            window: 10_000 * MS,
            calls: 4,
            open: 5_000 * MS,
        };
        (Circuit::new(policy, began), began)
    }

    /// Sends a call and has it end; whether it was sent.
    fn call(circuit: &mut Circuit, failed: bool, now: Instant) -> bool {
        match circuit.admit(now) {
            Admission::Sent(generation) => {
                circuit.record(generation, failed, now);
                true
            }
            Admission::Refused(_) => false,
        }
    }

    #[test]
    fn it_opens_at_the_part_of_enough_calls_and_closes_after_one_that_succeeds() {
        let (mut circuit, began) = circuit();
        for failed in [true, true, false] {
            assert!(call(&mut circuit, failed, began));
        }
        assert_eq!(circuit.state, State::Closed, "three are too few to judge");
        assert!(call(&mut circuit, false, began));
        assert_eq!(circuit.state, State::Open(began + 5_000 * MS));
        assert_eq!(
            circuit.admit(began + 2_000 * MS),
            Admission::Refused(3_000 * MS)
        );
        let later = began + 5_000 * MS;
        // One is sent; until it ends no other is.
        let Admission::Sent(trial) = circuit.admit(later) else {
            panic!("not sent");
        };
        assert_eq!(circuit.admit(later), Admission::Refused(Duration::ZERO));
        assert!(circuit.record(trial, true, later).is_some());
        assert_eq!(circuit.state, State::Open(later + 5_000 * MS));
        let later = later + 5_000 * MS;
        assert!(call(&mut circuit, false, later));
        assert_eq!(circuit.state, State::Closed);
        // What was counted before is forgotten.
        assert!(call(&mut circuit, true, later) && call(&mut circuit, true, later));
        assert_eq!(circuit.state, State::Closed);
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let (mut circuit, began) = circuit();
        for _ in 0..3 {
            call(&mut circuit, true, began);
        }
        let later = began + 10_000 * MS;
        call(&mut circuit, true, later);
        assert_eq!((circuit.state, circuit.counts()), (State::Closed, (1, 1)));
        // Within a window, in several parts of it.
        for part in 1..4 {
            call(&mut circuit, part > 1, later + part * 2_000 * MS);
        }
        assert!(matches!(circuit.state, State::Open(_)));
    }

    #[test]
    fn a_call_from_before_it_opened_does_not_decide_and_a_lost_one_is_tried_again() {
        let (mut circuit, began) = circuit();
        let Admission::Sent(early) = circuit.admit(began) else {
            panic!("not sent");
        };
        for _ in 0..4 {
            call(&mut circuit, true, began);
        }
        let later = began + 5_000 * MS;
        let Admission::Sent(trial) = circuit.admit(later) else {
            panic!("not sent");
        };
        assert_eq!(circuit.record(early, false, later), None);
        assert_eq!(circuit.state, State::Trying);
        circuit.lose(early, later);
        assert_eq!(circuit.state, State::Trying);
        circuit.lose(trial, later);
        assert!(call(&mut circuit, false, later));
        assert_eq!(circuit.state, State::Closed);
    }
}
