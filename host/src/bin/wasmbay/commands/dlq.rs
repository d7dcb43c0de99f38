//! `wasmbay dlq`: dead letters by hand.

mod edit;
mod show;

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::{self, Context};
use futures_util::TryStreamExt as _;
use serde_json::json;
use wasmbay::events::letters::{Filter, Letter, Letters, LettersError};

use super::call::place;
use super::discover::Wanted;
use crate::args::{Dlq, DlqLs, DlqPurge, DlqReplay, DlqVerb, Meant, Place};
use crate::report::{Exit, Failures, Terminal, count, failure};

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
    context: Context,
    letters: Letters,
}

impl Post {
    async fn reach(args: &Place) -> anyhow::Result<Self> {
        let (nats, app) = place(args)?;
        let client = nats.named("wasmbay dlq").connect().await?;
        let context = jetstream::new(client.clone());
        let app = match app {
            Some(app) => app,
            None => only(&context).await?,
        };
        Ok(Self {
            letters: Letters::new(context.clone(), &app),
            app,
            client,
            context,
        })
    }

    async fn get(&self, id: &str) -> anyhow::Result<Letter> {
        self.letters.get(id).await.map_err(explained)
    }

    /// The letters of a subscriber, an event, or all. Only the subscriber and the function's name
    /// can be left to the server: the interface may be shortened.
    async fn select(
        &self,
        service: Option<&str>,
        function: Option<&str>,
        limit: usize,
    ) -> anyhow::Result<Vec<Letter>> {
        let wanted: Option<Wanted> = function.map(str::parse).transpose()?;
        let filter = Filter {
            service: service.map(str::to_owned),
            function: wanted.as_ref().map(|wanted| wanted.function.clone()),
            ..Filter::default()
        };
        let Some(wanted) = wanted else {
            return Ok(self.letters.list(&filter, limit).await?);
        };
        let mut letters = self.letters.list(&filter, usize::MAX).await?;
        // What some other client published under a name that is none can only be meant by all.
        letters.retain(|letter| letter.function.parse().is_ok_and(|f| wanted.means(&f)));
        letters.truncate(limit);
        Ok(letters)
    }

    /// The ids of what was meant.
    async fn ids(&self, meant: &Meant) -> anyhow::Result<Vec<String>> {
        if !meant.ids.is_empty() {
            return Ok(meant.ids.clone());
        }
        let (service, function) = (meant.service.as_deref(), meant.function.as_deref());
        let letters = self.select(service, function, usize::MAX).await?;
        Ok(letters.into_iter().map(|letter| letter.id).collect())
    }
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
fn explained(error: LettersError) -> anyhow::Error {
    match error {
        LettersError::NotFound { .. } | LettersError::NoId(_) => failure(
            error.to_string(),
            "`wasmbay dlq ls` lists those that are there",
        ),
        error => error.into(),
    }
}

async fn list(args: DlqLs, terminal: &Terminal) -> anyhow::Result<Exit> {
    let post = Post::reach(&args.place).await?;
    let (service, function) = (&args.filter.service, &args.filter.function);
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    // One more tells whether there are more.
    let mut letters = post
        .select(
            service.as_deref(),
            function.as_deref(),
            limit.saturating_add(1),
        )
        .await?;
    let more = letters.len() > limit;
    letters.truncate(limit);
    show::letters(&letters, terminal)?;
    if more && !terminal.json() {
        terminal.note(format_args!("there are more: `--limit N` lists them"));
    }
    Ok(Exit::Done)
}

async fn replay(args: DlqReplay, terminal: &Terminal) -> anyhow::Result<Exit> {
    let post = Post::reach(&args.place).await?;
    let ids = post.ids(&args.meant).await?;
    let mut pace = args.rate.map(|rate| {
        let mut pace = tokio::time::interval(Duration::from_secs(1) / rate);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        pace
    });
    let (mut replayed, mut errors) = (Vec::new(), Vec::new());
    for id in ids {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
        match post.letters.replay(&id).await {
            Ok(()) => replayed.push(id),
            // It was handled or purged since it was listed.
            Err(LettersError::NotFound { .. }) if args.meant.ids.is_empty() => {}
            Err(error) => errors.push(explained(error)),
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
    let post = Post::reach(&args.place).await?;
    let ids = post.ids(&args.meant).await?;
    if !ids.is_empty() && !args.yes && !confirmed(ids.len())? {
        return Ok(Exit::Failed);
    }
    let (mut purged, mut errors) = (0, Vec::new());
    for id in ids {
        let filter = Filter {
            id: Some(id.clone()),
            ..Filter::default()
        };
        match post.letters.purge(&filter).await {
            Ok(0) if !args.meant.ids.is_empty() => {
                errors.push(explained(LettersError::NotFound { id }));
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
