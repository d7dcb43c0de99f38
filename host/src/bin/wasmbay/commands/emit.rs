//! `wasmbay emit`.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_nats::{Client, jetstream};
use serde_json::json;
use wasmbay::call::{Call as Message, Trace};
use wasmbay::events::stream::{self, Stored};
use wasmbay::events::{Event, letters};
use wasmbay::nats::{settled, wire_size};
use wasmbay::wire;

use super::call::{arguments, check, place, traceparent};
use super::discover::{self, Answering, Wanted};
use crate::args::Emit;
use crate::report::{Exit, Terminal, failure};

/// What the metadata of discovery calls an event that is stored.
const DURABLE: &str = "durable";

pub(super) async fn run(args: Emit, terminal: &Terminal) -> anyhow::Result<Exit> {
    let wanted: Wanted = args.function.parse()?;
    let body = arguments(args.arguments.as_deref())?;
    let (nats, app) = place(&args.place)?;
    let client = nats.named("wasmbay emit").connect().await?;

    // An app without stored events does not depend on JetStream.
    let context = jetstream::new(client.clone());
    let stored = stream::stored(&context).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "streams cannot be listed");
        Vec::new()
    });
    let is_meant = |one: &str| app.as_ref().is_none_or(|app| app == one);
    let mut all: Vec<Answering> = stored.iter().map(answering).collect();
    for one in discover::ask(&client, args.timeout).await? {
        if !all.iter().any(|known| known.subject == one.subject) {
            all.push(one);
        }
    }
    all.retain(|one| is_meant(&one.app));
    let found = discover::choose(&wanted, all)?;
    let signature = match (&found.event, &found.signature) {
        (Some(_), Some(signature)) => signature,
        (Some(_), None) => anyhow::bail!("nobody tells what `{}` carries", found.function),
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
    let call = Message {
        body,
        deadline: Instant::now() + args.timeout,
        hops: 0,
        caller: None,
        trace: Trace {
            parent: Some(traceparent()),
            ..Trace::default()
        },
    };
    let of_stream = stored
        .iter()
        .find(|one| one.publication.subject() == found.subject);
    let event = match (of_stream, found.event.as_deref()) {
        (Some(one), _) => one.publication.event(&values, call),
        (None, Some(DURABLE)) => anyhow::bail!(
            "`{}` is durable, and no stream tells how it is published",
            found.function
        ),
        (None, _) => Event {
            subject: found.subject.clone(),
            stream: None,
            call,
        },
    };
    publish(&client, event, args.timeout, terminal).await
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

async fn publish(
    client: &Client,
    event: Event,
    timeout: Duration,
    terminal: &Terminal,
) -> anyhow::Result<Exit> {
    let Event {
        subject,
        stream,
        call,
    } = event;
    let mut headers = wire::write_event(&call);
    let Some(stream) = stream else {
        client
            .publish_with_headers(subject.clone(), headers, call.body)
            .await
            .context("cannot publish")?;
        settled(client).await.context("cannot publish")?;
        match terminal.json() {
            true => terminal.result_json(&json!({ "subject": subject }))?,
            false => terminal.say(format_args!("published on {subject}, to whoever listens")),
        }
        return Ok(Exit::Done);
    };
    let id = format!("{:032x}", rand::random::<u128>());
    headers.insert(wire::MESSAGE_ID, id.as_str());
    let limit = client.max_payload().saturating_sub(letters::ROOM);
    let size = wire_size(&headers, call.body.len());
    if size > limit {
        anyhow::bail!("the event has {size} bytes; {limit} can be stored");
    }
    let context = jetstream::new(client.clone());
    let what = || format!("stream {stream} is not known to have stored the event");
    let stored = async {
        let sent = context.publish_with_headers(subject.clone(), headers, call.body);
        sent.await?.await
    };
    let stored = tokio::time::timeout(timeout, stored)
        .await
        .with_context(what)?
        .with_context(what)?;
    if *stored.stream != *stream {
        anyhow::bail!("{}: stream {} answered", what(), stored.stream);
    }
    let sequence = stored.sequence;
    match terminal.json() {
        true => terminal
            .result_json(&json!({ "subject": subject, "stream": *stream, "sequence": sequence }))?,
        false => terminal.say(format_args!("stored in {stream} as {sequence}")),
    }
    Ok(Exit::Done)
}
