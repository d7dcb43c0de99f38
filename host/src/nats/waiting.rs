//! The requests of one connection that wait for their reply, each in a place that is used again.
//!
//! A token names a request: the number of its place, and how many requests there were before it. So
//! a reply is found without a search, and a late one for a request that is gone finds nobody.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use async_nats::Message;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::requests::{MAX_OUTSTANDING, RequestError};

/// Bits of a token that are the number of a place.
const PLACE_BITS: u32 = 16;

const _: () = assert!(MAX_OUTSTANDING <= 1 << PLACE_BITS);

/// Places that are kept when nobody waits; a burst's are given back.
const KEPT_PLACES: usize = 1_024;

/// How a request ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Boxed, since a place is taken far longer by what waits than by what has come.
    Answered(Box<Message>),
    Overdue,
    Closed,
}

/// Who waits.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    places: Mutex<Places>,
    /// Told when a deadline comes before all others.
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Places {
    closed: bool,
    /// Requests that there were; two of them are never called the same.
    count: u64,
    places: Vec<Place>,
    free: Vec<usize>,
    /// No deadline of a request that waits is before this one.
    earliest: Option<Instant>,
}

#[derive(Debug)]
struct Place {
    token: u64,
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
    /// A place for a request, by its token.
    pub(super) fn register(&self, deadline: Option<Instant>) -> Result<u64, RequestError> {
        let mut places = self.lock();
        if places.closed {
            return Err(RequestError::Closed);
        }
        let token = places.take(deadline).ok_or(RequestError::TooMany {
            limit: MAX_OUTSTANDING,
        })?;
        if let Some(deadline) = deadline
            && places.earliest.is_none_or(|earliest| deadline < earliest)
        {
            places.earliest = Some(deadline);
            drop(places);
            self.earlier.notify_one();
        }
        Ok(token)
    }

    /// How the request has ended, if it has; then its place is free again.
    pub(super) fn poll(&self, token: u64, waker: &Waker) -> Option<Outcome> {
        let mut places = self.lock();
        let Some(place) = places.find(token) else {
            return Some(Outcome::Closed);
        };
        if let State::Waiting(known) = &mut place.state {
            match known {
                Some(known) => known.clone_from(waker),
                None => *known = Some(waker.clone()),
            }
            return None;
        }
        match places.release(token) {
            State::Ended(outcome) => Some(outcome),
            State::Free | State::Waiting(_) => Some(Outcome::Closed),
        }
    }

    /// Frees the place of a request that nobody waits for any more.
    pub(super) fn forget(&self, token: u64) {
        let state = self.lock().release(token);
        // A message is freed after the lock is.
        drop(state);
    }

    /// Hands a request its reply, if it still waits.
    pub(super) fn answer(&self, token: u64, message: Message) {
        let waker = self.lock().end(token, Outcome::Answered(Box::new(message)));
        wake(waker);
    }

    /// Ends the requests whose deadline has come.
    pub(super) fn expire(&self, now: Instant) {
        let mut places = self.lock();
        let mut overdue = Vec::new();
        let mut earliest = None;
        for place in &places.places {
            let (State::Waiting(_), Some(deadline)) = (&place.state, place.deadline) else {
                continue;
            };
            if deadline <= now {
                overdue.push(place.token);
            } else if earliest.is_none_or(|earliest| deadline < earliest) {
                earliest = Some(deadline);
            }
        }
        places.earliest = earliest;
        let wakers: Vec<_> = overdue
            .into_iter()
            .map(|token| places.end(token, Outcome::Overdue))
            .collect();
        drop(places);
        wakers.into_iter().for_each(wake);
    }

    /// Ends all requests, and those to come.
    pub(super) fn close(&self) {
        let mut places = self.lock();
        places.closed = true;
        let tokens: Vec<_> = places.places.iter().map(|place| place.token).collect();
        let wakers: Vec<_> = tokens
            .into_iter()
            .map(|token| places.end(token, Outcome::Closed))
            .collect();
        drop(places);
        wakers.into_iter().for_each(wake);
    }

