//! The rollouts of a node: it says what it sees of both versions, and one node of the fleet decides.
//!
//! Which one follows from a lease in the store, renewed with every step on the condition that it is as it was
//! left, so that two that take themselves for its holder are found out. It has what the next holder has to
//! know. How a rollout ended is written once, and every node acts on that as on everything in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::Shared;
use super::driver::now;
use crate::deployment::{Current, Deployment};
use crate::fleet::{
    End, FORMAT, HostTally, LEASE, Lease, Observed, Outcome, Revision, RolloutKey, ServiceTally,
    Share, StoreError, TICK, Watched, read_rollout, step,
};

/// A rollout that is under way.
#[derive(Clone)]
pub(super) struct UnderWay {
    pub(super) revision: Arc<Revision>,
    /// The hosts that are to run its services.
    pub(super) hosts: BTreeMap<String, BTreeSet<String>>,
}

/// What the driver of an app has done.
struct Ran {
    revision: u64,
    current: Arc<Current>,
    /// Services whose new version cannot run here, and why.
    failed: BTreeMap<String, String>,
}

/// A lease as it was last seen.
#[derive(Clone)]
struct Seen {
    lease: Lease,
    sequence: u64,
    at: Instant,
}

#[derive(Default)]
struct State {
    /// What is known is new enough to act on.
    is_current: bool,
    under_way: BTreeMap<String, UnderWay>,
    ran: BTreeMap<String, Ran>,
    leases: BTreeMap<String, Seen>,
    /// By app and host.
    tallies: BTreeMap<(String, String), HostTally>,
    /// What earlier processes of this host have seen of the rollouts that this one speaks of, by app.
    earlier: BTreeMap<String, HostTally>,
}

/// The rollouts of a node.
#[derive(Default)]
pub(super) struct Rollouts(Mutex<State>);

impl Rollouts {
    /// Says whether what is known is new enough to act on.
    pub(super) fn set_current(&self, is_current: bool) {
        self.lock().is_current = is_current;
    }

    /// Has these rollouts followed, and no others.
    pub(super) fn follow(&self, under_way: BTreeMap<String, UnderWay>) {
        self.lock().under_way = under_way;
    }

    /// Says what runs of an app since the last step.
    pub(super) fn ran(
        &self,
        app: &str,
        revision: u64,
        current: Arc<Current>,
        failed: BTreeMap<String, String>,
    ) {
        let ran = Ran {
            revision,
            current,
            failed,
        };
        self.lock().ran.insert(app.to_owned(), ran);
    }

    /// Forgets about an app that does not run here any more.
    pub(super) fn stopped(&self, app: &str) {
        self.lock().ran.remove(app);
    }

