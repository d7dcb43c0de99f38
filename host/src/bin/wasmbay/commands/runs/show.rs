//! Runs as they are printed.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use wasmbay::pipelines::{Listed, Phase, ShownCall, ShownRun, ShownStep, StepState, Tried};
use wasmbay::text::shown;

use crate::report::{Exit, STRONG, Terminal, WEAK, count, plain, table, time};

/// Characters of a timeline.
const WIDTH: u64 = 40;

/// Prints a list.
pub(super) fn list(runs: &[Listed], all: bool, terminal: &Terminal) -> anyhow::Result<()> {
    if runs.is_empty() {
        terminal.say(if all { "no runs" } else { "no open runs" });
        return Ok(());
    }
    let head = ["ID", "PIPELINE", "STATE", "STEP", "BEGAN", "WHY"];
    let head = head.iter().map(|cell| (*cell).to_owned()).collect();
    let row = |run: &Listed| {
        vec![
            plain(&run.id),
            plain(&run.pipeline),
            phase(run.phase).to_owned(),
            plain(run.step.as_deref().unwrap_or("-")),
            seconds(run.began),
            shown(run.why.as_deref().unwrap_or_default()).into_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(runs.iter().map(row)).collect();
    Ok(terminal.result(table(&rows))?)
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Running => "running",
        Phase::RollingBack => "rolling back",
        Phase::Completed => "completed",
        Phase::RolledBack => "rolled back",
        Phase::UndoFailed => "undo failed",
        Phase::Stopped => "stopped",
    }
}

/// A time without fractions of a second.
fn seconds(millis: u64) -> String {
    let seconds = i64::try_from(millis / 1_000).unwrap_or(i64::MAX);
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).unwrap_or_default()
}

/// Prints one run.
pub(super) fn run(run: &ShownRun, terminal: &Terminal) -> anyhow::Result<Exit> {
    if terminal.json() {
        terminal.result(serde_json::to_string_pretty(run)?)?;
        return Ok(Exit::Done);
    }
    let of = &run.run;
    terminal.result(format_args!("{STRONG}Run {}{STRONG:#}", plain(&of.id)))?;
    let mut rows = vec![
        vec!["pipeline".to_owned(), plain(&of.pipeline)],
        vec!["function".to_owned(), plain(&run.function)],
        vec!["state".to_owned(), phase(of.phase).to_owned()],
        vec!["began".to_owned(), seconds(of.began)],
    ];
    if let Some(ended) = of.ended {
        let took = time(Duration::from_millis(ended.saturating_sub(of.began)));
        rows.push(vec!["took".to_owned(), took]);
    }
    if let Some(component) = &run.component {
        rows.push(vec!["component".to_owned(), plain(component)]);
    }
    if run.cancelled {
        rows.push(vec!["cancelled".to_owned(), "yes".to_owned()]);
    }
    if let Some(why) = &of.why {
        rows.push(vec!["why".to_owned(), plain(why)]);
    }
    rows.push(vec!["input".to_owned(), plain(run.input.get())]);
    if let Some(reply) = &run.reply {
        rows.push(vec!["reply".to_owned(), plain(reply.get())]);
    }
    if let Some(error) = &run.error {
        let error = format!("{} {}", error.code, error.message);
        rows.push(vec!["error".to_owned(), plain(&error)]);
    }
    terminal.result(table(&rows))?;

    terminal.result(format_args!("\n{STRONG}Timeline{STRONG:#}"))?;
    terminal.result(table(&timeline(run)))?;
    for step in &run.steps {
        describe(step, terminal)?;
    }
    Ok(Exit::Done)
}

/// The steps, each item of a step with `each` as one of its own.
fn calls(run: &ShownRun) -> impl Iterator<Item = &ShownStep> {
    run.steps.iter().flat_map(|step| match &step.items[..] {
        [] => std::slice::from_ref(step),
        items => items,
    })
}