    /// Requests that wait.
    pub(super) fn len(&self) -> usize {
        self.lock().taken()
    }

    /// The next time that a request may be overdue.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.lock().earliest
    }

    /// Waits until [`Self::earliest`] is earlier than it was.
    ///
    /// # Cancel safety
    ///
    /// What was told while nobody waited is told to the next who does.
    pub(super) async fn earlier(&self) {
        self.earlier.notified().await;
    }

    /// Nothing that can panic runs while the lock is held, so what a poisoned one guards is as good
    /// as ever.
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn taken(&self) -> usize {
        self.places.len() - self.free.len()
    }

    fn take(&mut self, deadline: Option<Instant>) -> Option<u64> {
        let at = match self.free.pop() {
            Some(at) => at,
            None if self.places.len() >= MAX_OUTSTANDING => return None,
            None => {
                self.places.push(Place {
                    token: 0,
                    deadline: None,
                    state: State::Free,
                });
                self.places.len() - 1
            }
        };
        let token = self.count << PLACE_BITS | at as u64;
        // 2^48 requests at a million a second are nine years; then tokens begin anew.
        self.count = self.count.wrapping_add(1);
        *self.places.get_mut(at)? = Place {
            token,
            deadline,
            state: State::Waiting(None),
        };
        Some(token)
    }

    /// The place of a request that has not been given up.
    fn find(&mut self, token: u64) -> Option<&mut Place> {
        let place = self.places.get_mut(at(token))?;
        (place.token == token && !matches!(place.state, State::Free)).then_some(place)
    }

    /// Ends a request that waits; gives who is to be told.
    fn end(&mut self, token: u64, outcome: Outcome) -> Option<Waker> {
        let place = self.find(token)?;
        match &mut place.state {
            State::Waiting(waker) => {
                let waker = waker.take();
                place.state = State::Ended(outcome);
                waker
            }
            State::Free | State::Ended(_) => None,
        }
    }

    fn release(&mut self, token: u64) -> State {
        let Some(place) = self.find(token) else {
            return State::Free;
        };
        let state = std::mem::replace(&mut place.state, State::Free);
        self.free.push(at(token));
        if self.taken() == 0 && self.places.len() > KEPT_PLACES {
            self.places = Vec::new();
            self.free = Vec::new();
        }
        state
    }
}

fn at(token: u64) -> usize {
    usize::try_from(token & ((1 << PLACE_BITS) - 1)).unwrap_or(usize::MAX)
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn poll(waiting: &Waiting, token: u64) -> Option<Outcome> {
        waiting.poll(token, Waker::noop())
    }

    fn message(text: &'static str) -> Message {
        Message {
            subject: "to".into(),
            reply: None,
            payload: text.into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn a_place_is_used_again_and_a_late_reply_finds_nobody() {
        let waiting = Waiting::default();
        let first = waiting.register(None).unwrap();
        assert!(poll(&waiting, first).is_none());
        waiting.forget(first);
        let second = waiting.register(None).unwrap();
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
        let late = waiting.register(Some(after(9))).unwrap();
        let soon = waiting.register(Some(after(2))).unwrap();
        let never = waiting.register(None).unwrap();
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
        assert_eq!(waiting.register(None), Err(RequestError::Closed));
    }

    #[test]
    fn so_many_may_wait_and_their_places_are_given_back() {
        let waiting = Waiting::default();
        let all: Vec<_> = (0..MAX_OUTSTANDING)
            .map(|_| waiting.register(None).unwrap())
            .collect();
        let one_more = waiting.register(None);
        let limit = MAX_OUTSTANDING;
        assert_eq!(one_more, Err(RequestError::TooMany { limit }));
        all.iter().for_each(|token| waiting.forget(*token));
        assert_eq!((waiting.len(), waiting.lock().places.len()), (0, 0));
        waiting.register(None).unwrap();
    }
}
