//! Which hosts run which services: rendezvous hashing over the hosts that can. Pure.
//!
//! Every pair of service and host has a score that follows from their names alone, and a service runs
//! on the hosts with the highest ones. So hosts agree without asking each other, and a host that
//! comes or goes moves only what it gets or had.
//!
//! Two things bend that. A service that is spread takes the best host of each zone before the second one
//! of any. And a host takes no more than it has memory for: services choose one after the other, those
//! that need most first, since what is large finds room last; who finds a host full goes on to its next
//! one. Then what comes or goes can move others along, but only while hosts are full.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::manifest::values::size_text;
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
    /// The bytes of memory that services may reserve on it; any number unless given.
    pub capacity: Option<u64>,
    /// The app of which it runs every service, whatever its labels, and besides which it runs none.
    pub app: Option<String>,
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
    /// The label over whose values it is spread.
    pub spread: Option<&'a str>,
    /// The bytes of memory that it reserves on each host.
    pub reserve: u64,
    /// Whether it answers HTTP requests itself. A gateway hands those over within its process, so
    /// the service runs on every host with a gateway that it can run on, whatever its replicas.
    pub http: bool,
}

/// Why a service runs on fewer hosts than it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// There is no host that takes services.
    NoHost,
    /// There are hosts, but each runs one other app alone.
    OtherApps(BTreeSet<String>),
    /// There are hosts, but none with these labels.
    NoneWith(BTreeMap<String, String>),
    /// It answers HTTP requests, and no host with these labels has a gateway.
    NoGateway(BTreeMap<String, String>),
    /// No host that it can run on has room for it.
    NoRoom {
        /// The bytes that it reserves.
        reserve: u64,
        /// The most that any of the hosts has left.
        most: u64,
    },
    /// There are fewer hosts that it can run on, or that have room for it.
    Fewer {
        /// Its replicas.
        wanted: usize,
        /// The hosts.
        found: usize,
        /// Further hosts, without room for it.
        full: usize,
        /// The bytes that it reserves.
        reserve: u64,
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
            Self::OtherApps(apps) => {
                let apps: Vec<_> = apps.iter().map(|app| format!("\"{app}\"")).collect();
                write!(f, "`wasmbay up` runs app {} alone; `wasmbay host` starts a host for any app", apps.join(", "))
            }
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
            Self::NoRoom { reserve, most } => {
                let (reserve, most) = (size_text(*reserve), size_text(*most));
                write!(f, "no host has room for the {reserve} that it reserves, the most that one has left is {most}; start another host, raise `--capacity`, or lower `reserve`")
            }
            Self::Fewer { wanted, found, full, reserve } => {
                write!(f, "{wanted} replicas are asked for, and {found} hosts can run it")?;
                if *full > 0 {
                    let reserve = size_text(*reserve);
                    write!(f, "; {full} more have no room for the {reserve} that it reserves")?;
                }
                Ok(())
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

/// Where all services of a fleet run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// By app and service.
    placed: BTreeMap<(String, String), Placed>,
    /// The bytes that services reserve, by host.
    reserved: BTreeMap<String, u64>,
}

impl Placement {
    /// Where a service runs.
    #[must_use]
    pub fn of(&self, app: &str, service: &str) -> Option<&Placed> {
        self.placed.get(&(app.to_owned(), service.to_owned()))
    }

    /// The services that run nowhere, by app and name, and why.
    pub fn unplaced(&self) -> impl Iterator<Item = (&str, &str, &Lack)> {
        self.placed.iter().filter_map(|((app, service), placed)| {
            let lack = placed.lack.as_ref().filter(|lack| lack.is_total())?;
            Some((app.as_str(), service.as_str(), lack))
        })
    }

    /// The bytes that services reserve on a host.
    #[must_use]
    pub fn reserved(&self, host: &str) -> u64 {
        self.reserved.get(host).copied().unwrap_or_default()
    }
}

/// The services of an app, as they are to be placed.
pub fn demands(app: &App) -> impl Iterator<Item = Demand<'_>> {
    let https: BTreeSet<&str> = app
        .routes
        .iter()
        .filter_map(|route| match &route.target {
            Target::Http { service } => Some(service.as_str()),
            Target::Function { .. } | Target::Events { .. } => None,
        })
        .collect();
    app.services.iter().map(move |(name, spec)| Demand {
        app: &app.name,
        service: name,
        replicas: spec.replicas,
        require: &spec.require,
        spread: spec.spread.as_deref(),
        reserve: spec.reserve(),
        http: https.contains(name.as_str()),
    })
}

