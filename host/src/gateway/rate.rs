//! How many requests a client may make.
//!
//! Each limiter has a bucket for each client, which fills evenly: `requests` within `window`, and as many at
//! once as `burst` says. Hosts count for themselves.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, StatusCode};

use super::answer::Refusal;
use super::auth::Client;
use super::places::network;
use crate::claims::{Claims, Proof};
use crate::manifest::{RateBy, RateSpec};

static POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Upper bound of the clients that are told apart at a time, and of the addresses. Further ones have one bucket
/// together.
pub(super) const MAX_CLIENTS: usize = 65_536;

/// Shortest pause between two looks for clients that have a full bucket again.
const SWEEP: Duration = Duration::from_secs(1);

/// Whose bucket it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Bucket {
    Address(IpAddr),
    Key(Arc<str>),
    Subject(Arc<str>),
    Certificate(Arc<str>),
    Claim(Arc<str>),
    /// All that there was no room for.
    Others,
}

type Buckets =
    RateLimiter<Bucket, DefaultKeyedStateStore<Bucket>, DefaultClock, StateInformationMiddleware>;

/// The buckets of one limit.
pub(crate) struct Limiter {
    spec: RateSpec,
    buckets: Buckets,
    /// Time for one request to come back.
    interval: Duration,
    policy: HeaderValue,
    clock: DefaultClock,
    known: Mutex<Known>,
}

/// The clients that are told apart, and when each was last seen.
#[derive(Default)]
struct Known {
    /// Those that have shown who they are, and addresses: strangers take no place of theirs.
    clients: [HashMap<Bucket, Instant>; 2],
    /// When it was last looked for buckets that are full again.
    swept: Option<Instant>,
}

/// Headers of an answer, whatever it is.
pub(super) type Told = Vec<(HeaderName, HeaderValue)>;

impl Limiter {
    fn new(spec: &RateSpec) -> Self {
        let interval = spec.window / spec.requests.max(1);
        let burst = NonZeroU32::new(spec.burst).unwrap_or(NonZeroU32::MIN);
        let interval = interval.max(Duration::from_nanos(1));
        let quota = Quota::with_period(interval).unwrap_or_else(|| Quota::per_second(burst));
        let (requests, window) = (spec.requests, spec.window.as_secs().max(1));
        let policy = format!("\"default\";q={requests};w={window}");
        Self {
            buckets: RateLimiter::keyed(quota.allow_burst(burst)).with_middleware(),
            interval,
            policy: HeaderValue::try_from(policy)
                .unwrap_or_else(|_| HeaderValue::from_static("\"default\"")),
            spec: spec.clone(),
            clock: DefaultClock::default(),
            known: Mutex::default(),
        }
    }

    /// Counts a request before it is known whose it is.
    pub(super) fn before(&self, peer: IpAddr, told: &mut Told) -> Result<(), Refusal> {
        match self.spec.by {
            RateBy::Address => self.take(Bucket::Address(network(peer)), told),
            RateBy::Client | RateBy::Claim(_) => Ok(()),
        }
    }

    /// Counts a request of a client, or of none.
    pub(super) fn after(
        &self,
        peer: IpAddr,
        client: Option<&Client>,
        told: &mut Told,
    ) -> Result<(), Refusal> {
        let address = || Bucket::Address(network(peer));
        let bucket = match (&self.spec.by, client) {
            (RateBy::Address, _) => return Ok(()),
            (_, None) => address(),
            (RateBy::Client, Some(client)) => of_client(client).unwrap_or_else(address),
            (RateBy::Claim(name), Some(client)) => {
                let claims = Claims::read(&client.claims);
                let claim = claims.and_then(|claims| claims.claims.get(name).cloned());
                let claim = claim.map(|value| Bucket::Claim(value.to_string().into()));
                claim.or_else(|| of_client(client)).unwrap_or_else(address)
            }
        };
        self.take(bucket, told)
    }