    /// Takes over what is said of a rollout; how it ended is for others.
    pub(super) fn hear(&self, key: &RolloutKey, watched: &Watched) -> Result<(), StoreError> {
        let Watched {
            key: text,
            sequence,
            value,
        } = watched;
        let mut state = self.lock();
        match (key, value) {
            (RolloutKey::Lease(app), Some(value)) => {
                let known = state.leases.get(app);
                // Of one's own it is known before it comes back.
                if known.is_none_or(|known| known.sequence < *sequence) {
                    let seen = Seen {
                        lease: read_rollout(text, value)?,
                        sequence: *sequence,
                        at: Instant::now(),
                    };
                    state.leases.insert(app.clone(), seen);
                }
            }
            (RolloutKey::Lease(app), None) => {
                let known = state.leases.get(app);
                if known.is_some_and(|known| known.sequence < *sequence) {
                    state.leases.remove(app);
                }
            }
            (RolloutKey::Host(app, host), Some(value)) => {
                let tally = read_rollout(text, value)?;
                state.tallies.insert((app.clone(), host.clone()), tally);
            }
            (RolloutKey::Host(app, host), None) => {
                state.tallies.remove(&(app.clone(), host.clone()));
            }
            (RolloutKey::Ended(..), _) => {}
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn under_way(&self) -> BTreeMap<String, UnderWay> {
        self.lock().under_way.clone()
    }

    /// What this host sees of a rollout; nothing while it runs nothing of the revision.
    fn own_tally(&self, app: &str, rollout: &UnderWay, host: &str) -> Option<HostTally> {
        let number = rollout.revision.number;
        let (current, failed) = {
            let state = self.lock();
            let ran = state.ran.get(app).filter(|ran| ran.revision == number)?;
            (Arc::clone(&ran.current), ran.failed.clone())
        };
        let deployment = current.get();
        let services = rollout.revision.rollouts().into_keys().filter_map(|name| {
            let tally = tally(&deployment, name, number, failed.get(name))?;
            Some((name.to_owned(), tally))
        });
        let tally = HostTally {
            format: FORMAT,
            app: app.to_owned(),
            revision: number,
            host: host.to_owned(),
            services: services.collect(),
        };
        Some(self.with_earlier(tally))
    }

    /// A tally of this process with what an earlier one of this host has seen of the same rollout.
    fn with_earlier(&self, mut tally: HostTally) -> HostTally {
        let mut state = self.lock();
        let known = state.earlier.get(&tally.app);
        if known.is_none_or(|known| known.revision != tally.revision) {
            // This process has said nothing yet, so what is there is another one's.
            let key = (tally.app.clone(), tally.host.clone());
            let there = state.tallies.get(&key).cloned();
            let there = there.filter(|there| there.revision == tally.revision);
            let nothing = || HostTally {
                services: BTreeMap::new(),
                ..tally.clone()
            };
            let earlier = there.unwrap_or_else(nothing);
            state.earlier.insert(tally.app.clone(), earlier);
        }
        if let Some(earlier) = state.earlier.get(&tally.app) {
            for (name, own) in &mut tally.services {
                if let Some(earlier) = earlier.services.get(name) {
                    own.old.add(&earlier.old);
                    own.new.add(&earlier.new);
                }
            }
        }
        tally
    }

    /// What is known of a rollout, all hosts together.
    fn observed(&self, app: &str, rollout: &UnderWay) -> BTreeMap<String, Observed> {
        let number = rollout.revision.number;
        let state = self.lock();
        let tallies: Vec<_> = state
            .tallies
            .values()
            .filter(|tally| tally.app == app && tally.revision == number)
            .collect();
        let of_service = |name: &str| {
            let mut observed = Observed::default();
            let mut runs = BTreeSet::new();
            for tally in &tallies {
                let Some(one) = tally.services.get(name) else {
                    continue;
                };
                observed.old.add(&one.old);
                observed.new.add(&one.new);
                if one.runs {
                    runs.insert(&tally.host);
                }
                let wanted = rollout.hosts.get(name);
                if let Some(error) = &one.failed
                    && wanted.is_some_and(|hosts| hosts.contains(&tally.host))
                {
                    observed.failed = Some((tally.host.clone(), error.clone()));
                }
            }
            let hosts = rollout.hosts.get(name).into_iter().flatten();
            observed.missing = hosts.filter(|host| !runs.contains(host)).cloned().collect();
            observed
        };
        let services = rollout.revision.rollouts().into_keys();
        services
            .map(|name| (name.to_owned(), of_service(name)))
            .collect()
    }

    /// The lease that this host may write next, with the sequence that it is written after and the time since
    /// its own last one; nothing while another host holds it.
    fn next_lease(
        &self,
        app: &str,
        number: u64,
        host: &str,
        id: &str,
    ) -> Option<(Lease, Option<u64>, Duration)> {
        let state = self.lock();
        let seen = state.leases.get(app);
        let after = seen.map(|seen| seen.sequence);
        let fresh = Lease {
            format: FORMAT,
            app: app.to_owned(),
            revision: number,
            host: host.to_owned(),
            id: id.to_owned(),
            elapsed_ms: 0,
            missing_ms: 0,
            services: BTreeMap::new(),
        };
        let Some(seen) = seen.filter(|seen| seen.lease.revision == number) else {
            // Of another revision; a newer one is of hosts that know more.
            let is_newer = seen.is_some_and(|seen| seen.lease.revision > number);
            return (!is_newer).then_some((fresh, after, Duration::ZERO));
        };
        let since = seen.at.elapsed();
        let is_own = seen.lease.id == id;
        if !is_own && since < LEASE {
            return None;
        }
        let lease = Lease {
            elapsed_ms: seen.lease.elapsed_ms,
            missing_ms: seen.lease.missing_ms,
            ..fresh
        };
        // Time without a holder counts for nothing.
        let passed = if is_own {
            since.min(LEASE)
        } else {
            Duration::ZERO
        };
        Some((lease, after, passed))
    }

    fn holds(&self, lease: Lease, sequence: u64) {
        let app = lease.app.clone();
        let seen = Seen {
            lease,
            sequence,
            at: Instant::now(),
        };
        self.lock().leases.insert(app, seen);
    }

    /// The entries of apps that have no rollout any more and that this host wrote, or is to clear away; a lease as it
    /// was at this sequence.
    fn left(&self, host: &str, id: &str) -> Vec<(RolloutKey, Option<u64>)> {
        let state = self.lock();
        let is_over = |app: &String| !state.under_way.contains_key(app);
        let leases = state.leases.iter();
        let own: BTreeMap<_, _> = leases
            .filter(|(app, seen)| is_over(app) && seen.lease.id == id)
            .map(|(app, seen)| (app.clone(), seen.sequence))
            .collect();
        let tallies = state.tallies.keys();
        let spoke = |app: &String| is_over(app) && state.earlier.contains_key(app);
        let tallies = tallies.filter(|(app, of)| own.contains_key(app) || of == host && spoke(app));
        let mut left: Vec<_> = tallies
            .map(|(app, host)| (RolloutKey::Host(app.clone(), host.clone()), None))
            .collect();
        let leases = own.into_iter();
        left.extend(leases.map(|(app, sequence)| (RolloutKey::Lease(app), Some(sequence))));
        left
    }
}

/// What a deployment has of a service that this revision runs in two versions.
fn tally(
    deployment: &Deployment,
    name: &str,
    revision: u64,
    failed: Option<&String>,
) -> Option<ServiceTally> {
    let service = deployment.services.get(name);
    let candidate = deployment.candidates.get(name);
    let candidate = candidate.filter(|candidate| candidate.revision == revision);
    let (Some(service), Some(candidate)) = (service, candidate) else {
        // The old version may be what is missing, which says nothing of why the new one cannot run.
        let is_something = service.is_some() || failed.is_some();
        return is_something.then(|| ServiceTally {
            failed: failed.cloned(),
            ..ServiceTally::default()
        });
    };
    Some(ServiceTally {
        runs: true,
        failed: failed.cloned(),
        old: service.tally().since(&candidate.before),
        new: candidate.service.tally().since(&candidate.own_before),
    })
}

impl Shared {
    /// Follows the rollouts, for ever.
    pub(super) async fn roll_out(&self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !self.rollouts.lock().is_current {
                continue;
            }
            for (app, rollout) in self.rollouts.under_way() {
                if let Err(error) = self.follow(&app, &rollout).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(app, error, "a rollout cannot be followed");
                }
            }
            for (key, sequence) in self.rollouts.left(&self.name, &self.id) {
                if let Err(error) = self.store.forget(&key, sequence).await {
                    tracing::debug!(%error, "what a rollout has left cannot be removed");
                }
            }
        }
    }

