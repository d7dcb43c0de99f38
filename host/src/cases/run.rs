//! Running a case: the component as a service with the manifest's limits and grants, a fresh instance, and the
//! stubs in the place of everything else.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::check::{Answer, Case, value_of};
use super::diff::{Difference, differences, show};
use super::stubs::Stubs;
use crate::call::{Call, CallError, Code, Reply};
use crate::interfaces::{Backend, Recorded};
use crate::manifest::ServiceSpec;
use crate::runtime::{Component, Runtime, Service, ServiceError};

/// What a case expects and what was otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "problem")]
pub enum Problem {
    /// The function returned something else.
    Result {
        /// Where.
        differences: Vec<Difference>,
    },
    /// It failed, and should have returned something, or failed otherwise.
    Failed {
        /// The expected end.
        expected: String,
        /// The code of the error.
        code: u16,
        /// Its message.
        message: String,
    },
    /// It returned something, and should have failed.
    Returned {
        /// The expected end.
        expected: String,
        /// The result as JSON.
        got: String,
    },
    /// It called an imported function, and no stub answers that.
    Unstubbed {
        /// The function.
        function: String,
        /// The arguments as JSON.
        arguments: String,
        /// Where these are not those of the first stub of the function that has answered nothing yet.
        differences: Vec<Difference>,
    },
    /// It did not call an imported function as often as a stub says.
    Uncalled {
        /// The function.
        function: String,
        /// The arguments that the stub answers, if it has some.
        arguments: Option<String>,
        /// How often it should have been called.
        times: u32,
        /// How often it was.
        answered: u32,
    },
    /// It used something for which there are no stubs.
    Outside {
        /// What it did.
        what: String,
    },
    /// Its data at the end are others.
    KeyValue {
        /// Where.
        differences: Vec<Difference>,
    },
    /// The case does not fit the component.
    Misfit {
        /// The path in its file.
        at: String,
        /// Why.
        why: String,
    },
}

impl Problem {
    /// Where values differ.
    #[must_use]
    pub fn differences(&self) -> &[Difference] {
        match self {
            Self::Result { differences }
            | Self::Unstubbed { differences, .. }
            | Self::KeyValue { differences } => differences,
            _ => &[],
        }
    }
}

impl fmt::Display for Problem {
    /// What is wrong, without the differences.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Result { .. } => f.write_str("the result differs"),
            Self::Failed {
                expected,
                code,
                message,
            } => write!(f, "expected {expected}, got error {code}: {message}"),
            Self::Returned { expected, got } => write!(f, "expected {expected}, got {got}"),
            Self::Unstubbed {
                function,
                arguments,
                differences,
            } => {
                write!(f, "it called {function} with {arguments}: ")?;
                if differences.is_empty() {
                    f.write_str("no stub answers that")
                } else {
                    f.write_str("its stub answers other arguments")
                }
            }
            Self::Uncalled {
                function,
                arguments,
                times,
                answered,
            } => {
                write!(f, "it did not call {function}")?;
                if let Some(arguments) = arguments {
                    write!(f, " with {arguments}")?;
                }
                match (times, answered) {
                    (1, _) => Ok(()),
                    (times, answered) => write!(f, " {times} times, but {answered}"),
                }
            }
            Self::Outside { what } => write!(
                f,
                "it {what}: cases have stubs for imported functions, and data in memory"
            ),
            Self::KeyValue { .. } => f.write_str("its data differ"),
            Self::Misfit { at, why } => write!(f, "{at}: {why}"),
        }
    }
}

/// Runs a case of a service of the app of this name; returns what was not as the case says.
///
/// # Errors
///
/// No service can be made of the component.
pub async fn run(
    runtime: &Runtime,
    app: &str,
    component: &Arc<Component>,
    spec: &ServiceSpec,
    case: &Case,
) -> Result<Vec<Problem>, ServiceError> {
    let spec = Arc::new(spec_of(spec, component, case));
    let service = Service::for_cases(runtime, app, Arc::clone(component), Arc::clone(&spec))?;
    let stubs = Arc::new(Stubs::new(app, &component.description(), &spec, case));
    let backend: Arc<dyn Backend> = Arc::clone(&stubs) as _;
    let mut exported = service.interfaces();
    let function = exported.find_map(|exported| {
        let is_it = exported.id == case.function.interface;
        exported
            .functions
            .get(&case.function.name)
            .filter(|_| is_it)
    });
    let ended = match function {
        None => Err(CallError::not_found(&case.function)),
        Some(function) => {
            let call = Call::new(Bytes::from(case.body.clone()), spec.limits.timeout);
            if component.is_asynchronous() {
                service.call(function, call, &backend).await
            } else {
                let recorded = Recorded::new(case.seed, case.time);
                service
                    .call_recorded(function, call, &backend, &recorded)
                    .await
            }
        }
    };
    let mut problems = stubs.problems();
    problems.extend(judge(case, ended));
    if let Some(after) = &case.keyvalue.after {
        let after = after.iter();
        let value = |value: &String| Value::String(value.clone());
        let after: Value = after
            .map(|(key, text)| (key.clone(), value(text)))
            .collect();
        let differences = differences(&after, &stubs.kept(), &[]);
        if !differences.is_empty() {
            problems.push(Problem::KeyValue { differences });
        }
    }
    Ok(problems)
}

/// The service of the manifest, with the configuration of the case, and without what leads out of the process
/// by other ways than its imports.
fn spec_of(spec: &ServiceSpec, component: &Component, case: &Case) -> ServiceSpec {
    let mut spec = spec.clone();
    for (key, value) in &case.config {
        match value {
            Some(value) => drop(spec.config.insert(key.clone(), value.clone())),
            None => drop(spec.config.remove(key)),
        }
    }
    spec.grants.tcp.clear();
    spec.grants.udp.clear();
    if component.is_asynchronous() {
        spec.grants.http.clear();
    }
    spec
}

/// What is wrong with how the call ended.
fn judge(case: &Case, ended: Result<Reply, CallError>) -> Option<Problem> {
    match (&case.expected, ended) {
        (Answer::Returns(_, expected), Ok(reply)) => {
            let differences = differences(expected, &value_of(&reply.body), &case.ignore);
            (!differences.is_empty()).then_some(Problem::Result { differences })
        }
        (Answer::Returns(_, expected), Err(error)) => {
            let expected = match &case.signature.result {
                Some(_) => show(expected),
                None => "an end without a result".to_owned(),
            };
            Some(failed(expected, &error))
        }
        (Answer::Fails(code, message), Ok(reply)) => Some(Problem::Returned {
            expected: failure(*code, message),
            got: show(&value_of(&reply.body)),
        }),
        (Answer::Fails(code, message), Err(error)) => {
            let is_it = error.code == *code && error.message.contains(message.as_str());
            (!is_it).then(|| failed(failure(*code, message), &error))
        }
    }
}

fn failed(expected: String, error: &CallError) -> Problem {
    Problem::Failed {
        expected,
        code: error.code.status(),
        message: error.message.clone(),
    }
}

fn failure(code: Code, message: &str) -> String {
    let code = code.status();
    match message {
        "" => format!("error {code}"),
        message => format!("error {code} with \"{message}\""),
    }
}
