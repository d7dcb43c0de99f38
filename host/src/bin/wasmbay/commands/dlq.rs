//! `wasmbay dlq`: dead letters by hand.

mod edit;
mod show;

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::Context as _;
use async_nats::jetstream::Context;
use futures_util::TryStreamExt as _;
use serde_json::json;
use wasmbay::events::dead_letters::{DeadLetter, DeadLetterError, DeadLetters, Filter, Pace};
use wasmbay::nats::Link;

use super::call::{misfit, reach};
use super::discover::Wanted;
use crate::args::WhichApp;
use crate::report::{Exit, Terminal, all_of, count, failure};

/// Dead letters that are looked at together when many are replayed.
const PAGE: usize = 1_000;

/// Look at dead letters, fix and replay them
///
/// A dead letter is an event that a subscriber could not handle. It is kept until it is handled
/// after a replay, or purged.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay dlq ls --service notifications
  wasmbay dlq show 6f0c1b9d2e8a4735
  wasmbay dlq edit 6f0c1b9d2e8a4735 @fixed.json
  wasmbay dlq replay --service notifications --rate 10/s
  wasmbay dlq purge --function events.order-paid")]
pub(crate) struct Dlq {
    #[command(subcommand)]
    verb: DlqVerb,
}

#[derive(clap::Subcommand)]
pub(crate) enum DlqVerb {
    /// List dead letters, those that failed longest ago first
    Ls(DlqLs),
    /// Show one with its attempts and its body
    Show(DlqShow),
    /// Deliver dead letters again, each to the subscriber that failed
    ///
    /// A dead letter goes as soon as its event is handled. If it fails again, it stays, with a longer
    /// history.
    Replay(DlqReplay),
    /// Replace the body of a dead letter with one that is checked against the event's type
    ///
    /// Without a body, the one that it has is opened in $VISUAL or $EDITOR. Replaying it is a step
    /// of its own.
    Edit(edit::DlqEdit),
    /// Drop dead letters for good
    Purge(DlqPurge),
}

/// Which dead letters are listed.
#[derive(clap::Args)]
pub(crate) struct DlqLs {
    #[command(flatten)]
    filter: Chosen,
    /// List no more than these
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    app: WhichApp,
}

/// Which dead letters are meant.
#[derive(clap::Args)]
pub(crate) struct Chosen {
    /// Those of this subscriber
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Those of this event
    #[arg(long, value_name = "INTERFACE.FUNCTION")]
    function: Option<String>,
}

/// Which dead letters something is done with: it has to be said.
#[derive(clap::Args)]
#[group(id = "meant", required = true, multiple = true)]
pub(crate) struct Meant {
    /// The dead letters' ids
    #[arg(value_name = "ID", conflicts_with_all = ["all", "service", "function"])]
    ids: Vec<String>,
    /// All dead letters of the app
    #[arg(long, conflicts_with_all = ["service", "function"])]
    all: bool,
    /// Those of this subscriber
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Those of this event
    #[arg(long, value_name = "INTERFACE.FUNCTION")]
    function: Option<String>,
}

#[derive(clap::Args)]
pub(crate) struct DlqShow {
    /// The dead letter's id
    id: String,
    #[command(flatten)]
    app: WhichApp,
}

#[derive(clap::Args)]
pub(crate) struct DlqReplay {
    #[command(flatten)]
    meant: Meant,
    /// Replay no more than these in a second
    #[arg(long, value_name = "N/s", value_parser = rate)]
    rate: Option<u32>,
    #[command(flatten)]
    app: WhichApp,
}

#[derive(clap::Args)]
pub(crate) struct DlqPurge {
    #[command(flatten)]
    meant: Meant,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    app: WhichApp,
}

pub(super) async fn run(args: Dlq, terminal: &Terminal) -> anyhow::Result<Exit> {
    match args.verb {
        DlqVerb::Ls(args) => list(args, terminal).await,
        DlqVerb::Show(args) => {
            let store = Store::reach(&args.app).await?;
            show::dead_letter(&store.get(&args.id).await?, terminal)
        }
        DlqVerb::Replay(args) => replay(args, terminal).await,
        DlqVerb::Edit(args) => edit::run(args, terminal).await,
        DlqVerb::Purge(args) => purge(args, terminal).await,
    }
}

/// The dead letters of the app that is meant.
struct Store {
    app: String,
    link: Link,
    dead_letters: DeadLetters,
}

impl Store {
    async fn reach(args: &WhichApp) -> anyhow::Result<Self> {
        let (nats, app) = reach(args)?;
        let nats = nats.named("wasmbay dlq");
        let link = nats.link().await?;
        let context = nats.jetstream(nats.connect().await?);
        let app = match app {
            Some(app) => app,
            None => only(&context, "dlq", "dead letters").await?,
        };
        Ok(Self {
            dead_letters: DeadLetters::new(context, link.clone(), &app),
            app,
            link,
        })
    }

    async fn get(&self, id: &str) -> anyhow::Result<DeadLetter> {
        self.dead_letters.get(id).await.map_err(explained)
    }
}

/// The dead letters of a subscriber, an event, or all.
fn filter(service: Option<&String>, function: Option<&String>) -> anyhow::Result<Filter> {
    let function = function.map(|text| text.parse::<Wanted>()).transpose()?;
    Ok(Filter {
        service: service.cloned(),
        function: function.map(|wanted| wanted.meant),
        id: None,
    })
}

