//! What fits together and yet is never used, as the manifest leaves out what would lead to it.

use std::collections::BTreeMap;

use super::Description;
use crate::interface::InterfaceId;
use crate::manifest::{App, Target};

/// Something of a service that nothing in the manifest leads to. Its text says what would.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreached {
    /// It answers HTTP, and no route leads to it.
    #[error(
        "service \"{service}\": answers HTTP, but no route leads to it; add `[[route]]` with `path = \"/…/*\"` and \
         `service = \"{service}\"`"
    )]
    Http {
        /// The service.
        service: String,
    },
    /// It handles messages, and is granted no subject.
    #[error(
        "service \"{service}\": exports {handler}, but is granted no subject; add `grants = {{ subscribe = [\"…\"] }}`"
    )]
    Messages {
        /// The service.
        service: String,
        /// The interface of its handler.
        handler: InterfaceId,
    },
    /// It is granted subjects, and handles no messages.
    #[error(
        "service \"{service}\": is granted subjects to subscribe to, but exports neither \
         wasmcloud:messaging/handler@0.2.0 nor wasi:messaging/incoming-handler@0.2.0-draft"
    )]
    NoHandler {
        /// The service.
        service: String,
    },
}

/// Everything that nothing leads to: no errors, but not what an operator expects.
#[must_use]
pub fn unreached(app: &App, components: &BTreeMap<String, Description>) -> Vec<Unreached> {
    let mut found = Vec::new();
    for (name, component) in components {
        let spec = app.services.get(name);
        // A job is not called.
        let Some(spec) = spec.filter(|spec| spec.job.is_none()) else {
            continue;
        };
        let service = name.clone();
        let routed = app
            .routes
            .iter()
            .any(|route| matches!(&route.target, Target::Http { service } if service == name));
        if component.http && !routed {
            let service = service.clone();
            found.push(Unreached::Http { service });
        }
        match (&component.messages, spec.grants.subscribe.is_empty()) {
            (Some(handler), true) => found.push(Unreached::Messages {
                service,
                handler: handler.clone(),
            }),
            (None, false) => found.push(Unreached::NoHandler { service }),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::manifest::Manifest;

    /// What is found of an app of one service `web` with these lines.
    fn found(component: Description, lines: &str) -> Vec<String> {
        let text = format!("name = 'app'\n[service.web]\ncomponent = 'web.wasm'\n{lines}");
        let app = Manifest::parse(Path::new("wasmbay.toml"), &text)
            .unwrap()
            .app;
        let components = BTreeMap::from([("web".to_owned(), component)]);
        let found = unreached(&app, &components);
        found.iter().map(Unreached::to_string).collect()
    }

    #[test]
    fn an_http_component_needs_a_route() {
        let web = || Description {
            http: true,
            ..Description::default()
        };
        assert_eq!(
            found(web(), ""),
            [
                "service \"web\": answers HTTP, but no route leads to it; add `[[route]]` with `path = \"/…/*\"` and \
              `service = \"web\"`"
            ]
        );
        let route = "[[route]]\npath = '/*'\nservice = 'web'";
        assert!(found(web(), route).is_empty());
        assert!(found(Description::default(), "").is_empty());
    }

    #[test]
    fn a_handler_of_messages_and_subjects_need_each_other() {
        let mail = || Description {
            messages: Some("wasmcloud:messaging/handler@0.2.0".parse().unwrap()),
            ..Description::default()
        };
        let grant = "grants = { subscribe = ['a.b'] }";
        let [alone] = &found(mail(), "")[..] else {
            panic!()
        };
        assert!(alone.contains("is granted no subject"), "{alone}");
        let [granted] = &found(Description::default(), grant)[..] else {
            panic!()
        };
        assert!(granted.contains("exports neither"), "{granted}");
        assert!(found(mail(), grant).is_empty());
    }
}
