//! Counts of requests, by route, method and status.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode};

use crate::manifest::keys;
use crate::per_core::PerCore;
use crate::telemetry::Distribution;

/// What a request is counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Kind {
    /// The method, or `_OTHER` for one that no route can name.
    pub(crate) method: &'static str,
    pub(crate) status: u16,
}

type Routes = HashMap<Box<str>, HashMap<Kind, Distribution>>;

/// The requests of a gateway. Routes are those of the manifest and the gateway's own, never what a
/// client sent, so their number is bounded.
#[derive(Default)]
pub(crate) struct Counts(PerCore<Mutex<Routes>>);

impl Counts {
    /// Counts a request that was answered.
    pub(super) fn record(&self, route: &str, method: &Method, status: StatusCode, time: Duration) {
        let methods = keys::METHODS.iter();
        let method = methods.copied().find(|known| *known == method.as_str());
        let kind = Kind {
            method: method.unwrap_or("_OTHER"),
            status: status.as_u16(),
        };
        let mut routes = lock(self.0.own());
        let kinds = match routes.get_mut(route) {
            Some(kinds) => kinds,
            None => routes.entry(route.into()).or_default(),
        };
        kinds.entry(kind).or_default().record(time);
    }

    /// The durations of all requests until now.
    pub(crate) fn read(&self) -> BTreeMap<(Box<str>, Kind), Distribution> {
        let mut all: BTreeMap<_, Distribution> = BTreeMap::new();
        for routes in self.0.all() {
            for (route, kinds) in lock(routes).iter() {
                for (kind, durations) in kinds {
                    all.entry((route.clone(), *kind))
                        .or_default()
                        .add(durations);
                }
            }
        }
        all
    }
}

fn lock(routes: &Mutex<Routes>) -> MutexGuard<'_, Routes> {
    routes.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_method_and_status() {
        let counts = Counts::default();
        let lock: Method = "LOCK".parse().unwrap();
        for (method, status) in [
            (&Method::GET, StatusCode::OK),
            (&Method::GET, StatusCode::OK),
            (&Method::GET, StatusCode::NOT_FOUND),
            (&lock, StatusCode::OK),
        ] {
            counts.record("/a", method, status, Duration::from_millis(1));
        }
        let read: Vec<_> = counts
            .read()
            .into_iter()
            .map(|((_, kind), durations)| (kind.method, kind.status, durations.count()))
            .collect();
        assert_eq!(read, [("GET", 200, 2), ("GET", 404, 1), ("_OTHER", 200, 1)]);
    }
}
