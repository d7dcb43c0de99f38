//! Hosts as real processes.

use super::*;
use crate::support::cli::{Cli, Up};

/// Time within which another host takes over, and some for a slow machine.
pub(super) const TAKEN_OVER: Duration = Duration::from_secs(15);

pub(super) struct Hosts {
    pub(super) nats: Nats,
    pub(super) client: Client,
    cli: Cli,
    /// What is called, and with what.
    subject: &'static str,
    order: String,
}

impl Hosts {
    /// Hosts of an app with this service, by name and component, and these lines of its manifest.
    pub(super) async fn of(service: (&str, &str), lines: &str, order: &str) -> Self {
        Self::called(service, lines, (PLACE, order)).await
    }

    /// The same, where another function is called.
    pub(super) async fn called(
        service: (&str, &str),
        lines: &str,
        (subject, order): (&'static str, &str),
    ) -> Self {
        let nats = Nats::start().await;
        let client = nats.connect().await;
        let (name, component) = service;
        let file = format!("{name}.wat");
        let text = format!("name = \"app\"\n[service.{name}]\ncomponent = \"{file}\"\n{lines}");
        let cli = Cli::new().with(&[("wasmbay.toml", &text), (&file, component)]);
        let order = order.to_owned();
        Self {
            nats,
            client,
            cli,
            subject,
            order,
        }
    }

    /// Starts a process that runs the app.
    pub(super) fn start(&self) -> Up {
        self.cli.up(&["--no-gateway", "--nats", self.nats.url()])
    }

    /// Services that answer with what `decide` says, once it has returned.
    pub(super) async fn shop(
        &self,
        decide: impl Fn(&str, usize) -> Option<Answer> + Send + 'static,
    ) -> Shop {
        Shop::open(&self.nats.connect().await, decide).await
    }

    /// Begins a run without waiting for it.
    pub(super) async fn begin(&self) {
        let order = self.order.clone().into();
        self.client.publish(self.subject, order).await.unwrap();
    }

    pub(super) async fn until_ended(&self) -> Phase {
        let ended = async || {
            let page = all(&self.client).await;
            let run = page.runs.first().ok_or("no run")?;
            run.ended.map(|_| run.phase).ok_or("it has not ended")
        };
        crate::support::until_ok_within(TAKEN_OVER, "the run has ended", ended).await
    }

    /// The sequence of what was last written to a journal.
    pub(super) async fn last_written(&self) -> u64 {
        let context = jetstream::new(self.client.clone());
        let mut stream = context.get_stream("bay_app_runs").await.unwrap();
        stream.info().await.unwrap().state.last_sequence
    }
}