/// A row for each step that was tried, and for each undo, in the order of time.
fn timeline(run: &ShownRun) -> Vec<Vec<String>> {
    let done = calls(run).filter_map(|step| {
        let call = step.call.as_ref().map(|call| &call.tried);
        let waited = step.event.as_ref().map(|event| &event.tried);
        let tried = call.or(waited).or(step.sleep.as_ref())?;
        Some((step.name.clone(), tried, state(step)))
    });
    // The last one is undone first, which may be within the same millisecond.
    let steps: Vec<_> = calls(run).collect();
    let undone = steps.into_iter().rev().filter_map(|step| {
        let undo = step.undo.as_ref()?;
        let how = match undo.failure() {
            None => "undone",
            Some(_) => "failed",
        };
        Some((format!("undo {}", step.name), &undo.tried, how))
    });
    let tried = |(_, tried, _): &(String, &Tried, &str)| tried.attempts > 0;
    let mut all: Vec<_> = done.chain(undone).filter(tried).collect();
    all.sort_by_key(|(_, tried, _)| tried.first);
    let begin = run.run.began;
    let end = all.iter().map(|(_, tried, _)| tried.ended).max();
    let scale = end.unwrap_or(begin).saturating_sub(begin).max(1);
    let at = |time: u64| (time.saturating_sub(begin) * WIDTH / scale).min(WIDTH);
    let mut rows = Vec::new();
    for (name, tried, how) in all {
        let (from, to) = (at(tried.first), at(tried.ended));
        let from = from.min(WIDTH - 1);
        let length = to.saturating_sub(from).max(1);
        let mut bar = String::new();
        bar.extend(std::iter::repeat_n('·', usize::try_from(from).unwrap_or(0)));
        bar.extend(std::iter::repeat_n(
            '━',
            usize::try_from(length).unwrap_or(1),
        ));
        let left = WIDTH.saturating_sub(from + length);
        bar.extend(std::iter::repeat_n('·', usize::try_from(left).unwrap_or(0)));
        let took = tried.ended.saturating_sub(tried.first);
        rows.push(vec![
            plain(&name),
            bar,
            time(Duration::from_millis(took)),
            how.to_owned(),
            count(tried.attempts as usize, "attempt"),
        ]);
    }
    if rows.is_empty() {
        rows.push(vec!["nothing has happened yet".to_owned()]);
    }
    rows
}

fn state(step: &ShownStep) -> &'static str {
    match step.state {
        StepState::Failed => "failed",
        StepState::Pending
            if step
                .call
                .as_ref()
                .is_some_and(|call| call.tried.attempts > 0) =>
        {
            "failed"
        }
        // It may have been done all the same.
        StepState::Undone
            if step
                .call
                .as_ref()
                .is_some_and(|call| call.failure().is_some()) =>
        {
            "failed"
        }
        StepState::Pending
            if step
                .event
                .as_ref()
                .is_some_and(|event| event.tried.attempts > 0) =>
        {
            "failed"
        }
        StepState::Pending if step.until.is_some() => "waiting",
        StepState::Pending if !step.items.is_empty() => "not done for all items",
        StepState::Pending => "pending",
        StepState::Skipped => "skipped",
        StepState::Done | StepState::Undone => "done",
        StepState::Declined => "declined",
    }
}

/// Prints what is known of a step.
fn describe(step: &ShownStep, terminal: &Terminal) -> anyhow::Result<()> {
    let state = match (step.state, step.unknown) {
        (StepState::Undone, _) => "undone".to_owned(),
        (_, true) => format!("{}, may have been done", self::state(step)),
        (_, false) => self::state(step).to_owned(),
    };
    terminal.result(format_args!(
        "\n{STRONG}{}{STRONG:#} {WEAK}{state}{WEAK:#}",
        plain(&step.name)
    ))?;
    let mut rows = Vec::new();
    if let Some(made) = &step.call {
        rows.extend(call("", made));
    }
    if let Some(event) = &step.event {
        rows.push(vec!["event".to_owned(), plain(&event.function)]);
        if let Some(key) = &event.key {
            rows.push(vec!["key".to_owned(), plain(key.get())]);
        }
        if let Some(failure) = &event.tried.failure {
            rows.push(vec!["failure".to_owned(), plain(&failure.to_string())]);
        }
    }
    if let (StepState::Pending, Some(until)) = (step.state, step.until) {
        rows.push(vec!["until".to_owned(), seconds(until)]);
    }
    if let Some(result) = &step.result {
        rows.push(vec!["result".to_owned(), plain(result.get())]);
    }
    if let Some(undo) = step.undo.as_ref().filter(|undo| undo.tried.attempts > 0) {
        rows.extend(call("undo ", undo));
    }
    if !rows.is_empty() {
        terminal.result(table(&rows))?;
    }
    for item in &step.items {
        describe(item, terminal)?;
    }
    Ok(())
}

fn call(prefix: &str, call: &ShownCall) -> Vec<Vec<String>> {
    let row = |name: &str, value: &str| vec![format!("{prefix}{name}"), plain(value)];
    let mut rows = vec![row("call", &call.function)];
    if let Some(arguments) = &call.arguments {
        rows.push(row("arguments", arguments.get()));
    }
    if let Some(failure) = call.failure() {
        rows.push(row("failure", &failure.to_string()));
    }
    rows
}