    fn take(&self, bucket: Bucket, told: &mut Told) -> Result<(), Refusal> {
        let bucket = self.known(bucket);
        let checked = self.buckets.check_key(&bucket);
        let (left, wait) = match &checked {
            Ok(state) => {
                let left = state.remaining_burst_capacity();
                let taken = self.spec.burst.saturating_sub(left);
                (left, self.interval * taken)
            }
            Err(until) => (0, until.wait_time_from(self.clock.now())),
        };
        let seconds = wait.as_millis().div_ceil(1_000).max(1);
        told.push((POLICY.clone(), self.policy.clone()));
        if let Ok(limit) = HeaderValue::try_from(format!("\"default\";r={left};t={seconds}")) {
            told.push((LIMIT.clone(), limit));
        }
        if checked.is_ok() {
            return Ok(());
        }
        let RateSpec {
            requests, window, ..
        } = &self.spec;
        let why = format!("more than {requests} requests within {window:?}");
        let mut refusal = Refusal::caller(StatusCode::TOO_MANY_REQUESTS, why);
        refusal.add(RETRY_AFTER, &seconds.to_string());
        Err(refusal)
    }

    /// The bucket, if it is known or there is room for one more client of its kind.
    fn known(&self, bucket: Bucket) -> Bucket {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { clients, swept } = &mut *known;
        let [identified, addresses] = clients;
        let own = match bucket {
            Bucket::Address(_) => addresses,
            _ => identified,
        };
        if let Some(seen) = own.get_mut(&bucket) {
            *seen = now;
            return bucket;
        }
        let is_due = swept.is_none_or(|swept| now.duration_since(swept) >= SWEEP);
        if own.len() >= MAX_CLIENTS && is_due {
            *swept = Some(now);
            // After this time a bucket is full, as if there had been none.
            let full = self.interval * self.spec.burst.max(1);
            own.retain(|_, seen| now.duration_since(*seen) < full);
            self.buckets.retain_recent();
        }
        if own.len() >= MAX_CLIENTS {
            return Bucket::Others;
        }
        own.insert(bucket.clone(), now);
        bucket
    }
}

fn of_client(client: &Client) -> Option<Bucket> {
    let subject = Arc::clone(client.subject.as_ref()?);
    Some(match client.proof {
        Proof::Key => Bucket::Key(subject),
        Proof::Jwt => Bucket::Subject(subject),
        Proof::Certificate => Bucket::Certificate(subject),
    })
}

/// The limiters of a gateway, which go on when its routes change: by what they are for.
#[derive(Default)]
pub(crate) struct Limiters(Mutex<HashMap<String, Arc<Limiter>>>);

