//! What a node knows of its fleet, and what follows from it for this host. Pure but for the clock
//! that it is given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::rollouts::UnderWay;
use crate::fleet::{
    DEAD, HostRecord, Member, Outcome, Placement, Report, Revision, ServiceState, demands, place,
};

/// What a node knows of its fleet.
#[derive(Default)]
pub(super) struct View {
    /// This host's name.
    name: String,
    hosts: BTreeMap<String, (HostRecord, Instant)>,
    /// The last revision of each app, as it is after its rollout.
    pub(super) apps: BTreeMap<String, Arc<Revision>>,
    /// How rollouts ended, by app and revision.
    ended: BTreeMap<(String, u64), Outcome>,
    /// By host and app.
    reports: BTreeMap<(String, String), Report>,
    /// The hosts that were alive at the last look.
    alive: BTreeSet<String>,
    /// Whether what was known was new enough to act on.
    was_fresh: bool,
}

/// What this host has to do with an app.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    pub(super) revision: Arc<Revision>,
    /// The services that it is to run.
    pub(super) here: BTreeSet<String>,
    /// Services that it is not to run any more, and that do not run yet where they should.
    pub(super) held: BTreeSet<String>,
}

impl View {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// A sign of life; returns whether it says something new.
    pub(super) fn see(&mut self, record: HostRecord, now: Instant) -> bool {
        let known = self.hosts.get(&record.name);
        let is_new = known.is_none_or(|(known, _)| *known != record);
        self.hosts.insert(record.name.clone(), (record, now));
        is_new
    }

    /// A host that said that it is gone.
    pub(super) fn lose(&mut self, host: &str) {
        self.hosts.remove(host);
    }

    /// The next revision of an app.
    pub(super) fn revise(&mut self, app: &str, revision: Revision) {
        let outcome = self.ended.get(&(app.to_owned(), revision.number));
        let revision = Arc::new(revision.ended(outcome));
        self.apps.insert(app.to_owned(), revision);
    }

    /// An app of which nothing is kept any more.
    pub(super) fn remove(&mut self, app: &str) {
        self.apps.remove(app);
        self.ended.retain(|(of, _), _| of != app);
    }

    /// How a rollout ended; returns whether that changes what is to run.
    pub(super) fn end(&mut self, outcome: Outcome) -> bool {
        let key = (outcome.app.clone(), outcome.revision);
        let last = self.apps.get_mut(&outcome.app);
        let last = last.filter(|last| last.number == outcome.revision && last.stable.is_some());
        let changes = match last {
            Some(last) => {
                *last = Arc::new(Revision::clone(last).ended(Some(&outcome)));
                true
            }
            None => false,
        };
        // Those of earlier revisions mean nothing any more.
        self.ended
            .retain(|(app, number), _| *app != key.0 || *number > key.1);
        self.ended.insert(key, outcome);
        changes
    }

    /// The rollouts under way, and where their services are to run.
    pub(super) fn under_way(&self, placement: &Placement) -> BTreeMap<String, UnderWay> {
        let rolled = self.apps.iter().filter_map(|(app, revision)| {
            let services = revision.rollouts();
            if services.is_empty() {
                return None;
            }
            let hosts = services.into_keys().map(|service| {
                let placed = placement.of(app, service);
                let hosts = placed.into_iter().flat_map(|placed| &placed.hosts);
                (service.to_owned(), hosts.cloned().collect())
            });
            let rollout = UnderWay {
                revision: Arc::clone(revision),
                hosts: hosts.collect(),
            };
            Some((app.clone(), rollout))
        });
        rolled.collect()
    }

    pub(super) fn hear(&mut self, report: Report) {
        let key = (report.host.clone(), report.app.clone());
        self.reports.insert(key, report);
    }

    /// A report that was taken back, by its key.
    pub(super) fn unhear(&mut self, key: &str) {
        if let Some((host, app)) = key.split_once('.') {
            self.reports.remove(&(host.to_owned(), app.to_owned()));
        }
    }

    /// Whether what is known is new enough to act on. Who does not see its own signs of life sees nothing
    /// of others either, and would take all of them for dead.
    ///
    /// When it sees its own again, those of others may come a moment later, so they have their time anew.
    pub(super) fn is_fresh(&mut self, now: Instant) -> bool {
        let is_fresh = self.is_alive(&self.name, now);
        if is_fresh && !self.was_fresh {
            for (_, seen) in self.hosts.values_mut() {
                *seen = now;
            }
        }
        self.was_fresh = is_fresh;
        is_fresh
    }

