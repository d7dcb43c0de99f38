//! `[job.NAME]`: a component that is run, instead of called: at times, once, or for as long as the app runs.
//!
//! Everything else about a job is as of a service, so it is a [`ServiceSpec`] with a [`JobSpec`].

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::file::Section;
use super::keys::{grants, job, job_keep, job_limits, job_retry, service};
use super::kinds::Setting as _;
use super::services::{Limits, ServiceSpec};
use super::settings::settings;
use super::values::duration_text;
use crate::text::shown;

/// What stands for no limit of time: a year's worth of centuries would overflow a clock.
const NO_LIMIT: Duration = Duration::from_secs(100 * 365 * 86_400);

/// When a job runs, how often it is tried, and what is kept of that.
#[derive(Clone, Debug, PartialEq)]
pub struct JobSpec {
    /// What begins a run.
    pub when: When,
    /// How often a run is tried.
    pub retry: JobRetry,
    /// The runs that are kept.
    pub keep: JobKeep,
}

/// What begins a run of a job.
#[derive(Clone, Debug, PartialEq)]
pub enum When {
    /// The times of a schedule.
    Schedule(Schedule),
    /// An interval: whole seconds.
    Every(Duration),
    /// A deployment that changes the job.
    Deploy,
    /// An operator, and nothing else.
    Request,
    /// Nothing: it runs all the time, and is started again when it ends.
    Always,
}

/// Times by the fields of cron, in UTC.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule(Box<Cron>);

settings! {
    /// How often a run of a job is tried.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct JobRetry in job_retry {
        /// In all.
        pub attempts: u32 = ATTEMPTS,
        /// The waits between attempts; never empty, the last one repeats.
        pub backoff: Vec<Duration> = BACKOFF,
    }
}

settings! {
    /// The runs of a job that are kept.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct JobKeep in job_keep {
        /// So many of the last.
        pub runs: u32 = RUNS,
        /// For so long.
        pub age: Duration = AGE,
    }
}

impl Schedule {
    /// Reads the five fields of cron.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields = text.split_whitespace().count();
        if fields != 5 {
            return Err(format!("it has {fields} fields instead of five"));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let cron = parser.parse(text).map_err(|error| {
            let why = error.to_string();
            let why = why.trim_start_matches("Component error: ");
            why.trim_end_matches('.').to_lowercase()
        })?;
        let schedule = Self(Box::new(cron));
        // The thirtieth of February; a leap day comes within eight years.
        match schedule.after(0) {
            Some(_) => Ok(schedule),
            None => Err("it has no time".to_owned()),
        }
    }

    /// The first time after this one, in seconds since 1970.
    fn after(&self, time: u64) -> Option<u64> {
        let next = self.0.find_next_occurrence(&civil(time)?, false).ok()?;
        let next = next.to_zoned(TimeZone::UTC).ok()?.timestamp();
        u64::try_from(next.as_second()).ok()
    }
}

fn civil(time: u64) -> Option<DateTime> {
    let time = Timestamp::from_second(i64::try_from(time).ok()?).ok()?;
    Some(time.to_zoned(TimeZone::UTC).datetime())
}

impl When {
    /// The key and the value by which it is written.
    #[must_use]
    pub fn written(&self) -> (&'static str, String) {
        match self {
            Self::Schedule(Schedule(cron)) => (job::SCHEDULE.name, cron.as_str().to_owned()),
            Self::Every(every) => (job::EVERY.name, duration_text(*every)),
            Self::Deploy => (job::AT.name, "deploy".to_owned()),
            Self::Request => (job::AT.name, "request".to_owned()),
            Self::Always => (job::RESTART.name, "always".to_owned()),
        }
    }

    /// The first time after this one at which a run is due, in seconds since 1970, for what is due at times.
    /// An interval goes on from the time that is given.
    #[must_use]
    pub fn after(&self, time: u64) -> Option<u64> {
        match self {
            Self::Schedule(schedule) => schedule.after(time),
            Self::Every(every) => time.checked_add(every.as_secs()),
            Self::Deploy | Self::Request | Self::Always => None,
        }
    }

    /// Whether runs are due at times.
    #[must_use]
    pub fn is_timed(&self) -> bool {
        matches!(self, Self::Schedule(_) | Self::Every(_))
    }
}

