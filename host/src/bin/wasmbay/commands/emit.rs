//! `wasmbay emit`.

use anyhow::Context as _;
use serde_json::json;
use wasmbay::call::Call as Message;
use wasmbay::events::stream::{self, Stored};
use wasmbay::nats::{ConnectOptions, Link, Refusal};
use wasmbay::plan::Event;
use wasmbay::transport::Client;

use super::call::{arguments, check, reach};
use super::discover::{self, Answering, Wanted};
use crate::args::Outgoing;
use crate::report::{Exit, Terminal, failure, plain};

/// What the metadata of discovery calls an event that is stored.
const DURABLE: &str = "durable";

/// Publish an event
///
/// Finds out over NATS what the event carries, checks the arguments before anything is sent, and
/// publishes it where its subscribers receive it. An event of a durable wire is stored when this ends
/// well, also while none of its subscribers runs; any other reaches those that listen.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay emit events.order-paid '{\"orderId\":\"o-17\"}'
  wasmbay emit shop:orders/events.order-paid @order.json
  wasmbay emit events.order-paid '[\"o-17\"]' --nats nats://127.0.0.1:4222 --app shop

Exit codes: 0 published, 1 not known to be, 2 wrong usage.")]
pub(crate) struct Emit {
    #[command(flatten)]
    outgoing: Outgoing,
}

pub(super) async fn run(args: Emit, terminal: &Terminal) -> anyhow::Result<Exit> {
    let args = args.outgoing;
    let wanted: Wanted = args.function.parse()?;
    let body = arguments(args.arguments.as_deref())?;
    let (nats, app) = reach(&args.app)?;
    let nats = nats.named("wasmbay emit");
    let link = nats.link().await?;

    let (stored, unlisted) = stored(&nats).await?;
    let is_meant = |one: &str| app.as_ref().is_none_or(|app| app == one);
    let mut all: Vec<Answering> = stored.iter().map(answering).collect();
    for one in discover::ask(&link, args.timeout).await? {
        if !all.iter().any(|known| known.subject == one.subject) {
            all.push(one);
        }
    }
    all.retain(|one| is_meant(&one.app));
    let found = discover::choose(&wanted, all)?;
    let signature = match (&found.event, &found.signature) {
        (Some(_), Some(signature)) => signature,
        (Some(_), None) => anyhow::bail!("no service states what `{}` carries", found.function),
        (None, _) => {
            return Err(failure(
                format!("`{}` is no event: it is called", found.function),
                format!(
                    "`wasmbay call` calls it; `mode = \"event\"` in [wire.\"{}\"] makes it one",
                    found.function.interface
                ),
            ));
        }
    };
    let values = check(&body, &found.function, signature)?;
    let call = Message::new(body, args.timeout);
    let of_stream = stored
        .iter()
        .find(|one| one.publication.subject() == found.subject);
    let event = match (of_stream, found.event.as_deref()) {
        (Some(one), _) => one.publication.event(&values, call),
        (None, Some(DURABLE)) => {
            let function = &found.function;
            let why = format!("`{function}` is durable, and no stream states how it is published");
            return Err(match unlisted {
                Some(refusal) => anyhow::Error::from(refusal).context(why),
                None => anyhow::anyhow!(why),
            });
        }
        (None, _) => Event {
            subject: found.subject.clone(),
            stream: None,
            call,
        },
    };
    publish(link, event, terminal).await
}

/// The stored kinds of events, and why they cannot be listed. An app without stored events does not
/// depend on JetStream.
async fn stored(nats: &ConnectOptions) -> anyhow::Result<(Vec<Stored>, Option<Refusal>)> {
    let nats = nats.with_own_violations();
    let context = nats.jetstream(nats.connect().await?);
    let stored = stream::stored(&context);
    Ok(match nats.violations.guard(|_| true, stored).await {
        Ok(Ok(stored)) => (stored, None),
        Ok(Err(error)) => {
            tracing::debug!(%error, "streams cannot be listed");
            (Vec::new(), None)
        }
        Err(refusal) => (Vec::new(), Some(refusal)),
    })
}

/// A stored kind of event as though its subscriber had answered.
fn answering(stored: &Stored) -> Answering {
    Answering {
        app: stored.app.clone(),
        function: stored.function.clone(),
        subject: stored.publication.subject().to_owned(),
        signature: Some(stored.publication.signature().clone()),
        event: Some(DURABLE.to_owned()),
    }
}

async fn publish(link: Link, event: Event, terminal: &Terminal) -> anyhow::Result<Exit> {
    let (subject, stream) = (event.subject.clone(), event.stream.clone());
    let client = Client::new(link)?;
    let sequence = client.publish(event).await.context("cannot publish")?;
    match (stream, terminal.json()) {
        (None, true) => terminal.result_json(&json!({ "subject": subject }))?,
        (None, false) => {
            terminal.say(format_args!(
                "published on {}, to the subscribers of now",
                plain(&subject)
            ));
        }
        (Some(stream), true) => terminal
            .result_json(&json!({ "subject": subject, "stream": *stream, "sequence": sequence }))?,
        (Some(stream), false) => {
            let sequence = sequence.unwrap_or_default();
            terminal.say(format_args!("stored in {} as {sequence}", plain(&stream)));
        }
    }
    Ok(Exit::Done)
}
