//! What a revision of an app changes, for people. Pure.

use std::collections::BTreeSet;
use std::fmt;

use crate::manifest::values::size_text;
use crate::manifest::{Digest, Replicas, Specification};

/// One difference between two revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A service that was not there.
    Started(String, Digest),
    /// A service that is not there any more.
    Stopped(String),
    /// A service with another component.
    Swapped {
        /// The service.
        service: String,
        /// The component before.
        from: Digest,
        /// The component now.
        to: Digest,
    },
    /// A service with other configuration, limits or grants.
    Reconfigured(String),
    /// A service on more or fewer hosts, or on others.
    Scaled {
        /// The service.
        service: String,
        /// The replicas before.
        from: Replicas,
        /// The replicas now.
        to: Replicas,
    },
    /// A service that asks for other labels, or is spread otherwise.
    Required(String),
    /// A service whose new versions take over otherwise.
    RolledOut(String),
    /// A service that reserves more or less memory.
    Reserved {
        /// The service.
        service: String,
        /// The bytes before.
        from: u64,
        /// The bytes now.
        to: u64,
    },
    /// A route that was not there, or answers otherwise.
    Routed(String),
    /// A route that is not there any more.
    Unrouted(String),
    /// Wires, streams, pipelines or the gateway are other ones.
    Other(&'static str),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started(service, digest) => write!(f, "start {service} {}", digest.short()),
            Self::Stopped(service) => write!(f, "stop {service}"),
            Self::Swapped { service, from, to } => {
                write!(f, "swap {service} {} → {}", from.short(), to.short())
            }
            Self::Reconfigured(service) => write!(f, "reconfigure {service}"),
            Self::Scaled { service, from, to } => write!(f, "scale {service} {from} → {to}"),
            Self::Required(service) => write!(f, "move {service} by other labels"),
            Self::RolledOut(service) => write!(f, "roll {service} out otherwise"),
            Self::Reserved { service, from, to } => {
                let (from, to) = (size_text(*from), size_text(*to));
                write!(f, "reserve memory for {service} {from} → {to}")
            }
            Self::Routed(route) => write!(f, "route {route}"),
            Self::Unrouted(route) => write!(f, "remove route {route}"),
            Self::Other(what) => write!(f, "change {what}"),
        }
    }
}

/// The changes from one specification to another; nothing for what is not deployed.
#[must_use]
pub fn changes(from: Option<&Specification>, to: Option<&Specification>) -> Vec<Change> {
    let mut found = services(from, to);
    let routes = |of: Option<&Specification>| of.map(|s| s.app.routes.clone()).unwrap_or_default();
    let (before, now) = (routes(from), routes(to));
    let labels: BTreeSet<_> = now.iter().map(|route| route.label()).collect();
    let new = now.iter().filter(|route| !before.contains(route));
    found.extend(new.map(|route| Change::Routed(route.label())));
    let gone = before.iter().map(|route| route.label());
    found.extend(gone.filter(|l| !labels.contains(l)).map(Change::Unrouted));
    if let (Some(from), Some(to)) = (from, to) {
        let parts = [
            ("wires", from.app.wires != to.app.wires),
            ("streams", from.app.streams != to.app.streams),
            ("pipelines", from.app.pipelines != to.app.pipelines),
            ("[gateway]", from.app.gateway != to.app.gateway),
        ];
        let differ = parts.into_iter().filter(|(_, differs)| *differs);
        found.extend(differ.map(|(what, _)| Change::Other(what)));
    }
    found
}

fn services(from: Option<&Specification>, to: Option<&Specification>) -> Vec<Change> {
    let mut found = Vec::new();
    let names = |of: Option<&Specification>| -> Vec<String> {
        of.map(|s| s.app.services.keys().cloned().collect())
            .unwrap_or_default()
    };
    let all: BTreeSet<_> = names(from).into_iter().chain(names(to)).collect();
    let part = |of: Option<&Specification>, name: &String| {
        let of = of?;
        Some((
            of.app.services.get(name)?.clone(),
            of.components.get(name)?.clone(),
        ))
    };
    for service in all {
        match (part(from, &service), part(to, &service)) {
            (None, Some((_, digest))) => found.push(Change::Started(service, digest)),
            (Some(_), None) => found.push(Change::Stopped(service)),
            (Some((old, before)), Some((new, now))) => {
                if before != now {
                    let (service, from, to) = (service.clone(), before, now);
                    found.push(Change::Swapped { service, from, to });
                }
                if !old.runs_as(&new) {
                    found.push(Change::Reconfigured(service.clone()));
                }
                if old.replicas != new.replicas {
                    found.push(Change::Scaled {
                        service: service.clone(),
                        from: old.replicas,
                        to: new.replicas,
                    });
                }
                if old.require != new.require || old.spread != new.spread {
                    found.push(Change::Required(service.clone()));
                }
                if old.rollout != new.rollout {
                    found.push(Change::RolledOut(service.clone()));
                }
                let (from, to) = (old.reserve(), new.reserve());
                if from != to {
                    found.push(Change::Reserved { service, from, to });
                }
            }
            (None, None) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::manifest::Manifest;

    fn specification(lines: &str, component: &[u8]) -> Specification {
        let text = format!("name = \"a\"\n[service.x]\ncomponent = \"x.wasm\"\n{lines}");
        let app = Manifest::parse(Path::new("wasmbay.toml"), &text)
            .unwrap()
            .app;
        let services = app.services.keys();
        let components = services.map(|name| (name.clone(), Digest::of(component)));
        let components = components.collect();
        Specification::new(app, components).unwrap()
    }

    fn told(from: Option<&Specification>, to: Option<&Specification>) -> Vec<String> {
        changes(from, to).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_difference_is_told_once() {
        let old = specification("", b"1");
        assert!(told(Some(&old), Some(&old)).is_empty());
        let (first, second) = (Digest::of(b"1"), Digest::of(b"2"));
        let new = specification(
            "replicas = 3\nrequire = { zone = \"a\" }\nconfig = { a = 1 }\nreserve = \"1GiB\"\n[service.y]\ncomponent = \"y.wasm\"\n[[route]]\nmethod = \"GET\"\npath = \"/p\"\ncall = \"a:b/c.d\"\n[gateway]\nrpc = false",
            b"2",
        );
        assert_eq!(
            told(Some(&old), Some(&new)),
            [
                format!("swap x {} → {}", first.short(), second.short()),
                "reconfigure x".to_owned(),
                "scale x 2 → 3".to_owned(),
                "move x by other labels".to_owned(),
                "reserve memory for x 128MiB → 1GiB".to_owned(),
                format!("start y {}", second.short()),
                "route GET /p".to_owned(),
                "change [gateway]".to_owned(),
            ]
        );
        let back = told(Some(&new), Some(&old));
        assert!(back.contains(&"stop y".to_owned()), "{back:?}");
        assert!(back.contains(&"remove route GET /p".to_owned()), "{back:?}");
        assert_eq!(told(Some(&old), None), ["stop x"]);
        assert_eq!(
            told(None, Some(&old)),
            [format!("start x {}", first.short())]
        );
    }
}