/// Places all services of a fleet on its hosts.
#[must_use]
pub fn place<'a>(demands: impl IntoIterator<Item = Demand<'a>>, members: &[Member]) -> Placement {
    let mut demands: Vec<_> = demands.into_iter().collect();
    demands.sort_by(|one, other| {
        let by_size = other.reserve.cmp(&one.reserve);
        by_size.then_with(|| (one.app, one.service).cmp(&(other.app, other.service)))
    });
    let mut placement = Placement::default();
    for demand in demands {
        let placed = placement.choose(&demand, members);
        for host in &placed.hosts {
            let reserved = placement.reserved.entry(host.clone()).or_default();
            *reserved = reserved.saturating_add(demand.reserve);
        }
        let key = (demand.app.to_owned(), demand.service.to_owned());
        placement.placed.insert(key, placed);
    }
    placement
}

impl Placement {
    /// What is left on a host by those that have chosen already.
    fn left(&self, member: &Member) -> u64 {
        let capacity = member.capacity.unwrap_or(u64::MAX);
        capacity.saturating_sub(self.reserved(&member.name))
    }

    /// The hosts of a service, after those of all that come before it.
    fn choose(&self, demand: &Demand<'_>, members: &[Member]) -> Placed {
        let able = match able(demand, members) {
            Ok(able) => able,
            Err(lack) => return lacking(lack),
        };
        let most = able.iter().map(|member| self.left(member)).max();
        let all = able.len();
        let mut open = able;
        open.retain(|member| member.capacity.is_none() || self.left(member) >= demand.reserve);
        let full = all - open.len();
        if open.is_empty() {
            return lacking(Lack::NoRoom {
                reserve: demand.reserve,
                most: most.unwrap_or_default(),
            });
        }
        let wanted = match demand.replicas {
            _ if demand.http => all,
            Replicas::All => all,
            Replicas::Count(wanted) => usize::try_from(wanted).unwrap_or(usize::MAX),
        };
        let found = open.len();
        // The default of two means as many as there are on one host, and any number does where one host
        // is to run all of its app.
        let is_alone = open.iter().all(|member| member.app.is_some());
        let is_short = found < wanted && (wanted > 2 || full > 0) && !is_alone;
        Placed {
            hosts: ranked(demand, open).take(wanted).collect(),
            lack: is_short.then_some(Lack::Fewer {
                wanted,
                found,
                full,
                reserve: demand.reserve,
            }),
        }
    }
}

/// The hosts that a service can run on, whatever runs there.
fn able<'m>(demand: &Demand<'_>, members: &'m [Member]) -> Result<Vec<&'m Member>, Lack> {
    if members.is_empty() {
        return Err(Lack::NoHost);
    }
    let is_for = |member: &&Member| {
        let mut apps = member.app.iter();
        apps.all(|app| app == demand.app)
    };
    let meets = |member: &&Member| {
        let mut require = demand.require.iter();
        let has = require.all(|(name, value)| member.labels.get(name) == Some(value));
        has || member.app.is_some()
    };
    let mut able: Vec<_> = members.iter().filter(is_for).collect();
    if able.is_empty() {
        let apps = members.iter().filter_map(|member| member.app.clone());
        return Err(Lack::OtherApps(apps.collect()));
    }
    able.retain(meets);
    if able.is_empty() {
        return Err(Lack::NoneWith(demand.require.clone()));
    }
    if demand.http {
        able.retain(|member| member.gateway || member.app.is_some());
        if able.is_empty() {
            return Err(Lack::NoGateway(demand.require.clone()));
        }
    }
    Ok(able)
}

/// Hosts in the order in which a service prefers them. Where it is spread, the best one of each zone comes
/// before the second one of any; hosts without the label are a zone of their own.
fn ranked<'m>(
    demand: &Demand<'_>,
    hosts: Vec<&'m Member>,
) -> impl Iterator<Item = String> + use<'m> {
    let mut hosts = hosts;
    hosts.sort_by_cached_key(|member| {
        let score = score(demand.app, demand.service, &member.name);
        (std::cmp::Reverse(score), member.name.clone())
    });
    if let Some(label) = demand.spread {
        let mut taken: HashMap<Option<&String>, usize> = HashMap::new();
        // Sorting is stable: by rank in the zone, then by score.
        hosts.sort_by_cached_key(|member| {
            let rank = taken.entry(member.labels.get(label)).or_default();
            *rank += 1;
            *rank
        });
    }
    hosts.into_iter().map(|member| member.name.clone())
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
mod tests;
