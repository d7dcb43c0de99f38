//! Runs as operators see them: listed, shown, cancelled, tried again, undone.

use std::borrow::Cow;

use async_nats::jetstream::Context;
use serde::Serialize;

use super::OPERATOR;
use super::journal::{self, JournalError, Journals, Stored};
use super::run::{Edited, Phase, Run, Slot, StepFailure, StepRun, StepState, Tried, Unedited};
use crate::plan::{Act, JsonText, StepCall};
use crate::subject;
use crate::wire::ErrorDetail;

/// How often a change is made anew when the run moved on meanwhile.
const TRIES: u32 = 20;

/// The runs of an app's pipelines.
pub struct Runs {
    journals: Journals,
}

/// Why something could not be done with a run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no such run.
    #[error("there is no run \"{0}\", or it was not kept for longer")]
    NotFound(String),
    /// A text is no id.
    #[error("\"{}\" is no id of a run; accepted: 32 digits of 0-9 and a-f", crate::text::shown(.0))]
    NoId(String),
    /// The run is not in a state for that.
    #[error("run {id} {is}; {accepted}")]
    State {
        /// The run.
        id: String,
        /// How it stands.
        is: &'static str,
        /// What can be done.
        accepted: &'static str,
    },
    /// The run was written again and again.
    #[error("run {0} moves on too fast to be changed; try again")]
    Busy(String),
    /// What was edited cannot stand there.
    #[error("run {id}: {why}")]
    Misfit {
        /// The run.
        id: String,
        /// Why not.
        why: String,
    },
    /// The journal with what was edited is too large.
    #[error("the journal of run {id} would have {bytes} bytes, {limit} are allowed")]
    TooLarge {
        /// The run.
        id: String,
        /// Bytes with the change.
        bytes: usize,
        /// Bytes that are allowed.
        limit: usize,
    },
    /// The run is at another revision.
    #[error("run {id} is at revision {now} by now; look at it again")]
    Changed {
        /// The run.
        id: String,
        /// Its revision.
        now: u64,
    },
    /// The journal cannot be read or written.
    #[error("{0}")]
    Journal(String),
}

impl From<JournalError> for RunError {
    fn from(error: JournalError) -> Self {
        Self::Journal(error.to_string())
    }
}

/// A run in a list.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Its pipeline.
    pub pipeline: String,
    /// Where it stands.
    pub phase: Phase,
    /// The step that comes next, or that could not be undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// When it began, in milliseconds since 1970.
    pub began: u64,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Some of the runs.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Page {
    /// The runs: open ones, those that were begun or opened again first come first; else those that were written
    /// first.
    pub runs: Vec<Listed>,
    /// Where the next page begins, if there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A run with everything that is known of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ShownRun {
    /// As in a list.
    #[serde(flatten)]
    pub run: Listed,
    /// Changes with each change of the run.
    pub revision: u64,
    /// The function that it is a call of.
    pub function: String,
    /// The digest of the component that made its steps, where it is a durable function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// Whether somebody wants it to be undone.
    pub cancelled: bool,
    /// The arguments.
    pub input: JsonText,
    /// The steps.
    pub steps: Vec<ShownStep>,
    /// What its callers got; nothing before its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<JsonText>,
    /// The error that its callers got.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorDetail>,
}

/// A step of a run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ShownStep {
    /// Its name.
    pub name: String,
    /// How it stands.
    pub state: StepState,
    /// Whether nobody knows the outcome of an attempt.
    pub unknown: bool,
    /// Whether a person has edited its result or the arguments of its undo.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub edited: bool,
    /// Its call; nothing of a step with `each`, whose items have one each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<ShownCall>,
    /// Of a step that waits: until when it does, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// Of a step that lets time pass: when it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sleep: Option<Tried>,
    /// Of a step that waits for an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<ShownEvent>,
    /// What it returned, or the arguments of the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<JsonText>,
    /// The call that undoes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undo: Option<ShownCall>,
    /// Of a step with `each`: one for each item, named by the step and its number from 0.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<ShownStep>,
}

/// An event that a step waits for.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ShownEvent {
    /// The function.
    pub function: String,
    /// The key that it has to have, once that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<JsonText>,
    /// The sequence in its stream, once it has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// How the waiting ended.
    #[serde(flatten)]
    pub tried: Tried,
}

