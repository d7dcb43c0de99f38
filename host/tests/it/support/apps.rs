//! Apps of components in the text format, and hosts that run them.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use wasmbay::component::Component;
use wasmbay::engine::{Engine, EngineOptions};
use wasmbay::host::{Host, HostError, HostOptions};
use wasmbay::manifest::App;
use wasmbay::nats::ConnectOptions;

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
        App::parse(Path::new("wasmbay.toml"), &text).unwrap_or_else(|error| panic!("{error:?}"))
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
    let engine = Engine::new(EngineOptions {
        instances: 200,
        cache: None,
    })
    .unwrap();
    let options = HostOptions {
        workers: NonZeroUsize::new(2).unwrap(),
        ..HostOptions::new(ConnectOptions::to(url))
    };
    let host = Host::start(&services.app(), engine, options).await.unwrap();
    apply(&host, services).await.unwrap();
    host
}

pub(crate) async fn apply(host: &Host, services: &Services<'_>) -> Result<(), HostError> {
    let components = services.components(host.engine());
    host.apply(&services.app(), &components).await.map(drop)
}
