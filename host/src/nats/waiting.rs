//! The pending requests of one connection, each in a reusable slot.
//!
//! A token identifies a request: the index of its slot, and the number of requests before it. So the
//! request of a reply is found without a search, and a late reply matches no request.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use async_nats::Subject;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::link::Message;
use super::requests::{MAX_OUTSTANDING, RequestError};
use super::violations::Refusal;

/// Bits of a token for the index of a slot.
const SLOT_BITS: u32 = 16;

const _: () = assert!(MAX_OUTSTANDING <= 1 << SLOT_BITS);

/// Slots that are kept without pending requests; those of a burst are freed.
const KEPT_SLOTS: usize = 1_024;

/// The outcome of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Boxed, since a slot waits far longer than it holds a reply.
    Answered(Box<Message>),
    Overdue,
    Refused(Box<Refusal>),
    Closed,
}

/// The pending requests.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    slots: Mutex<Slots>,
    /// Notified of a deadline before all others.
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Slots {
    closed: bool,
    /// Number of requests so far; no two have the same token.
    count: u64,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Lower bound of the deadlines of pending requests.
    earliest: Option<Instant>,
}

#[derive(Debug)]
struct Slot {
    token: u64,
    /// Where the request went.
    subject: Subject,
    deadline: Option<Instant>,
    state: State,
}

#[derive(Debug)]
enum State {
    Free,
    Waiting(Option<Waker>),
    Ended(Outcome),
}

impl Waiting {
    /// Takes a slot for a request on this subject; returns its token.
    pub(super) fn register(
        &self,
        subject: Subject,
        deadline: Option<Instant>,
    ) -> Result<u64, RequestError> {
        let mut slots = self.lock();
        if slots.closed {
            return Err(RequestError::Closed);
        }
        let token = slots.take(subject, deadline).ok_or(RequestError::TooMany {
            limit: MAX_OUTSTANDING,
        })?;
        if let Some(deadline) = deadline
            && slots.earliest.is_none_or(|earliest| deadline < earliest)
        {
            slots.earliest = Some(deadline);
            drop(slots);
            self.earlier.notify_one();
        }
        Ok(token)
    }

    /// The outcome of a request, if it has ended; then its slot is free again.
    pub(super) fn poll(&self, token: u64, waker: &Waker) -> Option<Outcome> {
        let mut slots = self.lock();
        let Some(slot) = slots.find(token) else {
            return Some(Outcome::Closed);
        };
        if let State::Waiting(known) = &mut slot.state {
            match known {
                Some(known) => known.clone_from(waker),
                None => *known = Some(waker.clone()),
            }
            return None;
        }
        match slots.release(token) {
            State::Ended(outcome) => Some(outcome),
            State::Free | State::Waiting(_) => Some(Outcome::Closed),
        }
    }

    /// Frees the slot of a dropped request.
    pub(super) fn forget(&self, token: u64) {
        let state = self.lock().release(token);
        // A message is freed outside of the lock.
        drop(state);
    }

    /// Ends a pending request with its reply.
    pub(super) fn answer(&self, token: u64, message: Message) {
        let waker = self.lock().end(token, Outcome::Answered(Box::new(message)));
        wake(waker);
    }

    /// Ends the requests whose deadline has passed.
    pub(super) fn expire(&self, now: Instant) {
        let mut slots = self.lock();
        let mut overdue = Vec::new();
        let mut earliest = None;
        for slot in &slots.slots {
            let (State::Waiting(_), Some(deadline)) = (&slot.state, slot.deadline) else {
                continue;
            };
            if deadline <= now {
                overdue.push(slot.token);
            } else if earliest.is_none_or(|earliest| deadline < earliest) {
                earliest = Some(deadline);
            }
        }
        slots.earliest = earliest;
        let wakers: Vec<_> = overdue
            .into_iter()
            .map(|token| slots.end(token, Outcome::Overdue))
            .collect();
        drop(slots);
        wakers.into_iter().for_each(wake);
    }

    /// Ends the requests on a subject that the server refuses. Which of them it refused is not known, and
    /// it refuses all.
    pub(super) fn refuse(&self, refusal: &Refusal) {
        let mut slots = self.lock();
        let refused = slots.slots.iter().filter(|slot| {
            matches!(slot.state, State::Waiting(_)) && *slot.subject == *refusal.subject
        });
        let refused: Vec<_> = refused.map(|slot| slot.token).collect();
        let outcome = || Outcome::Refused(Box::new(refusal.clone()));
        let wakers: Vec<_> = refused
            .into_iter()
            .map(|token| slots.end(token, outcome()))
            .collect();
        drop(slots);
        wakers.into_iter().for_each(wake);
    }

    /// Ends all requests, and refuses further ones.
    pub(super) fn close(&self) {
        let mut slots = self.lock();
        slots.closed = true;
        let tokens: Vec<_> = slots.slots.iter().map(|slot| slot.token).collect();
        let wakers: Vec<_> = tokens
            .into_iter()
            .map(|token| slots.end(token, Outcome::Closed))
            .collect();
        drop(slots);
        wakers.into_iter().for_each(wake);
    }

    /// Number of pending requests.
    pub(super) fn len(&self) -> usize {
        self.lock().taken()
    }

