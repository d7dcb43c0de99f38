//! Which hosts run a service: rendezvous hashing over the hosts that can. Pure.
//!
//! Every pair of service and host has a score that follows from their names alone, and a service runs
//! on the hosts with the highest ones. So hosts agree without asking each other, and a host that
//! comes or goes moves only what it gets or had.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::manifest::{App, Replicas, Target};

/// A host that can run services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name, which no other host has.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it has a gateway.
    pub gateway: bool,
}

/// A service that is to run somewhere.
#[derive(Clone, Debug)]
pub struct Demand<'a> {
    /// Its app.
    pub app: &'a str,
    /// Its name.
    pub service: &'a str,
    /// The number of hosts.
    pub replicas: Replicas,
    /// The labels that they must have.
    pub require: &'a BTreeMap<String, String>,
    /// Whether it answers HTTP requests itself. A gateway hands those over within its process, so
    /// the service runs on every host with a gateway that it can run on, whatever its replicas.
    pub http: bool,
}

/// Why a service runs on fewer hosts than it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// There is no host that takes services.
    NoHost,
    /// There are hosts, but none with these labels.
    NoneWith(BTreeMap<String, String>),
    /// It answers HTTP requests, and no host with these labels has a gateway.
    NoGateway(BTreeMap<String, String>),
    /// There are fewer hosts that it can run on.
    Fewer {
        /// Its replicas.
        wanted: u32,
        /// The hosts.
        found: usize,
    },
}

impl Lack {
    /// Whether the service runs nowhere.
    #[must_use]
    pub fn is_total(&self) -> bool {
        !matches!(self, Self::Fewer { .. })
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = |labels: &BTreeMap<String, String>| {
            let labels = labels.iter().map(|(name, value)| format!("{name}={value}"));
            labels.collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::NoHost => f.write_str("no host takes services; `wasmbay host` starts one, and `wasmbay uncordon HOST` has a drained one take them again"),
            Self::NoneWith(require) => {
                let labels = labels(require);
                write!(f, "no host has {labels}; start one with `--label`, or change `require`")
            }
            Self::NoGateway(require) if require.is_empty() => {
                f.write_str("it answers HTTP requests, and no host has a gateway; start one with `--gateway ADDR`")
            }
            Self::NoGateway(require) => {
                let labels = labels(require);
                write!(f, "it answers HTTP requests, and no host with {labels} has a gateway; start one with `--gateway ADDR`")
            }
            Self::Fewer { wanted, found } => {
                write!(f, "{wanted} replicas are asked for, and {found} hosts can run it")
            }
        }
    }
}

/// Where a service runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// The hosts by name.
    pub hosts: BTreeSet<String>,
    /// Why they are fewer than asked for. Fewer than the usual two on a single host is no lack.
    pub lack: Option<Lack>,
}

/// The services of an app, as they are to be placed.
pub fn demands(app: &App) -> impl Iterator<Item = Demand<'_>> {
    let https: BTreeSet<&str> = app
        .routes
        .iter()
        .filter_map(|route| match &route.target {
            Target::Http { service } => Some(service.as_str()),
            Target::Function { .. } => None,
        })
        .collect();
    app.services.iter().map(move |(name, spec)| Demand {
        app: &app.name,
        service: name,
        replicas: spec.replicas,
        require: &spec.require,
        http: https.contains(name.as_str()),
    })
}

/// Places a service on these hosts.
#[must_use]
pub fn place(demand: &Demand<'_>, members: &[Member]) -> Placed {
    if members.is_empty() {
        return lacking(Lack::NoHost);
    }
    let meets = |member: &&Member| {
        let mut require = demand.require.iter();
        require.all(|(name, value)| member.labels.get(name) == Some(value))
    };
    let mut able: Vec<_> = members.iter().filter(meets).collect();
    if able.is_empty() {
        return lacking(Lack::NoneWith(demand.require.clone()));
    }
    if demand.http {
        able.retain(|member| member.gateway);
        if able.is_empty() {
            return lacking(Lack::NoGateway(demand.require.clone()));
        }
        return Placed {
            hosts: able.into_iter().map(|member| member.name.clone()).collect(),
            lack: None,
        };
    }
    let (count, lack) = match demand.replicas {
        Replicas::All => (able.len(), None),
        Replicas::Count(wanted) => {
            let count = usize::try_from(wanted).unwrap_or(usize::MAX);
            // The default of two means as many as there are on one host.
            let short = able.len() < count && wanted > 2;
            let found = able.len();
            (count, short.then_some(Lack::Fewer { wanted, found }))
        }
    };
    able.sort_by_cached_key(|member| {
        let score = score(demand.app, demand.service, &member.name);
        (std::cmp::Reverse(score), member.name.clone())
    });
    let hosts = able.into_iter().take(count);
    Placed {
        hosts: hosts.map(|member| member.name.clone()).collect(),
        lack,
    }
}

fn lacking(lack: Lack) -> Placed {
    Placed {
        hosts: BTreeSet::new(),
        lack: Some(lack),
    }
}

