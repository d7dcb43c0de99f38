//! Events that wait in the stream of an earlier version of an interface, whose subscribers have another
//! version now: no one would ever pull them.

use std::collections::BTreeMap;

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::Config;
use futures_util::{StreamExt, TryStreamExt};

use super::kinds::{interface_of, signatures_of};
use super::retire::used_by_others;
use super::{Provisioning, names};
use crate::interface::InterfaceId;
use crate::plan::{EventWire, Plan};
use crate::shape::Signature;

/// A consumer of an earlier version, whose subscriber has another one now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Orphan {
    pub(crate) stream: String,
    pub(crate) consumer: String,
    pub(crate) service: String,
    /// What the service exports now.
    pub(crate) interface: InterfaceId,
    /// Why it cannot handle these events, if it cannot: each becomes a dead letter.
    pub(crate) misfit: Option<String>,
}

/// Finds them, and says how many events wait. Only a warning when JetStream does not list them.
pub(crate) async fn orphans(provisioning: &Provisioning<'_>) -> Vec<Orphan> {
    let Provisioning {
        context,
        link,
        host,
        app,
        plan,
        ..
    } = *provisioning;
    let stored = names(app, plan);
    if stored.is_empty() {
        return Vec::new();
    }
    let mut streams = context.streams();
    let mut earlier = Vec::new();
    while let Some(info) = streams.next().await {
        match info {
            Ok(info) if !stored.contains(&info.config.name) => {
                let interface = interface_of(&info.config, &app.name);
                earlier.extend(interface.map(|interface| (info.config, interface)));
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "streams of earlier versions cannot be listed");
                return Vec::new();
            }
        }
    }
    if earlier.is_empty() {
        return Vec::new();
    }
    let others = used_by_others(link, &app.name, host).await;
    let mut orphans = Vec::new();
    for (config, interface) in earlier {
        let waiting = match waiting(context, &config.name).await {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::warn!(stream = config.name, %error, "consumers cannot be listed");
                continue;
            }
        };
        for (consumer, waiting) in waiting {
            let orphan = orphan(plan, &config, &interface, &consumer);
            let is_left = others.contains(&config.name);
            warn_of(&config.name, &consumer, waiting, orphan.as_ref(), is_left);
            // Another host handles what this one cannot.
            orphans
                .extend(orphan.filter(|orphan| orphan.misfit.is_none() || waiting > 0 && !is_left));
        }
    }
    orphans
}

/// The consumers of a stream, and how many events each has not finished.
async fn waiting(
    context: &Context,
    stream: &str,
) -> Result<BTreeMap<String, u64>, async_nats::Error> {
    let stream = context.get_stream(stream).await?;
    let consumers: Vec<_> = stream.consumers().try_collect().await?;
    let waiting = consumers.into_iter().map(|info| {
        let waiting = info.num_pending + info.num_ack_pending as u64;
        (info.name, waiting)
    });
    Ok(waiting.collect())
}

fn warn_of(stream: &str, consumer: &str, waiting: u64, orphan: Option<&Orphan>, is_left: bool) {
    if waiting == 0 {
        return;
    }
    let Some(orphan) = orphan else {
        tracing::warn!(
            stream,
            consumer,
            waiting,
            "events wait for a service that does not subscribe any more"
        );
        return;
    };
    let service = &orphan.service;
    match &orphan.misfit {
        None => tracing::warn!(
            stream,
            consumer,
            waiting,
            "events of an earlier version wait, and {service} handles them as {}",
            orphan.interface
        ),
        Some(_) if is_left => tracing::warn!(
            stream,
            consumer,
            waiting,
            "events of an earlier version wait for other hosts of the app"
        ),
        Some(misfit) => tracing::warn!(
            stream,
            consumer,
            waiting,
            "events of an earlier version become dead letters: {misfit}"
        ),
    }
}

/// What has become of the subscriber that a consumer was for, if it subscribes to another version.
fn orphan(plan: &Plan, config: &Config, earlier: &InterfaceId, consumer: &str) -> Option<Orphan> {
    let service = consumer.split('_').next()?;
    let same = |wire: &&EventWire| {
        let id = &wire.interface;
        let names = (&id.namespace, &id.package, &id.name);
        wire.spec.durable.is_some()
            && names == (&earlier.namespace, &earlier.package, &earlier.name)
            && wire.subscribers.contains_key(service)
    };
    let wire = plan.events.iter().map(|wire| &**wire).find(same)?;
    let interface = wire.subscribers.get(service)?.clone();
    Some(Orphan {
        stream: config.name.clone(),
        consumer: consumer.to_owned(),
        service: service.to_owned(),
        misfit: misfit(wire, earlier, &interface, &signatures_of(config)),
        interface,
    })
}

/// What a version has otherwise than an earlier one, of that one's functions.
fn misfit(
    wire: &EventWire,
    earlier: &InterfaceId,
    now: &InterfaceId,
    signatures: &BTreeMap<String, Signature>,
) -> Option<String> {
    let (name, signature) = signatures.iter().find(|(name, signature)| {
        let function = wire.functions.get(*name);
        function.is_none_or(|function| function.signature != **signature)
    })?;
    Some(match wire.functions.get(name) {
        None => format!("{now} has no function `{name}`, which {earlier} had"),
        Some(function) => format!(
            "`{name}` is {} in {now} and was {signature} in {earlier}",
            function.signature
        ),
    })
}
