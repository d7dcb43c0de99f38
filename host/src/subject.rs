//! Functions as NATS subjects, and back; names of streams, buckets and queue groups. The only
//! module that formats or parses one.
//!
//! `bay.<app>.<namespace>.<package>.<interface>.<track>.<function>`, seven tokens. Every token
//! comes from a checked name, so that a subject has no wildcard.

use crate::interface::{FunctionId, FunctionRef, InterfaceId, is_label};

/// The first token of every subject.
const ROOT: &str = "bay";

/// The first token of the subjects on which dead letters are replayed: apart, so that permissions
/// for publishing events do not include it.
const REPLAY: &str = "bay-replay";

/// The first token of the subjects of stored dead letters.
const DEAD_LETTER: &str = "bay-dlq";

/// The first token of the subjects of runs of pipelines: apart, so that who may call an app's functions
/// cannot write its journals.
const RUN: &str = "bay-run";

/// The first token of the subjects of jobs: apart, as those of runs of pipelines are.
const JOB: &str = "bay-job";

/// The token before the subject of a replayed message; that of a replayed event has a namespace
/// there.
const MESSAGE: &str = "_";

/// The token before the name of a service whose functions are called by name; the subject of any
/// other function has a namespace there, which is never this.
const OF_SERVICE: &str = "_";

/// The first token of the subjects on which hosts answer operators: apart, so that who may call an app's
/// functions does not see what others call.
const OPS: &str = "bay-ops";

/// The first token of the subjects on which hosts ask each other for the items of streams.
const STREAMS: &str = "bay-streams";

/// The queue group in which every host subscribes, so that one of them gets each request.
pub const QUEUE_GROUP: &str = "bay";

/// The queue group in which the hosts of one service subscribe to events, so that each service gets
/// each event.
#[must_use]
pub fn queue_group_of(service: &str) -> String {
    format!("{ROOT}.{service}")
}

/// The queue group in which the hosts of one service subscribe to messages. Their subjects are of
/// no app, so the group has its name.
#[must_use]
pub fn queue_group_of_messages(app: &str, service: &str) -> String {
    format!("{ROOT}.{app}.{service}")
}

/// Whether a subject is of hosts, of any app.
#[must_use]
pub fn is_own(subject: &str) -> bool {
    let first = subject.split('.').next().unwrap_or_default();
    [ROOT, REPLAY, DEAD_LETTER, RUN, JOB, OPS, STREAMS].contains(&first)
}

/// Whether a subject belongs to NATS or to hosts. nats-server does not hold the reply subject of a
/// message against its sender's permissions, so a host that wrote there what a message asks for would
/// lend its own to any client.
#[must_use]
pub fn is_reserved(subject: &str) -> bool {
    subject.starts_with('$') || is_own(subject)
}

/// The subject on which the items of a stream are asked for.
#[must_use]
pub(crate) fn of_stream(app: &str, name: &str) -> String {
    format!("{STREAMS}.{app}.{name}")
}

/// The app of a subject of [`of_function`].
#[must_use]
pub(crate) fn app_of(subject: &str) -> &str {
    subject.split('.').nth(1).unwrap_or_default()
}