/// The score of a pair. None of the names has a NUL.
fn score(app: &str, service: &str, host: &str) -> u64 {
    let hash = Sha256::digest(format!("{app}\0{service}\0{host}"));
    hash.iter()
        .take(8)
        .fold(0, |score, byte| score << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(name: &str) -> Member {
        Member {
            name: name.to_owned(),
            labels: BTreeMap::new(),
            gateway: false,
        }
    }

    fn members(count: usize) -> Vec<Member> {
        (0..count).map(|i| member(&format!("host-{i}"))).collect()
    }

    static NONE: BTreeMap<String, String> = BTreeMap::new();

    fn demand(service: &str, replicas: Replicas) -> Demand<'_> {
        Demand {
            app: "shop",
            service,
            replicas,
            require: &NONE,
            http: false,
        }
    }

    #[test]
    fn a_service_runs_on_as_many_hosts_as_it_asks_for() {
        let hosts = members(5);
        for count in 1..=5 {
            let placed = place(&demand("orders", Replicas::Count(count)), &hosts);
            assert_eq!((placed.hosts.len(), placed.lack), (count as usize, None));
        }
        let all = place(&demand("orders", Replicas::All), &hosts);
        assert_eq!(all.hosts.len(), 5);
    }

    #[test]
    fn what_is_missing_is_said() {
        let lack = |replicas, hosts: &[Member]| place(&demand("orders", replicas), hosts).lack;
        assert_eq!(lack(Replicas::Count(2), &members(1)), None);
        assert_eq!(lack(Replicas::Count(2), &[]), Some(Lack::NoHost));
        let few = lack(Replicas::Count(3), &members(2)).unwrap();
        assert!(!few.is_total());
        assert_eq!(
            few.to_string(),
            "3 replicas are asked for, and 2 hosts can run it"
        );
        let require = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
        let demand = Demand {
            require: &require,
            ..demand("orders", Replicas::Count(1))
        };
        let placed = place(&demand, &members(2));
        assert_eq!(placed.hosts.len(), 0);
        assert_eq!(
            placed.lack.unwrap().to_string(),
            "no host has zone=a; start one with `--label`, or change `require`"
        );
        let mut labelled = members(2);
        labelled[1].labels = require.clone();
        let placed = place(&demand, &labelled);
        assert!(placed.hosts.contains("host-1") && placed.lack.is_none());
    }

    #[test]
    fn what_answers_http_runs_where_gateways_are() {
        let demand = Demand {
            http: true,
            ..demand("site", Replicas::Count(1))
        };
        let mut hosts = members(3);
        assert_eq!(
            place(&demand, &hosts).lack,
            Some(Lack::NoGateway(BTreeMap::new()))
        );
        hosts[0].gateway = true;
        hosts[2].gateway = true;
        let placed = place(&demand, &hosts);
        assert_eq!(Vec::from_iter(placed.hosts), ["host-0", "host-2"]);
    }

    #[test]
    fn services_are_spread_evenly() {
        let hosts = members(4);
        let mut counts = BTreeMap::new();
        for i in 0..4_000 {
            let service = format!("service-{i}");
            for host in place(&demand(&service, Replicas::Count(1)), &hosts).hosts {
                *counts.entry(host).or_insert(0) += 1;
            }
        }
        for (host, count) in counts {
            assert!((850..1_150).contains(&count), "{host} has {count}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Adding a host to N moves at most 1/(N+1) of the placements (up to chance), all of them to it.
        #[test]
        fn a_host_that_comes_moves_only_what_it_gets(count in 1usize..12, replicas in 1u32..4, new in "[a-z]{4,12}") {
            const SERVICES: usize = 2_000;
            let before = members(count);
            let mut after = before.clone();
            after.push(member(&new));
            let (mut moved, mut placements) = (0usize, 0usize);
            for i in 0..SERVICES {
                let service = format!("service-{i}");
                let demand = demand(&service, Replicas::Count(replicas));
                let (old, now) = (place(&demand, &before).hosts, place(&demand, &after).hosts);
                let gone = old.difference(&now).count();
                let came: Vec<_> = now.difference(&old).collect();
                prop_assert!(came.iter().all(|host| **host == new), "{came:?}");
                prop_assert!(gone <= came.len());
                moved += gone;
                placements += old.len();
            }
            // Expected is 1/(N+1); three percent of all is six standard deviations at the widest.
            let most = placements / (count + 1) + placements * 3 / 100 + 1;
            prop_assert!(moved <= most, "{moved} of {placements} moved for {count} hosts");
        }

        #[test]
        fn a_host_that_goes_moves_only_what_it_had(count in 2usize..10, gone in 0usize..10, service in "[a-z]{1,10}") {
            let before = members(count);
            let mut after = before.clone();
            let left = after.remove(gone % count).name;
            let demand = demand(&service, Replicas::Count(2));
            let (old, now) = (place(&demand, &before).hosts, place(&demand, &after).hosts);
            prop_assert!(old.difference(&now).all(|host| *host == left));
            prop_assert!(now.len() == 2.min(count - 1));
        }

        #[test]
        fn the_order_of_hosts_means_nothing(mut names in prop::collection::btree_set("[a-z]{1,8}", 1..8), service in "[a-z]{1,8}") {
            names.insert("x".to_owned());
            let forth: Vec<_> = names.iter().map(|name| member(name)).collect();
            let back: Vec<_> = names.iter().rev().map(|name| member(name)).collect();
            let demand = demand(&service, Replicas::Count(2));
            prop_assert_eq!(place(&demand, &forth), place(&demand, &back));
        }
    }
}