    /// Says what is seen of a rollout, and decides on it if that is for this host to do.
    async fn follow(&self, app: &str, rollout: &UnderWay) -> Result<(), StoreError> {
        if let Some(tally) = self.rollouts.own_tally(app, rollout, &self.name) {
            let key = (app.to_owned(), self.name.clone());
            let said = self.rollouts.lock().tallies.insert(key, tally.clone());
            if said.as_ref() != Some(&tally) {
                self.store.tally(&tally).await?;
            }
        }
        let number = rollout.revision.number;
        let next = self.rollouts.next_lease(app, number, &self.name, &self.id);
        let Some((mut lease, after, passed)) = next else {
            return Ok(());
        };
        let observed = self.rollouts.observed(app, rollout);
        let mut time = lease.time();
        let ended = step(&rollout.revision.rollouts(), &mut time, passed, &observed);
        lease.set_time(time);
        let share = |(name, one): (&String, &Observed)| {
            (name.clone(), Share::of(&one.old, &one.new, &one.missing))
        };
        lease.services = observed.iter().map(share).collect();
        // Who cannot renew it does not hold it, and decides nothing.
        let Some(sequence) = self.store.lease(&lease, after).await? else {
            return Ok(());
        };
        self.rollouts.holds(lease, sequence);
        match ended {
            Some(ended) => self.end(app, number, ended).await,
            None => Ok(()),
        }
    }

