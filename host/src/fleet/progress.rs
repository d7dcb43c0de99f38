//! How far hosts are with a revision, by what they report. Pure.

use std::collections::BTreeMap;

use super::records::{HostRecord, Report, Revision, ServiceState};
use super::{Lack, Member, Placement, demands, place};
use crate::manifest::App;

/// A service on a host that is to run it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The service.
    pub service: String,
    /// The host.
    pub host: String,
    /// How far it is.
    pub state: ReplicaState,
}

/// How far a replica is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaState {
    /// The host has said nothing of it yet.
    Waiting,
    /// The host brings it up.
    Coming(ServiceState),
    /// It answers, in this revision, since this time.
    Serving(String),
    /// It could not be brought up.
    Failed(String),
}

/// How far a revision is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// By service and host.
    pub replicas: Vec<Replica>,
    /// Services on fewer hosts than they should have.
    pub lacks: BTreeMap<String, Lack>,
    /// Hosts that still run services of the app that they should not, and which.
    pub leaving: BTreeMap<String, Vec<String>>,
}

impl ReplicaState {
    /// As it is shown.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Coming(state) => state.as_str(),
            Self::Serving(_) => "serving",
            Self::Failed(_) => "failed",
        }
    }
}

impl Progress {
    /// Whether every service runs where it should.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let serves = |replica: &Replica| matches!(replica.state, ReplicaState::Serving(_));
        !self.lacks.values().any(Lack::is_total) && self.replicas.iter().all(serves)
    }

    /// Whether something is wrong and nothing is under way.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        let moves = |replica: &Replica| {
            matches!(
                replica.state,
                ReplicaState::Waiting | ReplicaState::Coming(_)
            )
        };
        !self.is_done() && !self.replicas.iter().any(moves)
    }

    /// Replicas that answer.
    #[must_use]
    pub fn serving(&self) -> usize {
        let serves = |replica: &&Replica| matches!(replica.state, ReplicaState::Serving(_));
        self.replicas.iter().filter(serves).count()
    }
}

/// Where all services of these apps run on these hosts.
#[must_use]
pub fn placement_of<'a>(
    apps: impl IntoIterator<Item = &'a App>,
    hosts: &[HostRecord],
) -> Placement {
    let staying = hosts.iter().filter(|record| record.takes_services());
    let members: Vec<Member> = staying.map(HostRecord::member).collect();
    place(apps.into_iter().flat_map(demands), &members)
}

/// How far these hosts are with a revision of an app, by these reports. Those of other processes count for
/// nothing.
#[must_use]
pub fn progress(
    revision: &Revision,
    app: &str,
    placement: &Placement,
    hosts: &[HostRecord],
    reports: &[Report],
) -> Progress {
    let report = |host: &str| {
        let record = hosts.iter().find(|record| record.name == host)?;
        let mut own = reports.iter();
        own.find(|report| report.host == host && report.id == record.id && report.app == app)
    };
    let mut progress = Progress::default();
    let specification = revision.specification.as_ref();
    let services = specification
        .into_iter()
        .flat_map(|s| s.app.services.keys());
    for service in services {
        let placed = placement.of(app, service).cloned().unwrap_or_default();
        for host in placed.hosts {
            let state = report(&host).map_or(ReplicaState::Waiting, |report| {
                state_in(report, revision.number, service)
            });
            let service = service.clone();
            progress.replicas.push(Replica {
                service,
                host,
                state,
            });
        }
        if let Some(lack) = placed.lack {
            progress.lacks.insert(service.clone(), lack);
        }
    }
    for record in hosts {
        let Some(report) = report(&record.name) else {
            continue;
        };
        let is_placed = |service: &&String| {
            let mut replicas = progress.replicas.iter();
            replicas.any(|replica| replica.service == **service && replica.host == record.name)
        };
        let left: Vec<_> = report
            .services
            .keys()
            .filter(|s| !is_placed(s))
            .cloned()
            .collect();
        if !left.is_empty() {
            progress.leaving.insert(record.name.clone(), left);
        }
    }
    progress
}

