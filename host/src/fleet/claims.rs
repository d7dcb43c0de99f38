//! Whether two apps claim the same requests of the gateway that they share. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::interface::InterfaceId;
use crate::manifest::{App, keys};
use crate::plan::Description;

/// An app behind the gateway.
#[derive(Clone, Copy, Debug)]
pub struct Fronted<'a> {
    /// The app.
    pub app: &'a App,
    /// The component of each service.
    pub components: &'a BTreeMap<String, Description>,
}

/// A claim that another app has already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// The route or the RPC paths.
    pub what: String,
    /// The other app.
    pub app: String,
    /// What of it answers the same requests, when it is written otherwise.
    pub with: Option<String>,
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, app, with } = self;
        write!(f, "{what} is claimed by app \"{app}\" already")?;
        if let Some(with) = with {
            write!(f, " (`{with}`)")?;
        }
        Ok(())
    }
}

/// What `app` claims that another one has.
#[must_use]
pub fn clashes<'a>(app: Fronted<'_>, others: impl IntoIterator<Item = Fronted<'a>>) -> Vec<Clash> {
    let mut found = Vec::new();
    for other in others {
        if other.app.name == app.app.name || !meet(app.app, other.app) {
            continue;
        }
        found.extend(routes(app.app, other.app));
        let (ours, theirs) = (rpc(app), rpc(other));
        found.extend(ours.intersection(&theirs).map(|interface| Clash {
            what: format!("POST /rpc/{interface}/…"),
            app: other.app.name.clone(),
            with: None,
        }));
    }
    found
}

/// Whether there is a name of a host under which both are asked. One without names gets what no
/// other one claims by name.
fn meet(one: &App, other: &App) -> bool {
    let (one, other) = (&one.gateway.hosts, &other.gateway.hosts);
    one.is_empty() && other.is_empty() || one.iter().any(|name| other.contains(name))
}

fn routes(app: &App, other: &App) -> Vec<Clash> {
    let mut found: Vec<Clash> = Vec::new();
    for method in keys::METHODS {
        let of = |app: &App| {
            let answers = |own: &Option<String>| own.as_deref().is_none_or(|own| own == method);
            let routes = app.routes.iter().filter(|route| answers(&route.method));
            let patterns = routes.flat_map(|route| {
                let patterns = route.patterns().into_iter();
                patterns.map(|pattern| (route.label(), pattern))
            });
            patterns.collect::<Vec<_>>()
        };
        let mut router = matchit::Router::new();
        for (_, pattern) in of(other) {
            // Checked when its manifest was read, so it conflicts with nothing.
            let _ = router.insert(pattern, ());
        }
        for (label, pattern) in of(app) {
            let Err(matchit::InsertError::Conflict { with }) = router.insert(&pattern, ()) else {
                continue;
            };
            let clash = Clash {
                what: label,
                app: other.name.clone(),
                with: (with != pattern).then_some(with),
            };
            if !found.iter().any(|known| known.what == clash.what) {
                found.push(clash);
            }
        }
    }
    found
}

/// The interfaces that have RPC paths, without version as their paths may leave it out.
fn rpc(of: Fronted<'_>) -> BTreeSet<String> {
    let descriptions = of.components.values();
    let all = descriptions.flat_map(|component| component.exports.iter().chain(&component.imports));
    let paths = all.filter(|interface| of.app.gateway.rpc.include(&interface.id));
    paths
        .map(|interface| {
            let bare = InterfaceId {
                version: None,
                ..interface.id.clone()
            };
            bare.to_string()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::manifest::Manifest;
    use crate::shape::InterfaceDescription;

    fn app(name: &str, lines: &str) -> App {
        let text = format!("name = \"{name}\"\n[service.x]\ncomponent = \"x.wasm\"\n{lines}");
        Manifest::parse(Path::new("wasmbay.toml"), &text)
            .unwrap()
            .app
    }

    fn between(one: &str, other: &str) -> Vec<String> {
        let exports = vec![InterfaceDescription {
            id: "demo:hello/greetings@1.0.0".parse().unwrap(),
            functions: BTreeMap::new(),
            types: BTreeMap::new(),
        }];
        let description = Description {
            exports,
            ..Description::default()
        };
        let components = BTreeMap::from([("x".to_owned(), description)]);
        let (one, other) = (app("one", one), app("other", other));
        let [one, other] = [&one, &other].map(|app| Fronted {
            app,
            components: &components,
        });
        let found = clashes(one, [other, one]);
        found.iter().map(ToString::to_string).collect()
    }

    fn route(method: &str, path: &str) -> String {
        format!("[[route]]\nmethod = \"{method}\"\npath = \"{path}\"\ncall = \"a:b/c.d\"\n")
    }

    const NO_RPC: &str = "[gateway]\nrpc = false\n";

    #[test]
    fn the_same_route_is_claimed_by_one_app_only() {
        let with = |method: &str, path: &str| route(method, path) + NO_RPC;
        let other = with("GET", "/p/{sku}");
        assert_eq!(
            between(&with("GET", "/p/{id}"), &other),
            ["GET /p/{id} is claimed by app \"other\" already (`/p/{sku}`)"]
        );
        assert!(between(&with("POST", "/p/{sku}"), &other).is_empty());
        assert!(between(&with("GET", "/p/new"), &other).is_empty());
        let prefix = format!("[[route]]\npath = \"/p/*\"\nservice = \"x\"\n{NO_RPC}");
        assert_eq!(between(&prefix, &prefix).len(), 1);
    }

    #[test]
    fn rpc_paths_are_claimed_as_well() {
        assert_eq!(
            between("", ""),
            ["POST /rpc/demo:hello/greetings/… is claimed by app \"other\" already"]
        );
        assert!(between("", NO_RPC).is_empty());
    }

    #[test]
    fn apps_with_other_names_of_hosts_do_not_meet() {
        let hosts = |names: &str| format!("[gateway]\nhosts = [{names}]\n");
        assert!(between(&hosts("\"a.example\""), &hosts("\"b.example\"")).is_empty());
        assert!(between(&hosts("\"a.example\""), "").is_empty());
        let two = between(
            &hosts("\"a.example\""),
            &hosts("\"b.example\", \"A.example\""),
        );
        assert_eq!(two.len(), 1);
    }
}
