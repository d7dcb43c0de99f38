//! Which functions there are, as discovery over NATS has them, and which of them is meant.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::StatusCode;
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};
use wasmbay::headers::Headers;
use wasmbay::interface::{FunctionId, FunctionRef, InterfaceId};
use wasmbay::micro::{Answer, Verb};
use wasmbay::nats::Link;
use wasmbay::shape::Signature;

use crate::report::failure;

/// No further service is waited for when none has answered for this long, or for twice as long as
/// the first took, whichever is more.
const QUIET: Duration = Duration::from_millis(100);

/// How many names an error lists.
const LISTED: usize = 10;

/// How alike names have to be to be suggested: 0 is nothing alike, 1 the same.
const ALIKE: f64 = 0.6;

/// A function of a service that answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answering {
    /// Empty for a service that names none.
    pub(super) app: String,
    pub(super) function: FunctionId,
    pub(super) subject: String,
    /// Absent for a service that states none, or one that cannot be read.
    pub(super) signature: Option<Signature>,
    /// How it is published: `durable` or `core`. Absent for what is called.
    pub(super) event: Option<String>,
}

/// A function as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    typed: String,
    pub(super) meant: FunctionRef,
}

impl FromStr for Wanted {
    type Err = anyhow::Error;

    fn from_str(typed: &str) -> anyhow::Result<Self> {
        match typed.parse() {
            Ok(meant) => Ok(Self {
                typed: typed.to_owned(),
                meant,
            }),
            Err(_) => Err(failure(
                format!("`{typed}` names no function"),
                "write `orders.place`, or all of it: `shop:orders/orders.place@1.0.0`",
            )),
        }
    }
}

/// Asks every service what it offers.
pub(super) async fn ask(link: &Link, patience: Duration) -> anyhow::Result<Vec<Answering>> {
    const WHAT: &str = "cannot ask over NATS";
    let inbox = link.new_inbox();
    let mut answers = link.subscribe(&inbox, None).context(WHAT)?;
    let asked = Instant::now();
    let (subject, none) = (Verb::Info.subject(), Headers::new());
    let sent = link.publish(&subject, Some(&inbox), &none, b"");
    sent.await.context(WHAT)?;
    let mut found = BTreeMap::new();
    let last = asked + patience;
    let mut until = last;
    let mut quiet = None;
    while let Ok(Some(message)) = timeout_at(until, answers.next()).await {
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            break;
        }
        let quiet = *quiet.get_or_insert_with(|| QUIET.max(asked.elapsed() * 2));
        until = last.min(Instant::now() + quiet);
        // Services of any kind answer here.
        let Ok(answer) = serde_json::from_slice::<Answer>(&message.payload) else {
            continue;
        };
        for one in answering(answer) {
            // Every host that runs the service answers the same.
            found.insert((one.app.clone(), one.subject.clone()), one);
        }
    }
    Ok(found.into_values().collect())
}

fn answering(answer: Answer) -> Vec<Answering> {
    let app = answer.metadata.get("app").cloned().unwrap_or_default();
    let endpoints = answer.endpoints.unwrap_or_default().into_iter();
    // The functions of a service that others chose by its name are for those, not for people.
    endpoints
        .filter(|endpoint| !wasmbay::subject::is_of_service(&endpoint.subject))
        .filter_map(|endpoint| {
            let interface: InterfaceId = endpoint.metadata.get("interface")?.parse().ok()?;
            let name = endpoint.metadata.get("function").cloned();
            let last = || wasmbay::subject::function_name(&endpoint.subject).map(str::to_owned);
            let function = interface.function(name.or_else(last)?);
            let signature = endpoint.metadata.get("signature");
            let signature = signature.and_then(|text| text.parse().ok());
            Some(Answering {
                app: app.clone(),
                function,
                subject: endpoint.subject,
                signature,
                event: endpoint.metadata.get("event").cloned(),
            })
        })
        .collect()
}

/// The one function that is meant.
pub(super) fn choose(wanted: &Wanted, all: Vec<Answering>) -> anyhow::Result<Answering> {
    let names: Vec<String> = all.iter().map(|one| one.function.to_string()).collect();
    let mut found: Vec<Answering> = all
        .into_iter()
        .filter(|one| wanted.meant.matches(&one.function))
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (None, _) => Err(unknown(wanted, &names)),
        (Some(last), false) => {
            found.push(last);
            Err(ambiguous(wanted, &found))
        }
    }
}