/// Writes the keys of a job that a service does not have.
impl Serialize for JobSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let (key, value) = self.when.written();
        map.serialize_entry(key, &value)?;
        match self.when {
            // It has as many attempts as it takes.
            When::Always => {
                let backoff = job_retry::BACKOFF.values.write(&self.retry.backoff);
                let retry = toml::Table::from_iter(
                    backoff.map(|backoff| (job_retry::BACKOFF.name.to_owned(), backoff)),
                );
                map.serialize_entry(job::RETRY.name, &retry)?;
            }
            _ => map.serialize_entry(job::RETRY.name, &self.retry)?,
        }
        map.serialize_entry(job::KEEP.name, &self.keep)?;
        map.end()
    }
}

/// A job as a manifest has it: what is of services alone is left out.
pub(super) fn written(spec: &ServiceSpec, job: &JobSpec) -> Result<toml::Table, toml::ser::Error> {
    let mut table = toml::Table::try_from(spec)?;
    table.remove(service::REUSE.name);
    if let Some(toml::Value::Table(limits)) = table.get_mut(service::LIMITS.name) {
        limits.retain(|key, _| job_limits::TABLE.names().any(|known| known == key));
        if job.when == When::Always {
            limits.remove(job_limits::TIMEOUT.name);
        }
    }
    table.extend(toml::Table::try_from(job)?);
    Ok(table)
}

/// Reads what begins the runs of a job.
pub(super) fn read(section: &Section<'_>) -> Option<JobSpec> {
    let when = read_when(section)?;
    let retry = section.section(&job::RETRY, &job_retry::TABLE);
    let is_always = when == When::Always;
    if is_always {
        let why = "`attempts`: a job with `restart` is started again for as long as it is deployed; leave it out";
        retry.report_key(job_retry::ATTEMPTS.name, why);
    }
    let usual = JobRetry {
        backoff: match is_always {
            true => [1, 2, 4, 8, 16, 32, 60].map(Duration::from_secs).to_vec(),
            false => job_retry::BACKOFF.values.default(),
        },
        ..JobRetry::default()
    };
    let keep = section.section(&job::KEEP, &job_keep::TABLE);
    Some(JobSpec {
        when,
        retry: JobRetry::read(&retry, &usual),
        keep: JobKeep::read(&keep, &JobKeep::default()),
    })
}

fn read_when(section: &Section<'_>) -> Option<When> {
    let names = [
        job::SCHEDULE.name,
        job::EVERY.name,
        job::AT.name,
        job::RESTART.name,
    ];
    let given: Vec<_> = names.into_iter().filter(|name| section.has(name)).collect();
    match &given[..] {
        [] => section.report_here(
            "nothing says when it runs; add one of `schedule = \"0 3 * * *\"`, `every = \"10m\"`, `at = \"deploy\"`, \
             `at = \"request\"` and `restart = \"always\"`",
        ),
        [_] => {}
        [first, second, ..] => section.report_key(
            second,
            format!("`{second}` and `{first}` both say when it runs; keep one of them"),
        ),
    }
    if let Some(typed) = section.text(&job::SCHEDULE) {
        return match Schedule::parse(typed.value) {
            Ok(schedule) => Some(When::Schedule(schedule)),
            Err(why) => {
                let accepted = "accepted: minute, hour, day of the month, month and day of the week, such as `0 3 * * 1-5`";
                let text = shown(typed.value);
                section.report(
                    typed.at,
                    format!("`schedule` is `{text}`: {why}; {accepted}"),
                );
                None
            }
        };
    }
    if section.has(job::EVERY.name) {
        let every = section.value(&job::EVERY, |value| job::EVERY.values.read(value))?;
        if every.value.subsec_nanos() != 0 {
            section.report(every.at, "`every`: accepted: whole seconds");
        }
        return Some(When::Every(every.value));
    }
    if section.has(job::AT.name) {
        return Some(match section.one_of(&job::AT)?.value {
            "deploy" => When::Deploy,
            _ => When::Request,
        });
    }
    section.one_of(&job::RESTART)?;
    Some(When::Always)
}

/// Reads the limits of a job, whose runs are not calls.
pub(super) fn read_limits(section: &Section<'_>, when: Option<&When>) -> Limits {
    let limits = section.section(&job::LIMITS, &job_limits::TABLE);
    let mut timeout = limits.read_or_default(&job_limits::TIMEOUT);
    if when == Some(&When::Always) {
        let why =
            "`timeout`: a job with `restart` runs for as long as it is deployed; leave it out";
        limits.report_key(job_limits::TIMEOUT.name, why);
        timeout = NO_LIMIT;
    }
    Limits {
        memory: limits.read_or_default(&job_limits::MEMORY),
        tables: limits.read_or_default(&job_limits::TABLES),
        instances: limits.read_or_default(&job_limits::INSTANCES),
        message: limits.read_or_default(&job_limits::MESSAGE),
        hops: limits.read_or_default(&job_limits::HOPS),
        timeout,
        // It has one run at a time.
        concurrency: 1,
        ..Limits::default()
    }
}