/// A call of a step or its undo.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ShownCall {
    /// The function.
    pub function: String,
    /// The value of `Bay-Step`.
    pub id: String,
    /// The arguments, once they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<JsonText>,
    /// Its attempts.
    #[serde(flatten)]
    pub tried: Tried,
}

impl Runs {
    /// The runs of the app of this name.
    #[must_use]
    pub fn new(context: Context, app: &str) -> Self {
        Self {
            journals: Journals::new(context, app),
        }
    }

    /// A page of the runs: those that are open, which a host works on or a person has to; or `all` that are kept.
    /// `from` is the `next` of the page before.
    ///
    /// # Errors
    ///
    /// JetStream cannot be reached.
    pub async fn list(
        &self,
        all: bool,
        pipeline: Option<&str>,
        from: Option<u64>,
        limit: usize,
    ) -> Result<Page, RunError> {
        let app = &self.journals.app;
        let pipeline = pipeline.unwrap_or("*");
        if pipeline != "*" && !crate::interface::is_label(pipeline) {
            return Ok(Page::default());
        }
        let wanted = match all {
            true => subject::run(app, pipeline, "*"),
            false => subject::open_run(app, pipeline, "*"),
        };
        let mut page = Page::default();
        let mut from = from.unwrap_or(1).max(1);
        while let Some(message) = self.journals.first(&wanted, from).await? {
            let sequence = message.sequence;
            if page.runs.len() >= limit {
                page.next = Some(sequence);
                break;
            }
            from = sequence + 1;
            let run = match (all, subject::of_open_run(&message.subject)) {
                (false, Some((pipeline, id))) => self.journals.read(Some(pipeline), id).await,
                _ => journal::parse(&message.payload).map(|run| Some(Stored { run, sequence })),
            };
            let run = match run {
                Ok(Some(stored)) => stored.run,
                // It has ended since.
                Ok(None) => continue,
                Err(error @ JournalError::Unreadable(_)) => {
                    tracing::warn!(sequence, %error, "left out of the list");
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            page.runs.push(listed(&run));
        }
        Ok(page)
    }

    /// A run.
    ///
    /// # Errors
    ///
    /// There is none with this id.
    pub async fn show(&self, id: &str) -> Result<ShownRun, RunError> {
        let Stored { run, sequence } = self.find(id).await?;
        Ok(shown(&run, sequence))
    }

    /// Edits what the undo of a run takes that has failed: the arguments of the undo, or the result of a step. Without a name
    /// it is the step whose undo has failed. A revision is the only one that is edited. The run is undone by
    /// [`retry`](Self::retry).
    ///
    /// # Errors
    ///
    /// There is no such run or step, its undo has not failed, the value is not of the type, or the run is at another
    /// revision.
    pub async fn edit(
        &self,
        id: &str,
        step: Option<&str>,
        what: Edited,
        body: &[u8],
        revision: Option<u64>,
    ) -> Result<ShownRun, RunError> {
        let Stored { mut run, sequence } = self.find(id).await?;
        let changed = |now| {
            let id = id.to_owned();
            RunError::Changed { id, now }
        };
        if revision.is_some_and(|revision| revision != sequence) {
            return Err(changed(sequence));
        }
        run.edit(step, what, body).map_err(|why| match why {
            Unedited::State => state(&run, "only one whose undo failed can be edited"),
            why => RunError::Misfit {
                id: id.to_owned(),
                why: why.to_string(),
            },
        })?;
        let (text, limit) = (journal::text(&run)?, run.pipeline.journal);
        if text.len() > limit {
            let (id, bytes) = (id.to_owned(), text.len());
            return Err(RunError::TooLarge { id, bytes, limit });
        }
        match self.journals.write(&run, text, sequence).await {
            Ok(sequence) => Ok(shown(&run, sequence)),
            Err(JournalError::Changed) => Err(changed(self.find(id).await?.sequence)),
            Err(error) => Err(error.into()),
        }
    }

    async fn find(&self, id: &str) -> Result<Stored, RunError> {
        check(id)?;
        let stored = self.journals.read(None, id).await?;
        stored.ok_or_else(|| RunError::NotFound(id.to_owned()))
    }

    /// Cancels a run that has not ended: after the step that is under way it fails, and is undone.
    ///
    /// # Errors
    ///
    /// It has ended, or there is none with this id.
    pub async fn cancel(&self, id: &str) -> Result<(), RunError> {
        let accepted =
            "only one that runs can be cancelled; `wasmbay runs undo` undoes one that is completed";
        if self.find(id).await?.run.phase == Phase::Stopped {
            return self.reopen(id, Phase::Stopped, Run::reopen, accepted).await;
        }
        let change = |run: &mut Run| {
            if run.phase != Phase::Running {
                return Err(state(run, accepted));
            }
            run.cancelled = true;
            Ok(())
        };
        let run = self.change(id, change).await?;
        self.hand_out(&run).await
    }

    /// Has a run undone that is completed.
    ///
    /// # Errors
    ///
    /// It is not completed, or there is none with this id.
    pub async fn undo(&self, id: &str) -> Result<(), RunError> {
        let accepted =
            "only one that is completed can be undone; `wasmbay runs cancel` cancels one that runs";
        self.reopen(id, Phase::Completed, Run::reopen, accepted)
            .await
    }

    /// Has a run undone once more whose undo failed, or a durable function run again that was stopped.
    ///
    /// # Errors
    ///
    /// It is neither, or there is none with this id.
    pub async fn retry(&self, id: &str) -> Result<(), RunError> {
        let accepted = "only one whose undo failed, or that is stopped, can be tried again";
        let (from, again): (_, fn(&mut Run)) = match self.find(id).await?.run.phase {
            Phase::Stopped => (Phase::Stopped, Run::resume),
            _ => (Phase::UndoFailed, Run::reopen),
        };
        self.reopen(id, from, again, accepted).await
    }

    async fn reopen(
        &self,
        id: &str,
        from: Phase,
        again: fn(&mut Run),
        accepted: &'static str,
    ) -> Result<(), RunError> {
        let change = |run: &mut Run| {
            if run.phase == from {
                again(run);
                OPERATOR.clone_into(&mut run.owner);
                return Ok(());
            }
            // One that was reopened and that no host was told of is handed out now.
            if !run.has_ended() && run.owner == OPERATOR {
                return Ok(());
            }
            Err(state(run, accepted))
        };
        let run = self.change(id, change).await?;
        let last = self.journals.read_open(&run.pipeline.name, id).await?;
        match self.journals.open(&run.pipeline.name, id, last).await {
            // Somebody else did the same.
            Ok(_) | Err(JournalError::Changed) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Has some host work on a run, if none does: it sleeps, or who began it died before it was open.
    async fn hand_out(&self, run: &Run) -> Result<(), RunError> {
        if let Some(asleep) = run.asleep {
            let why = bytes::Bytes::new();
            let (pipeline, open) = (&run.pipeline.name, asleep.open);
            // Something else has woken it, if this did not.
            self.journals.wake(pipeline, &run.id, open, why).await?;
            return Ok(());
        }
        match self.journals.open(&run.pipeline.name, &run.id, 0).await {
            Ok(_) | Err(JournalError::Changed) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Changes the journal of a run as it is now.
    async fn change(
        &self,
        id: &str,
        change: impl Fn(&mut Run) -> Result<(), RunError>,
    ) -> Result<Run, RunError> {
        for _ in 0..TRIES {
            let Stored { mut run, sequence } = self.find(id).await?;
            change(&mut run)?;
            if run.owner.is_empty() {
                // An owner that has written nothing yet goes on with what is written here.
                OPERATOR.clone_into(&mut run.owner);
            }
            match self
                .journals
                .write(&run, journal::text(&run)?, sequence)
                .await
            {
                Ok(_) => return Ok(run),
                Err(JournalError::Changed) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(RunError::Busy(id.to_owned()))
    }
}

fn check(id: &str) -> Result<(), RunError> {
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if id.len() == 32 && id.bytes().all(is_digit) {
        return Ok(());
    }
    Err(RunError::NoId(id.to_owned()))
}

fn state(run: &Run, accepted: &'static str) -> RunError {
    let is = match run.phase {
        Phase::Running => "runs",
        Phase::RollingBack => "is being undone",
        Phase::Completed => "is completed",
        Phase::RolledBack => "has failed and is undone",
        Phase::UndoFailed => "has failed and could not be undone",
        Phase::Stopped => "is stopped",
    };
    let id = run.id.clone();
    RunError::State { id, is, accepted }
}

/// A run in a list, without what is secret.
fn listed(run: &Run) -> Listed {
    listed_as_is(&run.masked())
}

fn listed_as_is(run: &Run) -> Listed {
    let pending = |step: &StepRun| step.state == StepState::Pending;
    let step = match run.phase {
        Phase::Running => run.steps.iter().position(pending).map(Slot::of),
        Phase::UndoFailed => run.not_undone(),
        _ => None,
    };
    Listed {
        id: run.id.clone(),
        pipeline: run.pipeline.name.clone(),
        phase: run.phase,
        step: step.map(|slot| run.slot_name(slot)),
        began: run.began,
        ended: run.ended,
        why: run.cause.is_some().then(|| match run.phase {
            Phase::UndoFailed => format!("{}; {}", run.why(), run.why_not_undone()),
            _ => run.why(),
        }),
    }
}

/// All of a run but what is secret.
fn shown(run: &Run, revision: u64) -> ShownRun {
    let run = &*run.masked();
    let steps = run.steps.iter().enumerate().map(|(index, step)| {
        let items = step.items.iter().flatten().enumerate();
        let items = items.map(|(item, entry)| {
            shown_step(
                run,
                Slot {
                    step: index,
                    item: Some(item),
                },
                entry,
            )
        });
        ShownStep {
            items: items.collect(),
            ..shown_step(run, Slot::of(index), step)
        }
    });
    let reply = run.has_ended().then(|| run.reply());
    let text = |body: &[u8]| serde_json::from_slice(body).ok();
    ShownRun {
        run: listed_as_is(run),
        revision,
        function: run.pipeline.function.to_string(),
        component: run.coded.as_ref().and_then(|coded| {
            let version = coded.version.as_ref()?;
            Some(version.component.clone())
        }),
        cancelled: run.cancelled,
        input: run.input.clone(),
        steps: steps.collect(),
        reply: reply
            .as_ref()
            .and_then(|reply| reply.as_ref().ok())
            .and_then(|body| text(body)),
        error: reply.and_then(Result::err).map(|error| ErrorDetail {
            code: error.code.status(),
            message: error.message,
            blame: error.blame,
            run: None,
        }),
    }
}

fn shown_step(run: &Run, slot: Slot, entry: &StepRun) -> ShownStep {
    let call = |call: &StepCall, tried: &Tried, undo: bool| ShownCall {
        function: call.function.to_string(),
        id: run.step_id(slot, undo),
        arguments: (tried.attempts > 0)
            .then(|| run.arguments(slot, call))
            .flatten(),
        tried: tried.clone(),
    };
    let step = run.pipeline.steps.get(slot.step);
    let step = step.filter(|step| step.each.is_some() == slot.item.is_some());
    let made = step.and_then(|step| step.call());
    let undo = step.and_then(|step| step.undo.as_ref());
    ShownStep {
        name: run.slot_name(slot),
        state: entry.state,
        unknown: entry.unknown,
        edited: entry.edited,
        call: made.map(|made| call(made, &entry.tried, false)),
        until: entry.until,
        sleep: step
            .filter(|step| matches!(step.act, Act::Sleep(_)))
            .map(|_| entry.tried.clone()),
        event: step.and_then(|step| step.wait()).map(|wait| ShownEvent {
            function: wait.function.to_string(),
            key: entry.until.and_then(|_| run.key_of(slot, wait)),
            sequence: entry.event,
            tried: entry.tried.clone(),
        }),
        result: match slot.item {
            Some(_) => entry.result.clone(),
            None => run.result_of(slot.step).map(Cow::into_owned),
        },
        undo: undo.map(|undo| {
            let made = call(undo, &entry.undo, true);
            let edited = entry.undo_with.clone();
            ShownCall {
                arguments: edited.or(made.arguments),
                ..made
            }
        }),
        items: Vec::new(),
    }
}

impl ShownCall {
    /// How its last attempt failed.
    #[must_use]
    pub fn failure(&self) -> Option<&StepFailure> {
        self.tried.failure.as_ref()
    }
}