    fn is_alive(&self, host: &str, now: Instant) -> bool {
        let seen = self.hosts.get(host).map(|(_, seen)| *seen);
        seen.is_some_and(|seen| now.saturating_duration_since(seen) < DEAD)
    }

    /// Whether the fleet knows that this host is about to stop.
    pub(super) fn is_leaving(&self) -> bool {
        let own = self.hosts.get(&self.name);
        own.is_some_and(|(record, _)| record.leaving)
    }

    /// Looks which hosts are alive; returns whether that has changed since the last look, and says so.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        let names = self.hosts.keys().filter(|name| self.is_alive(name, now));
        let alive: BTreeSet<_> = names.cloned().collect();
        for host in alive
            .difference(&self.alive)
            .filter(|host| **host != self.name)
        {
            tracing::info!(host, "a host is there");
        }
        for host in self.alive.difference(&alive) {
            tracing::warn!(host, "a host is gone");
        }
        let changed = alive != self.alive;
        self.alive = alive;
        changed
    }

    /// The hosts that services are placed on.
    fn members(&self) -> Vec<Member> {
        let records = self.alive.iter().filter_map(|name| self.hosts.get(name));
        let staying = records.filter(|(record, _)| record.takes_services());
        staying.map(|(record, _)| record.member()).collect()
    }

    /// Where all services of the fleet run.
    pub(super) fn placement(&self) -> Placement {
        let specified = self.apps.values();
        let specified = specified.filter_map(|revision| revision.specification.as_ref());
        let demands = specified.flat_map(|specification| demands(&specification.app));
        place(demands, &self.members())
    }

    /// What this host has to do with an app of which it runs these services; nothing if that is nothing.
    /// A host with a gateway has to do with all of them.
    pub(super) fn target(
        &self,
        app: &str,
        placement: &Placement,
        running: &BTreeSet<String>,
        has_gateway: bool,
    ) -> Option<Target> {
        let revision = self.apps.get(app)?;
        let specification = revision.specification.as_ref()?;
        let mut target = Target {
            revision: Arc::clone(revision),
            here: BTreeSet::new(),
            held: BTreeSet::new(),
        };
        for service in specification.app.services.keys() {
            let hosts = placement.of(app, service).map(|placed| &placed.hosts);
            let mut hosts = hosts.into_iter().flatten();
            if hosts.clone().any(|host| *host == self.name) {
                target.here.insert(service.clone());
                continue;
            }
            let is_everywhere = hosts.all(|host| self.serves(host, app, service));
            if running.contains(service) && !is_everywhere {
                target.held.insert(service.clone());
            }
        }
        let has_work = has_gateway || !target.here.is_empty() || !target.held.is_empty();
        has_work.then_some(target)
    }

    /// Whether a host says that it serves a service.
    fn serves(&self, host: &str, app: &str, service: &str) -> bool {
        let report = self.reports.get(&(host.to_owned(), app.to_owned()));
        let (Some(report), Some((record, _))) = (report, self.hosts.get(host)) else {
            return false;
        };
        let state = report.services.get(service).map(|service| service.state);
        report.id == record.id && state == Some(ServiceState::Serving)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fleet::{FORMAT, ServiceReport};
    use crate::manifest::Digest;

    fn record(name: &str, leaving: bool) -> HostRecord {
        HostRecord {
            leaving,
            ..HostRecord::of(name, &format!("{name}-1"))
        }
    }

    fn report(host: &str, id: &str, state: ServiceState) -> Report {
        let service = ServiceReport {
            state,
            digest: Digest::of(b"a"),
            since: String::new(),
            error: None,
        };
        Report {
            format: FORMAT,
            host: host.to_owned(),
            id: id.to_owned(),
            app: "shop".to_owned(),
            revision: 1,
            error: None,
            services: BTreeMap::from([("a".to_owned(), service)]),
        }
    }

    /// What the host has to do, as it sees the fleet.
    fn target_of(
        view: &View,
        app: &str,
        running: &BTreeSet<String>,
        has_gateway: bool,
    ) -> Option<Target> {
        view.target(app, &view.placement(), running, has_gateway)
    }

    /// The view of the host `x` beside these others.
    fn view(others: &[&str], now: Instant) -> View {
        let mut view = View::new("x");
        view.apps.insert(
            "shop".to_owned(),
            Arc::new(Revision::of_shop(1, "replicas = \"all\"")),
        );
        for name in others.iter().chain(&["x"]) {
            view.see(record(name, false), now);
        }
        view.look(now);
        view
    }

    #[test]
    fn a_host_without_signs_of_life_is_dead_and_then_alive_again() {
        let now = Instant::now();
        let mut view = view(&["y"], now);
        assert_eq!(view.members().len(), 2);
        let later = now + DEAD;
        view.see(record("x", false), later);
        assert!(view.look(later) && view.is_fresh(later));
        assert_eq!(view.members().len(), 1);
        view.see(record("y", false), later);
        assert!(view.look(later) && !view.look(later));
    }

    #[test]
    fn who_sees_nothing_of_itself_knows_nothing() {
        let now = Instant::now();
        let mut view = view(&["y"], now);
        assert!(view.is_fresh(now + Duration::from_secs(1)));
        let later = now + DEAD * 2;
        assert!(!view.is_fresh(later));
        // The own sign of life may be the first one that comes again.
        view.see(record("x", false), later);
        assert!(view.is_fresh(later));
        view.look(later);
        assert_eq!(view.members().len(), 2);
        let last = later + DEAD;
        view.see(record("x", false), last);
        assert!(view.is_fresh(last) && view.look(last));
        assert_eq!(view.members().len(), 1);
    }

    #[test]
    fn a_host_that_leaves_holds_what_does_not_run_elsewhere_yet() {
        let now = Instant::now();
        let mut view = view(&["y"], now);
        let running = BTreeSet::from(["a".to_owned()]);
        view.see(record("x", true), now);
        let held = |view: &View| target_of(view, "shop", &running, false).map(|target| target.held);
        assert_eq!(held(&view), Some(running.clone()));
        view.hear(report("y", "y-1", ServiceState::Starting));
        assert!(held(&view).is_some());
        // What a process said that has ended since.
        view.hear(report("y", "y-0", ServiceState::Serving));
        assert!(held(&view).is_some());
        view.hear(report("y", "y-1", ServiceState::Serving));
        assert_eq!(held(&view), None);
        view.unhear("y.shop");
        assert!(held(&view).is_some());
        // Without another host there is nobody to wait for.
        view.lose("y");
        view.look(now);
        assert_eq!(held(&view), None);
    }

    #[test]
    fn a_drained_host_hands_over_and_stays() {
        let now = Instant::now();
        let mut view = view(&["y"], now);
        let running = BTreeSet::from(["a".to_owned()]);
        let drained = |drained| HostRecord {
            drained,
            ..record("x", false)
        };
        view.see(drained(true), now);
        let target = target_of(&view, "shop", &running, false).unwrap();
        assert!(target.here.is_empty() && target.held == running);
        view.hear(report("y", "y-1", ServiceState::Serving));
        assert_eq!(target_of(&view, "shop", &running, false), None);
        view.see(drained(false), now);
        assert_eq!(
            target_of(&view, "shop", &running, false).unwrap().here,
            running
        );
    }

    #[test]
    fn a_host_with_a_gateway_has_to_do_with_every_app() {
        let now = Instant::now();
        let mut view = view(&[], now);
        view.see(record("x", true), now);
        let none = BTreeSet::new();
        assert_eq!(target_of(&view, "shop", &none, false), None);
        assert!(target_of(&view, "shop", &none, true).is_some());
        assert_eq!(target_of(&view, "other", &none, true), None);
        view.see(record("x", false), now);
        let target = target_of(&view, "shop", &none, false).unwrap();
        assert!(target.here.contains("a") && target.held.is_empty());
    }

    #[test]
    fn a_rollout_is_under_way_until_it_has_ended() {
        let now = Instant::now();
        let mut view = view(&["y"], now);
        let mut revision = Revision::of_shop(2, "replicas = \"all\"\nrollout = {}");
        let new = revision.specification.as_mut().unwrap();
        new.components.insert("a".to_owned(), Digest::of(b"b"));
        revision.stable = Revision::of_shop(1, "replicas = \"all\"").specification;
        view.revise("shop", revision.clone());
        let under_way = view.under_way(&view.placement());
        let hosts = under_way["shop"].hosts["a"].iter();
        assert_eq!(hosts.collect::<Vec<_>>(), ["x", "y"]);
        let outcome = |revision| Outcome {
            format: FORMAT,
            app: "shop".to_owned(),
            revision,
            went_on: false,
            why: String::new(),
            host: "y".to_owned(),
            at: String::new(),
        };
        assert!(!view.end(outcome(1)) && view.end(outcome(2)) && !view.end(outcome(2)));
        assert!(view.under_way(&view.placement()).is_empty());
        assert_eq!(view.apps["shop"].specification, revision.stable);
        // Whatever is told again, and in which order, it does not begin anew.
        view.revise("shop", revision.clone());
        assert!(view.under_way(&view.placement()).is_empty());
        let next = Revision {
            number: 3,
            ..revision
        };
        view.revise("shop", next);
        assert_eq!(view.under_way(&view.placement()).len(), 1);
    }
}
