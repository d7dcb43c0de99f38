//! `wasmbay dlq`: dead letters by hand.

mod edit;
mod show;

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::Context as _;
use async_nats::jetstream::Context;
use futures_util::TryStreamExt as _;
use serde_json::json;
use wasmbay::events::dead_letters::{DeadLetter, DeadLetterError, DeadLetters, Filter, Pace};

use super::call::{misfit, place};
use super::discover::Wanted;
use crate::args::{Dlq, DlqLs, DlqPurge, DlqReplay, DlqVerb, LetterFilter, Meant, Place};
use crate::report::{Exit, Failures, Terminal, count, failure};

/// DeadLetters that are looked at together when many are replayed.
const PAGE: usize = 1_000;

pub(super) async fn run(args: Dlq, terminal: &Terminal) -> anyhow::Result<Exit> {
    match args.verb {
        DlqVerb::Ls(args) => list(args, terminal).await,
        DlqVerb::Show(args) => {
            let post = Post::reach(&args.place).await?;
            show::letter(&post.get(&args.id).await?, terminal)
        }
        DlqVerb::Replay(args) => replay(args, terminal).await,
        DlqVerb::Edit(args) => edit::run(args, terminal).await,
        DlqVerb::Purge(args) => purge(args, terminal).await,
    }
}

/// The dead letters of the app that is meant.
struct Post {
    app: String,
    client: async_nats::Client,
    letters: DeadLetters,
}

impl Post {
    async fn reach(args: &Place) -> anyhow::Result<Self> {
        let (nats, app) = place(args)?;
        let nats = nats.named("wasmbay dlq");
        let client = nats.connect().await?;
        let context = nats.jetstream(client.clone());
        let app = match app {
            Some(app) => app,
            None => only(&context).await?,
        };
        Ok(Self {
            letters: DeadLetters::new(context, &app),
            app,
            client,
        })
    }

    async fn get(&self, id: &str) -> anyhow::Result<DeadLetter> {
        self.letters.get(id).await.map_err(explained)
    }
}

/// The letters of a subscriber, an event, or all.
fn filter(service: Option<&String>, function: Option<&String>) -> anyhow::Result<Filter> {
    let function = function.map(|text| text.parse::<Wanted>()).transpose()?;
    Ok(Filter {
        service: service.cloned(),
        function: function.map(|wanted| wanted.meant),
        id: None,
    })
}

/// The only app that keeps dead letters, when nobody said which.
async fn only(context: &Context) -> anyhow::Result<String> {
    let streams: Vec<String> = context
        .stream_names()
        .try_collect()
        .await
        .context("cannot list streams")?;
    // No app's name has a `_`.
    let app = |name: &String| {
        let app = name.strip_prefix("bay_")?.strip_suffix("_dlq")?;
        (!app.contains('_')).then(|| app.to_owned())
    };
    let mut apps: Vec<String> = streams.iter().filter_map(app).collect();
    match (apps.pop(), apps.is_empty()) {
        (Some(app), true) => Ok(app),
        (Some(last), false) => {
            apps.push(last);
            apps.sort();
            Err(failure(
                format!("several apps keep dead letters: {}", apps.join(", ")),
                "choose one: `--app NAME`",
            ))
        }
        (None, _) => anyhow::bail!("no app keeps dead letters there"),
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
        filter: LetterFilter { service, function },
        limit,
        place,
    } = args;
    let filter = filter(service.as_ref(), function.as_ref())?;
    let post = Post::reach(&place).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let page = post.letters.list(&filter, None, limit).await?;
    show::letters(&page.entries, terminal)?;
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
    let post = Post::reach(&args.place).await?;
    let mut pace = Pace::new(args.rate);
    let (mut replayed, mut errors) = (Vec::new(), Vec::new());
    for id in ids {
        pace.turn().await;
        match post.letters.replay(id).await {
            Ok(()) => replayed.push(id.clone()),
            Err(error) => errors.push(explained(error)),
        }
    }
    let mut from = None;
    while ids.is_empty() {
        let letters = &post.letters;
        let some = letters.replay_all(&filter, from, PAGE, &mut pace, None);
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
    let post = Post::reach(&args.place).await?;
    let wanted = match ids.is_empty() {
        false => ids.clone(),
        true => {
            let page = post.letters.list(&filter, None, usize::MAX).await?;
            let ids = page.entries.iter().map(|entry| entry.id().to_owned());
            ids.collect()
        }
    };
    if !wanted.is_empty() && !args.yes && !confirmed(wanted.len())? {
        return Ok(Exit::Failed);
    }
    let (mut purged, mut errors) = (0, Vec::new());
    for id in wanted {
        match post.letters.purge(&Filter::only(&id)).await {
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
    match errors.is_empty() {
        true => Ok(Exit::Done),
        false => Err(Failures(errors).into()),
    }
}

/// Asks whether so many letters may go for good.
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