/// The state of a service in a report.
fn state_in(report: &Report, revision: u64, service: &str) -> ReplicaState {
    if report.revision < revision {
        return ReplicaState::Waiting;
    }
    if let Some(error) = &report.error {
        return ReplicaState::Failed(error.clone());
    }
    let Some(own) = report.services.get(service) else {
        return ReplicaState::Waiting;
    };
    match own.state {
        ServiceState::Serving | ServiceState::HandingOver => {
            ReplicaState::Serving(own.since.clone())
        }
        ServiceState::Failed => ReplicaState::Failed(own.error.clone().unwrap_or_default()),
        state @ (ServiceState::Fetching | ServiceState::Starting) => ReplicaState::Coming(state),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::records::{FORMAT, ServiceReport};
    use crate::manifest::Digest;

    /// The progress of a fleet of one app.
    fn progress(
        revision: &Revision,
        app: &str,
        hosts: &[HostRecord],
        reports: &[Report],
    ) -> Progress {
        let apps = revision.specification.iter().map(|s| &s.app);
        let placement = placement_of(apps, hosts);
        super::progress(revision, app, &placement, hosts, reports)
    }

    fn report(host: &str, id: &str, revision: u64, state: ServiceState) -> Report {
        let service = ServiceReport {
            state,
            digest: Digest::of(b"a"),
            since: "now".to_owned(),
            error: (state == ServiceState::Failed).then(|| "it trapped".to_owned()),
        };
        Report {
            format: FORMAT,
            host: host.to_owned(),
            id: id.to_owned(),
            app: "shop".to_owned(),
            revision,
            error: None,
            services: BTreeMap::from([("a".to_owned(), service)]),
        }
    }

    #[test]
    fn a_revision_is_done_when_every_host_serves_it() {
        use ServiceState::{Failed, Serving, Starting};
        let hosts = [HostRecord::of("x", "1"), HostRecord::of("y", "2")];
        let at = |reports: &[Report]| progress(&Revision::of_shop(3, ""), "shop", &hosts, reports);
        let both = |state| [report("x", "1", 3, Serving), report("y", "2", 3, state)];
        assert!(at(&both(Serving)).is_done());
        let coming = at(&both(Starting));
        assert!(!coming.is_done() && !coming.is_stuck() && coming.serving() == 1);
        assert!(at(&both(Failed)).is_stuck());
        // Of an earlier revision, and of a process that has ended.
        assert!(!at(&[report("x", "1", 2, Serving), report("y", "2", 3, Serving)]).is_done());
        assert!(!at(&[report("x", "9", 3, Serving), report("y", "2", 3, Serving)]).is_done());
    }

    #[test]
    fn what_cannot_be_placed_is_stuck() {
        let none = progress(&Revision::of_shop(1, ""), "shop", &[], &[]);
        assert!(none.is_stuck() && none.lacks["a"] == Lack::NoHost);
        let hosts = [HostRecord::of("x", "1")];
        let reports = [report("x", "1", 1, ServiceState::Serving)];
        let one = progress(
            &Revision::of_shop(1, "replicas = 3"),
            "shop",
            &hosts,
            &reports,
        );
        assert!(one.is_done() && one.lacks.len() == 1);
    }

    #[test]
    fn what_runs_where_it_should_not_is_told() {
        let hosts = [
            HostRecord::of("x", "1"),
            HostRecord::of("y", "2"),
            HostRecord::of("z", "3"),
        ];
        let all = ["x", "y", "z"].map(|name| {
            let id = hosts
                .iter()
                .find(|host| host.name == name)
                .unwrap()
                .id
                .clone();
            report(name, &id, 1, ServiceState::Serving)
        });
        let found = progress(&Revision::of_shop(1, ""), "shop", &hosts, &all);
        assert_eq!(found.leaving.len(), 1);
        let undeployed = Revision {
            specification: None,
            ..Revision::of_shop(2, "")
        };
        let found = progress(&undeployed, "shop", &hosts, &all);
        assert_eq!((found.leaving.len(), found.replicas.len()), (3, 0));
    }
}
