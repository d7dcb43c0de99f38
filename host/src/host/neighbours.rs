//! The hosts that run the same app elsewhere: one is no surprise, another app of the same name is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::manifest::App;
use crate::micro::{APP, Answer, HOST, Verb};
use crate::nats::{Link, ask_services};
use crate::plan::Plan;
use crate::subject;

/// How long other hosts are given to introduce themselves. Where there are none, nothing is waited for.
const LOOKUP: Duration = Duration::from_millis(300);

/// What other hosts say of an app of this name.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    hosts: BTreeMap<String, Neighbour>,
}

#[derive(Debug, Default)]
struct Neighbour {
    services: BTreeSet<String>,
    /// The service that answers calls on each subject.
    answers: BTreeMap<String, String>,
}

/// A subject on which another app answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) host: String,
    pub(super) subject: String,
    pub(super) service: String,
}

impl Neighbours {
    /// Asks for the hosts of the app with this name.
    pub(super) async fn ask(link: &Link, app: &str) -> Self {
        match ask_services(link, Verb::Info, LOOKUP).await {
            Ok(answers) => Self::read(answers, app),
            Err(error) => {
                tracing::debug!(%error, "other hosts could not be asked");
                Self::default()
            }
        }
    }

    fn read(answers: Vec<Answer>, app: &str) -> Self {
        let mut hosts: BTreeMap<String, Neighbour> = BTreeMap::new();
        for answer in answers {
            let said = |key: &str| answer.metadata.get(key).map(String::as_str);
            let (Some(of), Some(host)) = (said(APP), said(HOST)) else {
                continue;
            };
            if of != app {
                continue;
            }
            let neighbour = hosts.entry(host.to_owned()).or_default();
            neighbour.services.insert(answer.name.clone());
            let calls = answer.endpoints.into_iter().flatten();
            let calls = calls.filter(|endpoint| endpoint.queue_group == subject::QUEUE_GROUP);
            let subjects = calls.map(|endpoint| (endpoint.subject, answer.name.clone()));
            neighbour.answers.extend(subjects);
        }
        Self { hosts }
    }

    /// The number of other hosts.
    pub(super) fn count(&self) -> usize {
        self.hosts.len()
    }

    /// What shows that a host runs another app of the same name: it answers calls that this one answers,
    /// and has no service in common with it. Hosts of one app share services, at least while one of
    /// them is renamed, or answer different calls.
    pub(super) fn conflict(&self, app: &App, plan: &Plan) -> Option<Conflict> {
        let interfaces = plan.serves.values().flatten();
        let own: BTreeSet<_> = interfaces
            .flat_map(|(interface, functions)| {
                let prefix = subject::of_interface(&app.name, interface);
                functions.iter().map(move |name| format!("{prefix}.{name}"))
            })
            .collect();
        self.hosts.iter().find_map(|(host, neighbour)| {
            if app
                .services
                .keys()
                .any(|own| neighbour.services.contains(own))
            {
                return None;
            }
            let (subject, service) = neighbour
                .answers
                .iter()
                .find(|(subject, _)| own.contains(subject.as_str()))?;
            Some(Conflict {
                host: host.clone(),
                subject: subject.clone(),
                service: service.clone(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn answer(app: &str, host: &str, service: &str, subject: &str, group: &str) -> Answer {
        serde_json::from_value(serde_json::json!({
            "type": "io.nats.micro.v1.info_response",
            "name": service,
            "id": format!("{host}-{service}"),
            "version": "0.0.0",
            "metadata": { "app": app, "host": host },
            "endpoints": [{ "name": "x", "subject": subject, "queue_group": group }],
        }))
        .unwrap()
    }

    /// Whether an app whose service `stock` answers `a:stock/api@1` meets these and must not start.
    fn conflict(answers: Vec<Answer>) -> Option<String> {
        let text = "name = \"shop\"\n[service.stock]\ncomponent = \"stock.wasm\"";
        let app = crate::manifest::Manifest::parse(Path::new("wasmbay.toml"), text)
            .unwrap()
            .app;
        let serves = BTreeMap::from([(
            "stock".to_owned(),
            BTreeMap::from([("a:stock/api@1.0.0".parse().unwrap(), vec!["get".to_owned()])]),
        )]);
        let plan = Plan {
            serves,
            ..Plan::default()
        };
        let neighbours = Neighbours::read(answers, "shop");
        neighbours.conflict(&app, &plan).map(|found| found.service)
    }

    const GET: &str = "bay.shop.a.stock.api.v1.get";

    #[test]
    fn another_app_that_answers_the_same_calls_is_found() {
        let found = conflict(vec![answer("shop", "b", "lager", GET, "bay")]);
        assert_eq!(found.as_deref(), Some("lager"));
    }

    #[test]
    fn hosts_of_the_same_app_are_none() {
        let [other, events] = [("bank", "bay"), ("shop", "bay.lager")]
            .map(|(app, group)| answer(app, "b", "lager", GET, group));
        assert_eq!(conflict(vec![other]), None);
        assert_eq!(conflict(vec![events]), None, "events have many subscribers");
        let replica = answer("shop", "b", "stock", GET, "bay");
        assert_eq!(conflict(vec![replica.clone()]), None);
        // One of its services has another name by now.
        let renamed = answer("shop", "b", "lager", GET, "bay");
        assert_eq!(conflict(vec![replica, renamed]), None);
        let part = answer("shop", "b", "mail", "bay.shop.a.mail.api.v1.send", "bay");
        assert_eq!(conflict(vec![part]), None);
    }
}