    /// Lower bound of the deadlines of pending requests.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.lock().earliest
    }

    /// Waits until [`Self::earliest`] is earlier than it was.
    ///
    /// # Cancel safety
    ///
    /// A notification without a waiting task reaches the next one.
    pub(super) async fn earlier(&self) {
        self.earlier.notified().await;
    }

    /// No code under the lock can panic, so the data of a poisoned one is valid.
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    fn taken(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn take(&mut self, subject: Subject, deadline: Option<Instant>) -> Option<u64> {
        let at = match self.free.pop() {
            Some(at) => at,
            None if self.slots.len() >= MAX_OUTSTANDING => return None,
            None => {
                self.slots.push(Slot {
                    token: 0,
                    subject: Subject::from_static(""),
                    deadline: None,
                    state: State::Free,
                });
                self.slots.len() - 1
            }
        };
        let token = self.count << SLOT_BITS | at as u64;
        // 2^48 requests at a million a second are nine years; then tokens begin anew.
        self.count = self.count.wrapping_add(1);
        *self.slots.get_mut(at)? = Slot {
            token,
            subject,
            deadline,
            state: State::Waiting(None),
        };
        Some(token)
    }

    /// The slot of a pending request.
    fn find(&mut self, token: u64) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(at(token))?;
        (slot.token == token && !matches!(slot.state, State::Free)).then_some(slot)
    }

    /// Ends a pending request; returns the waker of its task.
    fn end(&mut self, token: u64, outcome: Outcome) -> Option<Waker> {
        let slot = self.find(token)?;
        match &mut slot.state {
            State::Waiting(waker) => {
                let waker = waker.take();
                slot.state = State::Ended(outcome);
                waker
            }
            State::Free | State::Ended(_) => None,
        }
    }

    fn release(&mut self, token: u64) -> State {
        let Some(slot) = self.find(token) else {
            return State::Free;
        };
        let state = std::mem::replace(&mut slot.state, State::Free);
        self.free.push(at(token));
        if self.taken() == 0 && self.slots.len() > KEPT_SLOTS {
            self.slots = Vec::new();
            self.free = Vec::new();
        }
        state
    }
}

fn at(token: u64) -> usize {
    usize::try_from(token & ((1 << SLOT_BITS) - 1)).unwrap_or(usize::MAX)
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats::Action;
    use std::time::Duration;

    fn poll(waiting: &Waiting, token: u64) -> Option<Outcome> {
        waiting.poll(token, Waker::noop())
    }

    fn register(waiting: &Waiting, deadline: Option<Instant>) -> Result<u64, RequestError> {
        waiting.register(Subject::from_static("to"), deadline)
    }

    fn message(text: &'static str) -> Message {
        Message {
            subject: "to".into(),
            reply: None,
            payload: text.into(),
            headers: None,
            status: None,
            malformed: None,
            length: 0,
        }
    }

    #[test]
    fn a_slot_is_reused_and_a_late_reply_matches_no_request() {
        let waiting = Waiting::default();
        let first = register(&waiting, None).unwrap();
        assert!(poll(&waiting, first).is_none());
        waiting.forget(first);
        let second = register(&waiting, None).unwrap();
        assert_eq!((at(first), waiting.len()), (at(second), 1));
        waiting.answer(first, message("late"));
        assert!(poll(&waiting, second).is_none());
        waiting.answer(second, message("now"));
        waiting.answer(second, message("twice"));
        match poll(&waiting, second) {
            Some(Outcome::Answered(message)) => assert_eq!(message.payload, "now"),
            other => panic!("{other:?}"),
        }
        assert_eq!(waiting.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn each_request_ends_at_its_own_deadline() {
        let waiting = Waiting::default();
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let late = register(&waiting, Some(after(9))).unwrap();
        let soon = register(&waiting, Some(after(2))).unwrap();
        let never = register(&waiting, None).unwrap();
        assert_eq!(waiting.earliest(), Some(after(2)));
        waiting.expire(after(1));
        assert!(poll(&waiting, soon).is_none());
        waiting.expire(after(2));
        assert!(matches!(poll(&waiting, soon), Some(Outcome::Overdue)));
        assert_eq!(waiting.earliest(), Some(after(9)));
        waiting.expire(after(9));
        assert!(matches!(poll(&waiting, late), Some(Outcome::Overdue)));
        assert_eq!((waiting.earliest(), waiting.len()), (None, 1));
        waiting.close();
        assert!(matches!(poll(&waiting, never), Some(Outcome::Closed)));
        assert_eq!(register(&waiting, None), Err(RequestError::Closed));
    }

    #[test]
    fn requests_on_a_refused_subject_end() {
        let waiting = Waiting::default();
        let token = register(&waiting, None).unwrap();
        let refuse = |subject: &str| {
            waiting.refuse(&Refusal {
                action: Action::Publish,
                subject: subject.to_owned(),
            });
        };
        refuse("t");
        assert!(poll(&waiting, token).is_none());
        refuse("to");
        match poll(&waiting, token) {
            Some(Outcome::Refused(refusal)) => assert_eq!(refusal.subject, "to"),
            other => panic!("{other:?}"),
        }
        assert_eq!(waiting.len(), 0);
    }

    #[test]
    fn so_many_may_wait_and_their_slots_are_freed() {
        let waiting = Waiting::default();
        let all: Vec<_> = (0..MAX_OUTSTANDING)
            .map(|_| register(&waiting, None).unwrap())
            .collect();
        let one_more = register(&waiting, None);
        let limit = MAX_OUTSTANDING;
        assert_eq!(one_more, Err(RequestError::TooMany { limit }));
        all.iter().for_each(|token| waiting.forget(*token));
        assert_eq!((waiting.len(), waiting.lock().slots.len()), (0, 0));
        register(&waiting, None).unwrap();
    }
}
