//! Apps of components in the text format, and hosts that run them.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use async_nats::{Client, Message};
use wasmbay::host::{self, Host, HostError, HostOptions};
use wasmbay::manifest::{App, Manifest};
use wasmbay::micro::{Answer, EndpointStats, Verb};
use wasmbay::nats::ConnectOptions;
use wasmbay::runtime::Component;
use wasmbay::runtime::{Engine, EngineOptions};

use super::nats::Nats;
use super::{DEADLINE, until_ok};

/// An app of these services, each with a component's text and further lines of its table, and
/// further lines of the manifest.
pub(crate) struct Services<'a>(
    pub(crate) &'a [(&'a str, &'a str, &'a str)],
    pub(crate) &'a str,
);

impl Services<'_> {
    pub(crate) fn app(&self) -> App {
        let mut text = "name = \"app\"\n".to_owned();
        for (name, _, lines) in self.0 {
            text += &format!("[service.{name}]\ncomponent = \"{name}.wasm\"\n{lines}\n");
        }
        text += self.1;
        let read = Manifest::parse(Path::new("wasmbay.toml"), &text);
        read.unwrap_or_else(|error| panic!("{error:?}")).app
    }

    pub(crate) fn components(&self, engine: &Engine) -> BTreeMap<String, Arc<Component>> {
        let load = |text: &str| Arc::new(Component::new(engine, text.as_bytes()).unwrap());
        self.0
            .iter()
            .map(|(name, text, _)| ((*name).to_owned(), load(text)))
            .collect()
    }
}

/// A host with two workers that runs this app.
pub(crate) async fn start(url: &str, services: &Services<'_>) -> Host {
    start_with(HostOptions::new(ConnectOptions::to(url)), services).await
}

/// As [`start`], with further options.
pub(crate) async fn start_with(options: HostOptions, services: &Services<'_>) -> Host {
    let engine = Engine::new(EngineOptions {
        instances: 200,
        cache: None,
    })
    .unwrap();
    let options = HostOptions {
        workers: NonZeroUsize::new(2).unwrap(),
        ..options
    };
    let host = Host::start(&services.app(), engine, options).await.unwrap();
    apply(&host, services).await.unwrap();
    host
}

pub(crate) async fn apply(host: &Host, services: &Services<'_>) -> Result<(), HostError> {
    let components = services.components(host.engine());
    let specification = host::specify(&services.app(), &components)?;
    host.apply(&specification, &components).await.map(drop)
}

/// A host, the server it is connected to, and a client that is none of its own.
pub(crate) struct Bench {
    pub(crate) nats: Nats,
    pub(crate) host: Host,
    pub(crate) client: Client,
}

pub(crate) async fn bench(services: &Services<'_>) -> Bench {
    let nats = Nats::start().await;
    let host = start(nats.url(), services).await;
    let client = nats.connect().await;
    Bench { nats, host, client }
}

impl Bench {
    pub(crate) async fn request(&self, subject: &str, body: &str) -> Message {
        let request = self
            .client
            .request(subject.to_owned(), body.to_owned().into());
        tokio::time::timeout(DEADLINE, request)
            .await
            .unwrap()
            .unwrap()
    }

    pub(crate) async fn text(&self, subject: &str, body: &str) -> String {
        String::from_utf8(self.request(subject, body).await.payload.to_vec()).unwrap()
    }

    /// The statistics of a service's first endpoint, once they are as wanted.
    pub(crate) async fn stats_when(
        &self,
        service: &str,
        wanted: impl Fn(&EndpointStats) -> bool,
    ) -> EndpointStats {
        let ask = format!("{}.{service}", Verb::Stats.subject());
        until_ok("the statistics are as wanted", async || {
            let answer: Answer = serde_json::from_str(&self.text(&ask, "").await).unwrap();
            let stats = answer.endpoints.unwrap().remove(0).stats.unwrap();
            if wanted(&stats) {
                Ok(stats)
            } else {
                Err(stats)
            }
        })
        .await
    }

    pub(crate) async fn end(self) {
        assert!(
            self.host.stop(DEADLINE).await.is_complete(),
            "calls were given up"
        );
        self.nats.stop().await;
    }
}