    async fn end(&self, app: &str, number: u64, ended: End) -> Result<(), StoreError> {
        let (went_on, why) = match ended {
            End::On(why) => (true, why),
            End::Back(why) => (false, why),
        };
        let outcome = Outcome {
            format: FORMAT,
            app: app.to_owned(),
            revision: number,
            went_on,
            why,
            host: self.name.clone(),
            at: now(),
        };
        self.store.end(&outcome).await?;
        tracing::info!(app, "{}", outcome.text());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "a";

    fn seen(id: &str, revision: u64, since: Duration) -> Rollouts {
        let rollouts = Rollouts::default();
        let lease = Lease {
            format: FORMAT,
            app: "shop".to_owned(),
            revision,
            host: HOST.to_owned(),
            id: id.to_owned(),
            elapsed_ms: 7_000,
            missing_ms: 1_000,
            services: BTreeMap::new(),
        };
        rollouts.holds(lease, 5);
        let mut state = rollouts.lock();
        let seen = state.leases.get_mut("shop").unwrap();
        seen.at = Instant::now().checked_sub(since).unwrap();
        drop(state);
        rollouts
    }

    fn next(rollouts: &Rollouts, id: &str) -> Option<(u64, Option<u64>, Duration)> {
        let next = rollouts.next_lease("shop", 2, HOST, id);
        next.map(|(lease, after, passed)| (lease.elapsed_ms, after, passed))
    }

    #[test]
    fn a_lease_is_its_holders_until_that_does_not_renew_it() {
        let short = TICK / 2;
        let own = next(&seen("a-1", 2, short), "a-1").unwrap();
        assert_eq!((own.0, own.1), (7_000, Some(5)));
        assert!((short..TICK).contains(&own.2), "{own:?}");
        assert_eq!(next(&seen("b-1", 2, short), "a-1"), None);
        // Another one goes on where it was, and the time between them does not count.
        let taken = next(&seen("b-1", 2, LEASE), "a-1");
        assert_eq!(taken, Some((7_000, Some(5), Duration::ZERO)));
    }

    #[test]
    fn the_lease_of_an_earlier_revision_is_anyones() {
        let fresh = Some((0, Some(5), Duration::ZERO));
        assert_eq!(next(&seen("b-1", 1, Duration::ZERO), "a-1"), fresh);
        assert_eq!(next(&seen("b-1", 3, LEASE * 2), "a-1"), None);
        let none = Rollouts::default();
        assert_eq!(next(&none, "a-1"), Some((0, None, Duration::ZERO)));
    }

    fn tally(revision: u64, calls: u64) -> HostTally {
        let mut one = ServiceTally::default();
        for _ in 0..calls {
            one.new.durations.record(Duration::from_millis(1));
        }
        HostTally {
            format: FORMAT,
            app: "shop".to_owned(),
            revision,
            host: HOST.to_owned(),
            services: BTreeMap::from([("a".to_owned(), one)]),
        }
    }

    #[test]
    fn a_host_that_was_restarted_adds_to_what_it_has_seen_before() {
        let rollouts = Rollouts::default();
        let calls = |tally: HostTally| rollouts.with_earlier(tally).services["a"].new.calls();
        let says = |tally| {
            let key = ("shop".to_owned(), HOST.to_owned());
            rollouts.lock().tallies.insert(key, tally);
        };
        says(tally(2, 7));
        assert_eq!(calls(tally(2, 0)), 7);
        // Its own words are no earlier process's.
        says(tally(2, 9));
        assert_eq!(calls(tally(2, 2)), 9);
        assert_eq!(calls(tally(2, 3)), 10);
        // Nor are those of an earlier rollout.
        assert_eq!(calls(tally(3, 1)), 1);
    }

    #[test]
    fn a_lease_is_removed_as_it_was_left() {
        let rollouts = seen("a-1", 2, Duration::ZERO);
        let lease = RolloutKey::Lease("shop".to_owned());
        assert_eq!(rollouts.left(HOST, "a-1"), [(lease, Some(5))]);
        assert_eq!(rollouts.left(HOST, "b-1"), []);
    }

    #[test]
    fn why_a_new_version_cannot_run_is_said_where_the_old_one_does_not_either() {
        let none = Deployment::default();
        assert_eq!(super::tally(&none, "a", 2, None), None);
        let why = "it traps".to_owned();
        let said = super::tally(&none, "a", 2, Some(&why)).unwrap();
        assert_eq!(said.failed, Some(why));
        assert!(!said.runs);
    }

    #[test]
    fn a_host_that_was_paused_counts_little_of_that_time() {
        let paused = next(&seen("a-1", 2, LEASE * 10), "a-1").unwrap();
        assert_eq!(paused.2, LEASE);
    }
}