impl Limiters {
    /// The limiter of this name, a new one if its limit is another than before.
    pub(super) fn get(&self, name: &str, spec: &RateSpec) -> Arc<Limiter> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(name).filter(|known| known.spec == *spec) {
            return Arc::clone(known);
        }
        let limiter = Arc::new(Limiter::new(spec));
        all.insert(name.to_owned(), Arc::clone(&limiter));
        limiter
    }

    /// Forgets those that no table uses any more.
    pub(super) fn forget_unused(&self) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, limiter| Arc::strong_count(limiter) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(requests: u32, window: Duration, by: RateBy) -> RateSpec {
        RateSpec {
            requests,
            window,
            burst: requests,
            by,
        }
    }

    fn peer(last: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits((10 << 24) + last).into()
    }

    fn client(proof: Proof, subject: &str, claims: &str) -> Client {
        Client::for_test(proof, subject, claims)
    }

    fn told(told: &Told, name: &HeaderName) -> String {
        let found = told.iter().find(|(known, _)| known == name).unwrap();
        found.1.to_str().unwrap().to_owned()
    }

    #[test]
    fn so_many_and_no_more() {
        let limiter = Limiter::new(&spec(3, Duration::from_secs(60), RateBy::Address));
        for left in [2, 1, 0] {
            let mut all = Told::new();
            limiter.before(peer(1), &mut all).unwrap();
            assert_eq!(told(&all, &POLICY), "\"default\";q=3;w=60");
            let limit = told(&all, &LIMIT);
            assert!(
                limit.starts_with(&format!("\"default\";r={left};t=")),
                "{limit}"
            );
        }
        let mut all = Told::new();
        let refusal = limiter.before(peer(1), &mut all).unwrap_err();
        assert_eq!(refusal.status, StatusCode::TOO_MANY_REQUESTS);
        let wait = told(&refusal.headers, &RETRY_AFTER).parse::<u64>().unwrap();
        assert!((15..=20).contains(&wait), "{wait}");
        assert_eq!(told(&all, &LIMIT), format!("\"default\";r=0;t={wait}"));
        limiter.before(peer(2), &mut Told::new()).unwrap();
    }

    #[test]
    fn clients_are_told_apart_by_what_the_limit_says() {
        let minute = Duration::from_secs(60);
        let take = |limiter: &Limiter, last: u32, client: Option<&Client>| {
            let mut all = Told::new();
            limiter.before(peer(last), &mut all)?;
            limiter.after(peer(last), client, &mut all)
        };
        let of = |proof, subject| client(proof, subject, "{}");
        let limiter = Limiter::new(&spec(1, minute, RateBy::Client));
        for (last, client, taken) in [
            (1, Some(of(Proof::Key, "a")), true),
            (2, Some(of(Proof::Key, "a")), false),
            (2, Some(of(Proof::Jwt, "a")), true),
            (2, Some(of(Proof::Certificate, "a")), true),
            (1, Some(of(Proof::Key, "b")), true),
            (1, None, true),
            (1, None, false),
            (2, None, true),
        ] {
            assert_eq!(take(&limiter, last, client.as_ref()).is_ok(), taken);
        }
        let limiter = Limiter::new(&spec(1, minute, RateBy::Claim("tenant".to_owned())));
        let of = |subject, claims| client(Proof::Jwt, subject, claims);
        for (client, taken) in [
            (of("a", r#"{"tenant":"x"}"#), true),
            (of("b", r#"{"tenant":"x"}"#), false),
            (of("b", r#"{"tenant":7}"#), true),
            (of("b", "{}"), true),
            (of("b", "{}"), false),
        ] {
            assert_eq!(take(&limiter, 1, Some(&client)).is_ok(), taken);
        }
    }

    #[test]
    fn only_so_many_clients_are_told_apart() {
        let limiter = Limiter::new(&spec(2, Duration::from_secs(3_600), RateBy::Address));
        let take = |last: u32| limiter.before(peer(last), &mut Told::new()).is_ok();
        for last in 0..MAX_CLIENTS as u32 {
            assert!(take(last));
        }
        assert_eq!(limiter.buckets.len(), MAX_CLIENTS);
        // Those that there is no room for share what one has.
        let more = MAX_CLIENTS as u32..MAX_CLIENTS as u32 + 50;
        assert_eq!(more.filter(|last| take(*last)).count(), 2);
        assert!(limiter.buckets.len() <= MAX_CLIENTS + 1);
        // Who is known keeps what it has, and who has shown who it is shares no place with strangers.
        assert!(take(7) && !take(7));
        let key = Client::for_test(Proof::Key, "a", "{}");
        let client = Limiter::new(&spec(2, Duration::from_secs(3_600), RateBy::Client));
        for last in 0..MAX_CLIENTS as u32 {
            assert!(client.after(peer(last), None, &mut Told::new()).is_ok());
        }
        for taken in [true, true, false] {
            let counted = client.after(peer(1), Some(&key), &mut Told::new());
            assert_eq!(counted.is_ok(), taken);
        }
    }

    #[test]
    fn clients_whose_bucket_is_full_again_make_room() {
        let limiter = Limiter::new(&spec(1_000_000, Duration::from_millis(1), RateBy::Address));
        for last in 0..MAX_CLIENTS as u32 + 10 {
            assert!(limiter.before(peer(last), &mut Told::new()).is_ok());
        }
        assert!(limiter.buckets.len() < MAX_CLIENTS);
    }

    #[test]
    fn a_limiter_goes_on_until_its_limit_is_another() {
        let limiters = Limiters::default();
        let minute = spec(1, Duration::from_secs(60), RateBy::Address);
        let first = limiters.get("a", &minute);
        assert!(Arc::ptr_eq(&first, &limiters.get("a", &minute)));
        assert!(!Arc::ptr_eq(&first, &limiters.get("b", &minute)));
        let other = spec(2, Duration::from_secs(60), RateBy::Address);
        assert!(!Arc::ptr_eq(&first, &limiters.get("a", &other)));
        limiters.forget_unused();
        assert!(limiters.0.lock().unwrap().is_empty());
    }
}