/// What operators ask all hosts of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question<'a> {
    /// The figures of all services.
    Services,
    /// All about one.
    Service(&'a str),
    /// The last traces.
    Traces,
    /// The spans of one.
    Trace(&'a str),
    /// The calls of a service that have ended since this was asked, which it has kept from then on.
    Record(&'a str),
}

/// The subjects of all [`Question`]s about an app.
pub(crate) fn questions(app: &str) -> String {
    format!("{OPS}.{app}.>")
}

impl<'a> Question<'a> {
    pub(crate) fn subject(&self, app: &str) -> String {
        match self {
            Self::Services => format!("{OPS}.{app}.services"),
            Self::Service(name) => format!("{OPS}.{app}.services.{name}"),
            Self::Traces => format!("{OPS}.{app}.traces"),
            Self::Trace(id) => format!("{OPS}.{app}.traces.{id}"),
            Self::Record(name) => format!("{OPS}.{app}.record.{name}"),
        }
    }

    pub(crate) fn parse(app: &str, subject: &'a str) -> Option<Self> {
        let rest = subject.strip_prefix(OPS)?.strip_prefix('.')?;
        let mut tokens = rest.strip_prefix(app)?.split('.');
        match (tokens.next()?, tokens.next()?, tokens.next(), tokens.next()) {
            ("", "services", None, None) => Some(Self::Services),
            ("", "services", Some(name), None) => Some(Self::Service(name)),
            ("", "traces", None, None) => Some(Self::Traces),
            ("", "traces", Some(id), None) => Some(Self::Trace(id)),
            ("", "record", Some(name), None) => Some(Self::Record(name)),
            _ => None,
        }
    }
}

/// The subject on which a function is called.
#[must_use]
pub fn of_function(app: &str, function: &FunctionId) -> String {
    format!(
        "{}.{}",
        of_interface(app, &function.interface),
        function.name
    )
}

/// The subject on which a function of one service is called by those that chose the service, whatever
/// other services export it. Below the app's own subjects, so that a host needs no further permission;
/// beside those of the package, so that a client that may call the package does not go round the
/// service that the app chose for it.
#[must_use]
pub fn of_service_function(app: &str, service: &str, function: &FunctionId) -> String {
    let subject = of_function(app, function);
    format!(
        "{ROOT}.{app}.{OF_SERVICE}.{service}.{}",
        below_app(&subject, app)
    )
}

/// Whether a subject is one of [`of_service_function`].
#[must_use]
pub fn is_of_service(subject: &str) -> bool {
    let mut tokens = subject.split('.');
    tokens.next() == Some(ROOT) && tokens.nth(1) == Some(OF_SERVICE)
}

/// The subject of one partition of a function's events.
#[must_use]
pub fn of_partition(function: &str, partition: u32) -> String {
    format!("{function}.{partition}")
}

/// The subjects of all partitions of a function's events.
#[must_use]
pub fn of_any_partition(function: &str) -> String {
    format!("{function}.*")
}

/// The stream that stores an interface's events. No name has a `_` but the track, which is last,
/// so two interfaces never share one, and the app's own stores below have names of three parts.
#[must_use]
pub fn stream(app: &str, interface: &InterfaceId) -> String {
    let InterfaceId {
        namespace,
        package,
        name,
        ..
    } = interface;
    format!(
        "{ROOT}_{app}_{namespace}_{package}_{name}_{}",
        interface.track()
    )
}

/// The stream of an app's dead letters.
#[must_use]
pub fn dead_letter_stream(app: &str) -> String {
    format!("{ROOT}_{app}_dlq")
}

/// The stream of the runs of an app's pipelines.
#[must_use]
pub fn run_stream(app: &str) -> String {
    format!("{ROOT}_{app}_runs")
}

/// The subjects of the stream of runs.
#[must_use]
pub fn stored_runs(app: &str) -> Vec<String> {
    vec![
        open_run(app, "*", "*"),
        run(app, "*", "*"),
        timer(app, "*", "*"),
        awaited(app, "*", "*", "*", "*"),
    ]
}

/// The subject of what wakes a run at a time. `*` stands for any.
#[must_use]
pub fn timer(app: &str, pipeline: &str, id: &str) -> String {
    format!("{RUN}.{app}.timer.{pipeline}.{id}")
}

/// The subject by which a step of a run is found that waits for an event with a key, of which this is a digest.
/// `*` stands for any.
#[must_use]
pub fn awaited(app: &str, pipeline: &str, key: &str, id: &str, step: &str) -> String {
    format!("{RUN}.{app}.await.{pipeline}.{key}.{id}.{step}")
}

/// The pipeline and the id in the subject of a run that waits for an event.
#[must_use]
pub fn of_awaited(subject: &str) -> Option<(&str, &str)> {
    let mut tokens = subject.split('.').skip(3);
    let pipeline = tokens.next()?;
    tokens.next()?;
    Some((pipeline, tokens.next()?))
}

/// The subject of the work on a run: stored until the run has ended well. `*` stands for any.
#[must_use]
pub fn open_run(app: &str, pipeline: &str, id: &str) -> String {
    format!("{RUN}.{app}.open.{pipeline}.{id}")
}

/// The pipeline and the id in the subject of an open run, or of what wakes one.
#[must_use]
pub fn of_open_run(subject: &str) -> Option<(&str, &str)> {
    let mut tokens = subject.split('.').skip(3);
    Some((tokens.next()?, tokens.next()?))
}

/// The subject of the journal of a run. `*` stands for any.
#[must_use]
pub fn run(app: &str, pipeline: &str, id: &str) -> String {
    format!("{RUN}.{app}.run.{pipeline}.{id}")
}

/// The subject on which a host says that a run has ended.
#[must_use]
pub fn ended_run(app: &str, id: &str) -> String {
    format!("{RUN}.{app}.ended.{id}")
}

/// The stream of an app's jobs.
#[must_use]
pub fn job_stream(app: &str) -> String {
    format!("{ROOT}_{app}_jobs")
}

/// The subjects of the stream of jobs.
#[must_use]
pub fn stored_jobs(app: &str) -> Vec<String> {
    vec![
        job(app, "*"),
        job_schedule(app, "*"),
        job_due(app, "*"),
        open_job(app, "*", "*"),
        job_run(app, "*", "*"),
    ]
}

/// The subject of what a job is. `*` stands for any.
#[must_use]
pub fn job(app: &str, name: &str) -> String {
    format!("{JOB}.{app}.job.{name}")
}

/// The subject of the time at which a job is due next, on which the server waits. `*` stands for any.
#[must_use]
pub fn job_schedule(app: &str, name: &str) -> String {
    format!("{JOB}.{app}.schedule.{name}")
}

/// The subject on which the server says that a job is due. `*` stands for any.
#[must_use]
pub fn job_due(app: &str, name: &str) -> String {
    format!("{JOB}.{app}.due.{name}")
}

/// The subject of the work on a run of a job: stored until it has ended. `*` stands for any.
#[must_use]
pub fn open_job(app: &str, name: &str, slot: &str) -> String {
    format!("{JOB}.{app}.open.{name}.{slot}")
}

/// The subject of a run of a job. `*` stands for any.
#[must_use]
pub fn job_run(app: &str, name: &str, id: &str) -> String {
    format!("{JOB}.{app}.run.{name}.{id}")
}

/// The job in a subject of one.
#[must_use]
pub fn of_job(subject: &str) -> Option<&str> {
    subject.split('.').nth(3)
}

/// The bucket of an app's attempt store.
#[must_use]
pub fn attempts_bucket(app: &str) -> String {
    format!("{ROOT}_{app}_attempts")
}

/// The bucket of a service's own keys.
#[must_use]
pub fn data_bucket(app: &str, service: &str) -> String {
    format!("{ROOT}_{app}_data_{service}")
}

/// The bucket of a service's own objects.
#[must_use]
pub fn objects_bucket(app: &str, service: &str) -> String {
    format!("{ROOT}_{app}_objects_{service}")
}

/// The buckets of a fleet. Those of apps begin otherwise, so no app's name leads to one of these.
pub(crate) const FLEET_APPS: &str = "bay-fleet-apps";
pub(crate) const FLEET_HOSTS: &str = "bay-fleet-hosts";
pub(crate) const FLEET_REPORTS: &str = "bay-fleet-reports";
pub(crate) const FLEET_DRAINS: &str = "bay-fleet-drains";
pub(crate) const FLEET_ROLLOUTS: &str = "bay-fleet-rollouts";
pub(crate) const FLEET_COMPONENTS: &str = "bay-fleet-components";

/// The stream of log records.
pub(crate) const LOG_STREAM: &str = "bay-logs";

/// The first token of their subjects.
const LOG: &str = "bay-log";

/// What the subjects of log records begin with.
pub(crate) fn log_prefix() -> String {
    format!("{LOG}.")
}

/// The subject of a log record of an app's service; of an app, or of a host, as far as there are none.
pub(crate) fn log(app: Option<&str>, service: Option<&str>) -> String {
    let token = |name: Option<&str>| match name {
        Some(name) if is_plain(name) => name.to_owned(),
        // Not the name of anything that was deployed.
        _ => MESSAGE.to_owned(),
    };
    format!("{LOG}.{}.{}", token(app), token(service))
}

/// The subjects of the log records of an app, of one of its services, or of all.
pub(crate) fn logs(app: Option<&str>, service: Option<&str>) -> String {
    match (app, service) {
        (None, None) => format!("{LOG}.>"),
        (app, service) => format!("{LOG}.{}.{}", app.unwrap_or("*"), service.unwrap_or("*")),
    }
}

/// Whether a name is one token of a subject, as those in a manifest are.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && name.chars().all(plain)
}

/// The stream of messages with this name in a manifest.
#[must_use]
pub fn message_stream(app: &str, name: &str) -> String {
    format!("{ROOT}_{app}_messages_{name}")
}

/// The subjects of a stream of messages: these, and those of replays to one service.
#[must_use]
pub fn stored_messages(app: &str, subjects: &str) -> Vec<String> {
    vec![subjects.to_owned(), replayed_messages(app, "*", subjects)]
}

/// The subjects on which messages on these subjects are replayed to a service.
#[must_use]
pub fn replayed_messages(app: &str, service: &str, subjects: &str) -> String {
    format!("{REPLAY}.{app}.{service}.{MESSAGE}.{subjects}")
}

/// Whether the subject of a stored event or message is that of a replay.
#[must_use]
pub fn is_replay(subject: &str) -> bool {
    subject.split('.').next() == Some(REPLAY)
}

/// The subjects of the stream of an interface's events: without a partition, with one, and of
/// replays to one subscriber.
#[must_use]
pub fn stored(app: &str, interface: &InterfaceId) -> Vec<String> {
    let events = of_interface(app, interface);
    let replays = replays(app, "*", interface);
    vec![format!("{events}.*"), format!("{events}.*.*"), replays]
}

/// The wildcard subject of all replays to a subscriber of an interface's events.
#[must_use]
pub fn replays(app: &str, service: &str, interface: &InterfaceId) -> String {
    let tail = below_app(&of_interface(app, interface), app).to_owned();
    format!("{REPLAY}.{app}.{service}.{tail}.>")
}

/// The filter subjects of one consumer of a subscriber: of all events, or of one partition. Events
/// that another client published without a partition belong to the first one.
#[must_use]
pub fn consumed(
    app: &str,
    service: &str,
    interface: &InterfaceId,
    partition: Option<u32>,
) -> Vec<String> {
    let (events, replays) = (
        of_interface(app, interface),
        replays(app, service, interface),
    );
    let Some(partition) = partition else {
        return vec![format!("{events}.>"), replays];
    };
    let of_replays = replays.trim_end_matches(".>");
    let mut subjects = vec![
        format!("{events}.*.{partition}"),
        format!("{of_replays}.*.{partition}"),
    ];
    if partition == 0 {
        subjects.extend([format!("{events}.*"), format!("{of_replays}.*")]);
    }
    subjects
}

/// The subject on which an event of the subject `original` is replayed to one subscriber.
#[must_use]
pub fn replay(app: &str, service: &str, original: &str) -> String {
    if is_own(original) {
        format!("{REPLAY}.{app}.{service}.{}", below_app(original, app))
    } else {
        format!("{REPLAY}.{app}.{service}.{MESSAGE}.{original}")
    }
}

/// The original subject of an event or message that is stored under this subject.
#[must_use]
pub fn original(stored: &str) -> String {
    let mut tokens = stored.splitn(4, '.');
    match [tokens.next(), tokens.next(), tokens.next(), tokens.next()] {
        [Some(REPLAY), Some(app), Some(_service), Some(tail)] => {
            match tail
                .strip_prefix(MESSAGE)
                .and_then(|tail| tail.strip_prefix('.'))
            {
                Some(subject) => subject.to_owned(),
                None => format!("{ROOT}.{app}.{tail}"),
            }
        }
        _ => stored.to_owned(),
    }
}

/// The subject of the dead letter of an event of the subject `original`.
#[must_use]
pub fn dead_letter(app: &str, service: &str, original: &str, id: &str) -> String {
    let mut tokens = below_app(original, app).split('.');
    let interface: Vec<_> = tokens.by_ref().take(4).collect();
    // Any client may have chosen this token, so it may be `*`.
    let function = tokens.next().filter(|name| is_label(name)).unwrap_or("_");
    format!(
        "{DEAD_LETTER}.{app}.{service}.{}.{function}.{id}",
        interface.join(".")
    )
}

/// The wildcard subject of the dead letters of an app, a service or a function, or of the one with
/// an id.
#[must_use]
pub fn dead_letters(
    app: &str,
    service: Option<&str>,
    function: Option<&FunctionRef>,
    id: Option<&str>,
) -> String {
    if service.is_none() && function.is_none() && id.is_none() {
        return all_dead_letters(app);
    }
    let any = || "*".to_owned();
    let (service, id) = (service.unwrap_or("*"), id.unwrap_or("*"));
    let event = match function {
        None => "*.*.*.*.*".to_owned(),
        Some(function) => [
            function.namespace.clone().unwrap_or_else(any),
            function.package.clone().unwrap_or_else(any),
            function.interface.clone(),
            // Without a version every track is selected.
            function.track().unwrap_or_else(any),
            function.function.clone(),
        ]
        .join("."),
    };
    format!("{DEAD_LETTER}.{app}.{service}.{event}.{id}")
}

/// The wildcard subject of all functions of an app.
#[must_use]
pub fn all_of_app(app: &str) -> String {
    format!("{ROOT}.{app}.>")
}

/// The wildcard subject of all dead letters of an app.
#[must_use]
pub fn all_dead_letters(app: &str) -> String {
    format!("{DEAD_LETTER}.{app}.>")
}

/// The function's name in the subject of a stored event, and whether it is a replay.
#[must_use]
pub fn of_stored(subject: &str) -> Option<(&str, bool)> {
    let replayed = is_replay(subject);
    let position = if replayed { 7 } else { 6 };
    Some((subject.split('.').nth(position)?, replayed))
}

/// The subject without its first two tokens, which are the same for all of an app.
fn below_app<'s>(subject: &'s str, app: &str) -> &'s str {
    subject
        .strip_prefix(ROOT)
        .and_then(|rest| rest.strip_prefix('.')?.strip_prefix(app)?.strip_prefix('.'))
        .unwrap_or(subject)
}

pub(crate) fn of_interface(app: &str, interface: &InterfaceId) -> String {
    let InterfaceId {
        namespace,
        package,
        name,
        ..
    } = interface;
    format!(
        "{ROOT}.{app}.{namespace}.{package}.{name}.{}",
        interface.track()
    )
}

/// The function's name in the subject on which it is called.
#[must_use]
pub fn function_name(subject: &str) -> Option<&str> {
    subject.rsplit_once('.').map(|(_, name)| name)
}

#[cfg(test)]
mod tests;