/// Reports what a job cannot do, since nothing calls it.
pub(super) fn check_grants(section: &Section<'_>, spec: &ServiceSpec) {
    if !spec.grants.subscribe.is_empty() {
        let why = format!(
            "`grants.{}`: nothing calls a job, so it handles no messages; accepted: in a service",
            grants::SUBSCRIBE.name
        );
        section.report_key(service::GRANTS.name, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-12-01, a Tuesday, at midnight.
    const DAY: u64 = 1_796_083_200;
    const HOUR: u64 = 3_600;

    fn next(fields: &str, time: u64) -> u64 {
        let schedule = Schedule::parse(fields).unwrap();
        When::Schedule(schedule).after(time).unwrap()
    }

    #[test]
    fn a_schedule_is_of_utc_and_its_times_are_later_than_the_one_before() {
        assert_eq!(next("0 3 * * *", DAY), DAY + 3 * HOUR);
        assert_eq!(next("0 3 * * *", DAY + 3 * HOUR - 1), DAY + 3 * HOUR);
        assert_eq!(next("0 3 * * *", DAY + 3 * HOUR), DAY + 27 * HOUR);
        assert_eq!(next("*/15 * * * *", DAY + 14 * 60 + 59), DAY + 15 * 60);
        assert_eq!(next("30 9-17/4 * * MON-FRI", DAY), DAY + 9 * HOUR + 1_800);
        // Of a day of the month and a day of the week either will do, as cron has it.
        assert_eq!(next("0 0 15 * WED", DAY), DAY + 24 * HOUR);
        assert_eq!(next("0 0 1 1 *", DAY), DAY + 31 * 24 * HOUR);
        assert_eq!(next("0 0 L * *", DAY), DAY + 30 * 24 * HOUR);
        assert_eq!(next("0 0 * * 7", DAY), next("0 0 * * 0", DAY));
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_its_reason() {
        for (text, why) in [
            ("", "0 fields"),
            ("0 3 * *", "4 fields"),
            ("0 0 3 * * *", "6 fields"),
            ("@daily", "1 fields"),
            ("0 0 30 2 *", "no time"),
        ] {
            let refused = Schedule::parse(text).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
        for text in [
            "60 * * * *",
            "* 24 * * *",
            "* * * 13 *",
            "* * * * NOW",
            "*/0 * * * *",
            "a b c d e",
        ] {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_job_is_read_as_it_is_written() {
        use crate::manifest::{App, Manifest};
        for (lines, many) in [
            ("schedule = \"0 3 * * *\"\nlimits = { timeout = \"1h\" }", 2),
            (
                "every = \"90s\"\nretry = { attempts = 7, backoff = [\"1s\"] }",
                2,
            ),
            (
                "at = \"deploy\"\nkeep = { runs = 3 }\nargs = [\"a\"]\nreplicas = 5",
                5,
            ),
            ("at = \"request\"\nconfig = { a = 1 }", 2),
            ("restart = \"always\"", 1),
            (
                "restart = \"always\"\nretry = { backoff = [\"9s\"] }\nreplicas = 3",
                3,
            ),
        ] {
            let text = format!("name = \"a\"\n[job.x]\ncomponent = \"x.wasm\"\n{lines}");
            let read = Manifest::parse("wasmbay.toml".as_ref(), &text).unwrap().app;
            let written = serde_json::to_value(&read).unwrap();
            assert!(written["job"]["x"].is_object(), "{written}");
            let again: App = serde_json::from_value(written).unwrap();
            assert_eq!(again, read);
            let (_, spec, job) = read.jobs().next().unwrap();
            assert_eq!(spec.replicas, crate::manifest::Replicas::Count(many));
            assert_eq!(
                job.when.is_timed(),
                !lines.starts_with("at") && !lines.starts_with("restart")
            );
        }
    }

    #[test]
    fn an_interval_goes_on_from_the_last_time() {
        let every = When::Every(Duration::from_secs(90));
        assert_eq!(every.after(DAY), Some(DAY + 90));
        assert_eq!(
            (When::Deploy.after(DAY), When::Always.after(DAY)),
            (None, None)
        );
    }
}