/// The only app that keeps something in a stream with this end of its name, where none was named.
pub(super) async fn only(context: &Context, end: &str, what: &str) -> anyhow::Result<String> {
    let streams: Vec<String> = context
        .stream_names()
        .try_collect()
        .await
        .context("cannot list streams")?;
    // No app's name has a `_`.
    let app = |name: &String| {
        let app = name
            .strip_prefix("bay_")?
            .strip_suffix(end)?
            .strip_suffix('_')?;
        (!app.contains('_')).then(|| app.to_owned())
    };
    let mut apps: Vec<String> = streams.iter().filter_map(app).collect();
    match (apps.pop(), apps.is_empty()) {
        (Some(app), true) => Ok(app),
        (Some(last), false) => {
            apps.push(last);
            apps.sort();
            Err(failure(
                format!("several apps keep {what}: {}", apps.join(", ")),
                "choose one: `--app NAME`",
            ))
        }
        (None, _) => anyhow::bail!("no app keeps {what} there"),
    }
}

/// An error with where to look.
fn explained(error: DeadLetterError) -> anyhow::Error {
    match error {
        DeadLetterError::NotFound { .. } | DeadLetterError::NoId(_) => failure(
            error.to_string(),
            "`wasmbay dlq ls` lists those that are there",
        ),
        DeadLetterError::Misfit {
            why,
            function,
            takes,
        } => misfit(&why, &function, &takes),
        DeadLetterError::Untyped { .. } => {
            failure(error.to_string(), "`wasmbay up` runs the app, which does")
        }
        DeadLetterError::Unreadable(ref other) => {
            let hint = format!("`wasmbay dlq purge {}` drops it", other.id);
            failure(error.to_string(), hint)
        }
        error => error.into(),
    }
}

async fn list(args: DlqLs, terminal: &Terminal) -> anyhow::Result<Exit> {
    let DlqLs {
        filter: Chosen { service, function },
        limit,
        app,
    } = args;
    let filter = filter(service.as_ref(), function.as_ref())?;
    let store = Store::reach(&app).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let page = store.dead_letters.list(&filter, None, limit).await?;
    show::dead_letters(&page.entries, terminal)?;
    if page.next.is_some() && !terminal.json() {
        terminal.note(format_args!("there are more: `--limit N` lists them"));
    }
    Ok(Exit::Done)
}

async fn replay(args: DlqReplay, terminal: &Terminal) -> anyhow::Result<Exit> {
    let Meant {
        ids,
        service,
        function,
        ..
    } = &args.meant;
    let filter = filter(service.as_ref(), function.as_ref())?;
    let store = Store::reach(&args.app).await?;
    let mut pace = Pace::new(args.rate);
    let (mut replayed, mut errors) = (Vec::new(), Vec::new());
    for id in ids {
        pace.wait().await;
        match store.dead_letters.replay(id).await {
            Ok(()) => replayed.push(id.clone()),
            Err(error) => errors.push(explained(error)),
        }
    }
    let mut from = None;
    while ids.is_empty() {
        let all = &store.dead_letters;
        let some = all.replay_all(&filter, from, PAGE, &mut pace, None);
        let some = some.await?;
        replayed.extend(some.replayed);
        let failed = some.failed.into_iter().map(|(_, error)| explained(error));
        errors.extend(failed);
        from = some.next;
        if from.is_none() {
            break;
        }
    }
    if terminal.json() {
        terminal.result_json(&json!({ "replayed": replayed }))?;
    } else if !replayed.is_empty() || errors.is_empty() {
        let what = count(replayed.len(), "dead letter");
        terminal.say(format_args!("replayed {what}"));
    }
    ended(errors)
}

async fn purge(args: DlqPurge, terminal: &Terminal) -> anyhow::Result<Exit> {
    let Meant {
        ids,
        service,
        function,
        ..
    } = &args.meant;
    let filter = filter(service.as_ref(), function.as_ref())?;
    let store = Store::reach(&args.app).await?;
    let wanted = if ids.is_empty() {
        let page = store.dead_letters.list(&filter, None, usize::MAX).await?;
        let ids = page.entries.iter().map(|entry| entry.id().to_owned());
        ids.collect()
    } else {
        ids.clone()
    };
    if !wanted.is_empty() && !args.yes && !confirmed(wanted.len())? {
        return Ok(Exit::Failed);
    }
    let (mut purged, mut errors) = (0, Vec::new());
    for id in wanted {
        match store.dead_letters.purge(&Filter::only(&id)).await {
            Ok(0) if !ids.is_empty() => {
                errors.push(explained(DeadLetterError::NotFound { id }));
            }
            Ok(_) => purged += 1,
            Err(error) => errors.push(explained(error)),
        }
    }
    if terminal.json() {
        terminal.result_json(&json!({ "purged": purged }))?;
    } else if purged > 0 || errors.is_empty() {
        terminal.say(format_args!("purged {}", count(purged, "dead letter")));
    }
    ended(errors)
}

fn ended(errors: Vec<anyhow::Error>) -> anyhow::Result<Exit> {
    all_of(Exit::Done, errors)
}

/// Asks whether so many dead letters may go for good.
fn confirmed(number: usize) -> anyhow::Result<bool> {
    let what = count(number, "dead letter");
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(failure(
            format!("purging {what} has to be confirmed, and there is no terminal"),
            "`--yes` confirms it",
        ));
    }
    let mut stderr = anstream::stderr().lock();
    write!(stderr, "purge {what} for good? [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn rate(text: &str) -> Result<u32, String> {
    Pace::rate(text).map_err(|error| error.to_string())
}