fn ambiguous(wanted: &Wanted, found: &[Answering]) -> anyhow::Error {
    let same = |one: &Answering| found.iter().all(|other| other.function == one.function);
    let apps = found.iter().map(|one| one.app.clone()).collect::<Vec<_>>();
    if found.iter().all(same) {
        return failure(
            format!(
                "`{}` is answered in several apps: {}",
                wanted.typed,
                apps.join(", ")
            ),
            "choose one: `--app NAME`",
        );
    }
    let names: Vec<_> = found
        .iter()
        .map(|one| format!("`{}`", one.function))
        .collect();
    failure(
        format!("`{}` can mean {}", wanted.typed, names.join(" or ")),
        "write more of the name",
    )
}

fn unknown(wanted: &Wanted, names: &[String]) -> anyhow::Error {
    let message = format!("no service answers for `{}`", wanted.typed);
    if names.is_empty() {
        return failure(
            format!("{message}, or for anything else"),
            "`wasmbay up` runs an app; `--app` and `--nats` choose where to look",
        );
    }
    let short = format!("{}.{}", wanted.meant.interface, wanted.meant.function);
    let likeness = |name: &String| {
        let without_version = name.split('@').next().unwrap_or(name);
        let bare = without_version.rsplit('/').next().unwrap_or(name);
        let function = bare.rsplit('.').next().unwrap_or(bare);
        strsim::normalized_damerau_levenshtein(&short, bare)
            .max(strsim::normalized_damerau_levenshtein(
                &wanted.typed,
                without_version,
            ))
            .max(if function == wanted.meant.function {
                0.8
            } else {
                0.0
            })
    };
    let mut alike: Vec<_> = names.iter().map(|name| (likeness(name), name)).collect();
    alike.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    // A name that is far more alike than the others is the only one worth showing.
    let best = alike.first().map_or(0.0, |(likeness, _)| *likeness);
    let least = ALIKE.max(best - 0.1);
    let near = alike.iter().filter(|(likeness, _)| *likeness >= least);
    let near: Vec<_> = near.take(3).collect();
    let quoted = |names: &mut dyn Iterator<Item = &String>| {
        let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
        names.join(", ")
    };
    if near.is_empty() {
        let listed = quoted(&mut names.iter().take(LISTED));
        let more = match names.len().checked_sub(LISTED) {
            Some(more @ 1..) => format!(" and {more} more"),
            _ => String::new(),
        };
        return failure(message, format!("there is {listed}{more}"));
    }
    let near = quoted(&mut near.iter().map(|(_, name)| *name));
    failure(message, format!("did you mean {near}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answering(app: &str, function: &str) -> Answering {
        let function: FunctionId = function.parse().unwrap();
        let subject = wasmbay::subject::of_function(app, &function);
        Answering {
            app: app.into(),
            function,
            subject,
            signature: None,
            event: None,
        }
    }

    fn all() -> Vec<Answering> {
        vec![
            answering("shop", "shop:orders/orders.place@1.0.0"),
            answering("shop", "shop:orders/orders.quote@1.0.0"),
            answering("shop", "shop:returns/orders.place@1.0.0"),
            answering("test", "shop:orders/orders.quote@1.0.0"),
        ]
    }

    fn chosen(typed: &str) -> Result<String, String> {
        let wanted: Wanted = typed
            .parse()
            .map_err(|error: anyhow::Error| error.to_string())?;
        choose(&wanted, all())
            .map(|one| one.subject)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_may_be_short_while_it_means_one_function() {
        let place = Ok("bay.shop.shop.orders.orders.v1.place".to_owned());
        assert_eq!(chosen("orders/orders.place"), place);
        assert_eq!(chosen("shop:orders/orders.place"), place);
        assert_eq!(chosen("shop:orders/orders.place@1.0.0"), place);
        assert_eq!(chosen("shop:orders/orders@1.2.0.place"), place);
    }

    #[test]
    fn a_name_that_means_several_functions_is_refused() {
        assert_eq!(
            chosen("orders.place").unwrap_err(),
            "`orders.place` can mean `shop:orders/orders.place@1.0.0` or `shop:returns/orders.place@1.0.0`"
        );
        assert_eq!(
            chosen("orders.quote").unwrap_err(),
            "`orders.quote` is answered in several apps: shop, test"
        );
    }

    #[test]
    fn a_name_that_no_service_answers_for_is_refused() {
        for name in [
            "orders.cancel",
            "shop:orders/orders.place@2.0.0",
            "other:orders/orders.place",
        ] {
            assert!(
                chosen(name)
                    .unwrap_err()
                    .starts_with("no service answers for"),
                "{name}"
            );
        }
        for name in ["place", "a.b.c", "orders.", "bay.>", ""] {
            assert!(
                chosen(name).unwrap_err().ends_with("names no function"),
                "{name}"
            );
        }
    }
}
