//! Streams that are left from a time when their wires or subjects were durable.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::Config;
use futures_util::StreamExt;

use crate::micro::{APP, Answer, HOST, STREAMS, Verb};
use crate::nats::{Link, ask_services};
use crate::subject;

/// How long other hosts are given to say what they use.
const LOOKUP: Duration = Duration::from_millis(300);

/// Has streams that are left from a time when their wires or subjects were durable store nothing
/// but replays, unless another host uses them: one that runs an older or a newer manifest, in which they
/// are. Left as they were they would answer each call, event or message with an acknowledgement. Returns
/// whether there are such streams.
///
/// Only a warning when it fails: an app without durable wires must not depend on JetStream.
pub(super) async fn retire(
    context: &Context,
    link: &Link,
    app: &str,
    host: &str,
    unused: impl Fn(&Config) -> bool,
) -> bool {
    let mut streams = context.streams();
    let mut leaving = Vec::new();
    while let Some(info) = streams.next().await {
        match info {
            Ok(info) if unused(&info.config) && stores(&info.config) => leaving.push(info.config),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "streams cannot be listed");
                break;
            }
        }
    }
    if leaving.is_empty() {
        return false;
    }
    let used = used_by_others(link, app, host).await;
    let mut left = false;
    for mut config in leaving {
        let name = config.name.clone();
        if used.contains(&name) {
            tracing::warn!(
                name,
                "what it stores is not durable in this manifest, and is on another host of the app: the stream stores on"
            );
            left = true;
            continue;
        }
        config.subjects.retain(|stored| subject::is_replay(stored));
        match context.update_stream(config).await {
            Ok(_) => tracing::info!(
                name,
                "what it stores is not durable any more, the stream is kept"
            ),
            Err(error) => {
                tracing::warn!(name, %error, "a stream of a wire that is not durable any more");
            }
        }
    }
    left
}

/// Whether a stream stores anything but replays.
fn stores(config: &Config) -> bool {
    !config
        .subjects
        .iter()
        .all(|stored| subject::is_replay(stored))
}

/// The streams that other hosts of an app say to use.
pub(super) async fn used_by_others(link: &Link, app: &str, host: &str) -> BTreeSet<String> {
    match ask_services(link, Verb::Ping, LOOKUP).await {
        Ok(answers) => {
            let streams = answers.iter().flat_map(|a| streams_of(a, app, host));
            streams.collect()
        }
        Err(error) => {
            tracing::debug!(%error, "other hosts could not be asked");
            BTreeSet::new()
        }
    }
}

fn streams_of(answer: &Answer, app: &str, host: &str) -> Vec<String> {
    let said = |key: &str| answer.metadata.get(key).map(String::as_str);
    if said(APP) != Some(app) || said(HOST) == Some(host) {
        return Vec::new();
    }
    let streams = said(STREAMS).unwrap_or_default().split_whitespace();
    streams.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn only_other_hosts_of_the_app_count() {
        let answer = |app: &str, host: &str| Answer {
            kind: "io.nats.micro.v1.ping_response".to_owned(),
            name: "mail".to_owned(),
            id: format!("{host}-mail"),
            version: "0.0.0".to_owned(),
            metadata: BTreeMap::from([
                (APP.to_owned(), app.to_owned()),
                (HOST.to_owned(), host.to_owned()),
                (STREAMS.to_owned(), "one two".to_owned()),
            ]),
            description: None,
            started: None,
            endpoints: None,
        };
        assert_eq!(
            streams_of(&answer("shop", "b"), "shop", "a"),
            ["one", "two"]
        );
        assert!(streams_of(&answer("shop", "a"), "shop", "a").is_empty());
        assert!(streams_of(&answer("bank", "b"), "shop", "a").is_empty());
    }
}
