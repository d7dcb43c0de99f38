//! What came of tests, as text and as JSON.

use std::fmt::Write as _;
use std::io;

use serde_json::{Value, json};
use wasmbay::build::Tested;
use wasmbay::cases::Problem;

use crate::project::Source;
use crate::report::{Exit, STRONG, Terminal, count, plain, time};

/// What came of the tests of one service.
pub(super) struct Outcome {
    service: String,
    language: Option<String>,
    /// Nothing where there are no unit tests.
    pub(super) units: Option<Tested>,
    pub(super) cases: Vec<CaseOutcome>,
}

/// What came of one case.
pub(super) struct CaseOutcome {
    /// Its file, as it is shown.
    pub(super) file: String,
    pub(super) name: String,
    pub(super) problems: Vec<Problem>,
}

/// One run of all tests.
pub(super) struct Round {
    terminal: Terminal,
    /// Whether some tests were chosen, so that others are not missed.
    filtered: bool,
    outcomes: Vec<Outcome>,
}

impl Outcome {
    pub(super) fn new(service: &str, source: Option<&Source>) -> Self {
        let language = source.and_then(Source::language);
        Self {
            service: service.to_owned(),
            language: language.map(|language| language.to_string()),
            units: None,
            cases: Vec::new(),
        }
    }

    fn failed_cases(&self) -> usize {
        self.cases
            .iter()
            .filter(|case| !case.problems.is_empty())
            .count()
    }

    fn describe(&self) -> Value {
        let units = self.units.as_ref().map(|units| {
            json!({
                "runner": units.runner,
                "passed": units.passed,
                "seconds": units.took.as_secs_f64(),
                "output": units.output,
            })
        });
        let cases = self.cases.iter().map(|case| {
            json!({
                "file": case.file,
                "name": case.name,
                "passed": case.problems.is_empty(),
                "problems": case.problems.iter().map(describe).collect::<Vec<_>>(),
            })
        });
        json!({
            "service": self.service,
            "language": self.language,
            "unitTests": units,
            "cases": cases.collect::<Vec<_>>(),
        })
    }
}

fn describe(problem: &Problem) -> Value {
    json!({ "message": problem.to_string(), "differences": problem.differences() })
}

/// What is wrong with a case, for people.
pub(crate) fn explain(problems: &[Problem]) -> String {
    let mut text = String::new();
    for problem in problems {
        // Writing to a string does not fail.
        let _ = writeln!(text, "    {}", plain(&problem.to_string()));
        for one in problem.differences() {
            let side = |side: &Option<String>| match side {
                Some(value) => plain(value),
                None => "nothing".to_owned(),
            };
            let path = plain(&one.path);
            let (expected, got) = (side(&one.expected), side(&one.got));
            let _ = writeln!(
                text,
                "      {path}\n        expected {expected}\n        got      {got}"
            );
        }
    }
    text
}

impl Round {
    pub(super) fn new(terminal: Terminal, filtered: bool) -> Self {
        Self {
            terminal,
            filtered,
            outcomes: Vec::new(),
        }
    }

    /// Says what the unit tests of a service said.
    pub(super) fn begin(&self, outcome: &Outcome) {
        let (Some(language), false) = (&outcome.language, self.filtered) else {
            return;
        };
        let service = &outcome.service;
        let Some(units) = &outcome.units else {
            self.terminal
                .say(format_args!("{service} ({language}): no unit tests"));
            return;
        };
        let (runner, took) = (&units.runner, time(units.took));
        if units.passed {
            self.terminal.say(format_args!(
                "{service} ({language}): unit tests passed ({runner}, {took})"
            ));
        } else {
            let failed = format!("{STRONG}FAILED{STRONG:#}");
            self.fail(format!(
                "{service} ({language}): unit tests {failed} ({runner})\n{}",
                indented(&units.output)
            ));
        }
    }

    /// Says what is wrong with a case.
    pub(super) fn say(&self, service: &str, case: &CaseOutcome) {
        let (name, file) = (plain(&case.name), &case.file);
        if case.problems.is_empty() {
            if self.terminal.verbose {
                self.terminal.say(format_args!("{service}: {name}: passed"));
            }
            return;
        }
        let failed = format!("{STRONG}FAILED{STRONG:#}");
        let why = explain(&case.problems);
        self.fail(format!(
            "{service}: {name}: {failed} ({file})\n{}",
            why.trim_end()
        ));
    }

    /// What failed is a result, which `--quiet` leaves.
    fn fail(&self, text: String) {
        if !self.terminal.json() {
            // A reader that has gone misses nothing that the exit code does not say.
            let _ = self.terminal.result(text);
        }
    }

    pub(super) fn end(&mut self, outcome: Outcome) {
        let (service, all) = (&outcome.service, outcome.cases.len());
        match (outcome.failed_cases(), all) {
            (_, 0) if self.filtered => {}
            (_, 0) => self.terminal.say(format_args!("{service}: no cases")),
            (0, all) => self
                .terminal
                .say(format_args!("{service}: {} passed", count(all, "case"))),
            (failed, all) => self.terminal.say(format_args!(
                "{service}: {failed} of {} failed",
                count(all, "case")
            )),
        }
        self.outcomes.push(outcome);
    }

    /// Says how all of it ended.
    pub(super) fn finish(self) -> io::Result<Exit> {
        let outcomes = &self.outcomes;
        let cases: usize = outcomes.iter().map(|outcome| outcome.cases.len()).sum();
        let failed: usize = outcomes.iter().map(Outcome::failed_cases).sum();
        let units = outcomes.iter().filter_map(|outcome| outcome.units.as_ref());
        let failed_units = units.clone().filter(|units| !units.passed).count();
        let units = units.count();
        if self.terminal.json() {
            let services: Vec<_> = outcomes.iter().map(Outcome::describe).collect();
            self.terminal.result_json(&json!({
                "passed": failed + failed_units == 0,
                "services": services,
            }))?;
        } else if self.filtered && cases == 0 {
            self.terminal.say("no case has that in its name");
        } else {
            let suites = match (units, failed_units) {
                (0, _) => String::new(),
                (_, 0) => format!(", unit tests of {} passed", count(units, "service")),
                (_, failed) => format!(
                    ", unit tests of {failed} of {} failed",
                    count(units, "service")
                ),
            };
            let cases = match (failed, cases) {
                (0, cases) => format!("{} passed", count(cases, "case")),
                (failed, cases) => format!("{failed} of {} failed", count(cases, "case")),
            };
            self.terminal.say(format_args!("{cases}{suites}"));
        }
        Ok(match failed + failed_units {
            0 => Exit::Done,
            _ => Exit::Failed,
        })
    }
}

fn indented(text: &str) -> String {
    let lines = text
        .trim_end()
        .lines()
        .map(|line| format!("    {}", plain(line)));
    lines.collect::<Vec<_>>().join("\n")
}
