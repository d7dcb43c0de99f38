//! Durable events: how fast a backlog of them is consumed and acknowledged, and how fast they are
//! published, beside the native alternative.
//!
//! All of a table share one JetStream stream in a file, and the same events.

use std::path::Path;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use tokio::runtime::Runtime;
use wasmbay::interface::InterfaceId;
use wasmbay::subject;

use crate::drive::Process;
use crate::process::Server;
use crate::table::Text;
use crate::{Options, guests};

mod backlog;
pub(crate) mod native;
mod publish;

/// An event's arguments; the padding is put in.
const ARGUMENTS: &str = r#"{"item":{"id":7,"text":"{pad}"}}"#;

/// What both measurements hang on.
struct Events<'a> {
    options: &'a Options,
    runtime: &'a Runtime,
    context: jetstream::Context,
    nats: &'a str,
    server: Process,
    /// For manifests.
    folder: &'a Path,
}

/// Measures what is wanted and tabulates it.
pub(crate) fn tables(
    options: &Options,
    runtime: &Runtime,
    nats: &str,
    nats_pid: u32,
    folder: &Path,
    text: &mut Text,
) -> anyhow::Result<()> {
    let (consumed, published) = ("events consumed", "events published");
    if !options.wants(consumed) && !options.wants(published) {
        return Ok(());
    }
    let context = runtime.block_on(async {
        // A task of it runs on the runtime.
        anyhow::Ok(jetstream::new(async_nats::connect(nats).await?))
    })?;
    let events = Events {
        options,
        runtime,
        context,
        nats,
        server: Process {
            name: "nats-server".to_owned(),
            pid: nats_pid,
        },
        folder,
    };
    for payload in options.payloads() {
        if options.wants(consumed) {
            eprintln!("measuring events consumed");
            text.add(Some(backlog::table(&events, payload)?));
        }
        if options.wants(published) {
            eprintln!("measuring events published");
            text.add(Some(publish::table(&events, payload)?));
        }
    }
    Ok(())
}

impl Events<'_> {
    /// The stream that an app's wire has, empty. The host brings the rest of it up to date.
    fn stream(&self, app: &str) -> anyhow::Result<stream::Stream> {
        let config = stream::Config {
            name: stream_name(app),
            subjects: subject::stored(app, &interface()),
            ..stream::Config::default()
        };
        self.runtime.block_on(async {
            let name = config.name.clone();
            self.context.create_or_update_stream(config).await?;
            let stream = self.context.get_stream(name).await?;
            stream.purge().await?;
            anyhow::Ok(stream)
        })
    }

    /// A wasmbay host of one guest, with these lines for the wire and further arguments.
    fn host(
        &self,
        app: &str,
        guest: &str,
        wire: &str,
        arguments: &[&str],
    ) -> anyhow::Result<Server> {
        let component = guests::component(&format!("rust/{guest}"))?;
        let component = component.display();
        let path = self.folder.join(format!("{app}.toml"));
        let text = format!(
            "name = \"{app}\"\n\
             [service.{guest}]\ncomponent = \"{component}\"\nlimits = {{ concurrency = 256 }}\n\
             [wire.\"bay:bench/events\"]\nmode = \"event\"\ndurable = true\n\
             retention = {{ size = \"1GiB\" }}\n{wire}\n"
        );
        std::fs::write(&path, text)?;
        let path = path.display().to_string();
        let role = ["serve", "--manifest", &path, "--nats", self.nats];
        let role = role.iter().chain(arguments);
        Server::role(&format!("wasmbay host of {app}"), role, 1)
    }
}

fn interface() -> InterfaceId {
    InterfaceId {
        namespace: "bay".to_owned(),
        package: "bench".to_owned(),
        name: "events".to_owned(),
        version: Some(semver::Version::new(1, 0, 0)),
    }
}

fn stream_name(app: &str) -> String {
    subject::stream(app, &interface())
}

/// Where the events of an app are published.
fn subject_of(app: &str) -> String {
    subject::of_function(app, &interface().function("happened"))
}

fn per_event(used: Duration, events: u64) -> f64 {
    used.as_secs_f64() * 1e6 / events.max(1) as f64
}
