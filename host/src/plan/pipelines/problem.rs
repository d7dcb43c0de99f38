//! What is wrong with a pipeline, and why a value with paths does not fit.

use std::time::Duration;

use crate::interface::{FunctionId, InterfaceId};
use crate::manifest::duration_text;
use crate::shape::Signature;

/// What is wrong with a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PipelineProblem {
    /// No type is known of the function that it is.
    #[error(
        "`implements`: no service imports {0}, so its type is not known; add `type = \"func(…) -> …\"`"
    )]
    NoType(Box<FunctionId>),
    /// The stated type is another than that of an importer.
    #[error(
        "`type` is `{stated}`, but service \"{service}\" imports {function} as `{imported}`; leave `type` out, or build the service against it"
    )]
    OtherType {
        /// The function.
        function: Box<FunctionId>,
        /// The importer.
        service: String,
        /// The type in the manifest.
        stated: Box<Signature>,
        /// The importer's type.
        imported: Box<Signature>,
    },
    /// Something else answers the interface.
    #[error(
        "`implements`: {interface} is {by}, so a call would reach one or the other; choose an interface of its own"
    )]
    Taken {
        /// The interface.
        interface: Box<InterfaceId>,
        /// What answers it.
        by: String,
    },
    /// What is called is not there.
    #[error("`{key}`: {problem}")]
    NoCall {
        /// Its key.
        key: &'static str,
        /// The problem.
        problem: Box<crate::plan::RouteProblem>,
    },
    /// What is called is an event.
    #[error(
        "`call`: {0} is wired as events, which have no result; accepted: `event` in place of `call`"
    )]
    Event(Box<InterfaceId>),
    /// What is published is no event.
    #[error(
        "`event`: {0} is not wired as events; accepted: `call` in place of `event`, or `mode = \"event\"` on its wire"
    )]
    NoEvent(Box<InterfaceId>),
    /// What is waited for is not kept.
    #[error(
        "`wait-for.event`: {interface} {why}; accepted: one with `mode = \"event\"` and `durable = true` on its wire"
    )]
    NotStored {
        /// The interface.
        interface: Box<InterfaceId>,
        /// How it is wired.
        why: &'static str,
    },
    /// A step that takes all of a run's time, or more.
    #[error(
        "`{key}`: {} is not less than the pipeline's `deadline` of {}; accepted: less, or a longer `deadline`",
        duration_text(*time), duration_text(*deadline)
    )]
    Beyond {
        /// The key.
        key: &'static str,
        /// Its time.
        time: Duration,
        /// All of the run's.
        deadline: Duration,
    },
    /// The pipeline calls itself.
    #[error("`call`: the pipeline is {0} itself")]
    Itself(Box<FunctionId>),
    /// A parameter that the function does not have.
    #[error("`with.{name}`: {function} has no such parameter{suggestion}; it takes {takes}")]
    NoParameter {
        /// The name.
        name: String,
        /// The function.
        function: Box<FunctionId>,
        /// The nearest parameter, as the end of a sentence.
        suggestion: String,
        /// All of them.
        takes: String,
    },
    /// A parameter without a value.
    #[error("`with.{name}` is missing; {function} takes {takes}")]
    Missing {
        /// The parameter.
        name: String,
        /// The function.
        function: Box<FunctionId>,
        /// All of them.
        takes: String,
    },
    /// A value that does not fit.
    #[error("`{key}`: {problem}")]
    Value {
        /// Its key.
        key: String,
        /// Why it does not fit.
        problem: Box<Problem>,
    },
    /// A result of a function that has none.
    #[error("`result`: {function} is `{signature}`, which returns no value; leave it out")]
    NoResult {
        /// The function.
        function: Box<FunctionId>,
        /// Its type.
        signature: Box<Signature>,
    },
    /// No result of a function that has one.
    #[error("`result` is missing; {function} returns {shape}")]
    ResultMissing {
        /// The function.
        function: Box<FunctionId>,
        /// The type of the value.
        shape: String,
    },
    /// An error of a step that fits nothing.
    #[error(
        "its `err` value is {step}, which is no value of the pipeline's own error {own}; add `error = …`, `on-error = \"continue\"`, or build both against one type"
    )]
    Error {
        /// The step's error.
        step: String,
        /// The pipeline's error.
        own: String,
    },
    /// An error where there is none.
    #[error("`error`: {0}")]
    NoError(&'static str),
    /// An `on-error` that means nothing.
    #[error("`on-error`: {0} returns no `err` value to the pipeline; leave it out")]
    NoErr(Box<FunctionId>),
}

/// Why a value does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A path to something of another type.
    #[error("`{path}` is {found}; expected {expected}")]
    Type {
        /// The path.
        path: String,
        /// Its type.
        found: String,
        /// The type that fits.
        expected: String,
    },
    /// A constant of another type.
    #[error("expected {expected}: {why}")]
    Constant {
        /// The type that fits.
        expected: String,
        /// Where in the value, and what is there.
        why: String,
    },
    /// A value with paths where no path can stand.
    #[error(
        "expected {expected}, found {found} with paths in it; accepted: a path to all of the value"
    )]
    Mixed {
        /// The type that fits.
        expected: String,
        /// The kind of value.
        found: &'static str,
    },
    /// A record's value without one of its fields.
    #[error("`{field}` is missing; expected {expected}")]
    FieldMissing {
        /// The field.
        field: String,
        /// The record.
        expected: String,
    },
    /// A key that a record does not have.
    #[error("there is no `{key}`{suggestion}; expected {expected}")]
    NoField {
        /// The key.
        key: String,
        /// The nearest field, as the end of a sentence.
        suggestion: String,
        /// The record.
        expected: String,
    },
    /// A path from no step.
    #[error(
        "`{path}`: no step before this one has the name `{root}`{suggestion}; accepted: `$` for the arguments{steps}"
    )]
    NoStep {
        /// The path.
        path: String,
        /// Its root.
        root: String,
        /// The nearest step, as the end of a sentence.
        suggestion: String,
        /// The steps before.
        steps: String,
    },
    /// A path into a step of the same group.
    #[error("`{path}`: step \"{root}\" is done at the same time; accepted: steps before the group")]
    SameTime {
        /// The path.
        path: String,
        /// The step.
        root: String,
    },
    /// A path to an item where there is none.
    #[error("`{path}`: `$item` is accepted in a step with `each` only")]
    NoItem {
        /// The path.
        path: String,
    },
    /// What has no items.
    #[error("`{path}` is {found}; expected a list")]
    NoList {
        /// The path.
        path: String,
        /// Its type.
        found: String,
    },
    /// A case that a value cannot be.
    #[error("`{path}` is {found}, which is never {is}{suggestion}; accepted: {accepted}")]
    NoCase {
        /// The path.
        path: String,
        /// Its type.
        found: String,
        /// The case.
        is: String,
        /// The nearest case, as the end of a sentence.
        suggestion: String,
        /// The cases.
        accepted: String,
    },
    /// A path into a step without a result.
    #[error("`{path}`: the function of step \"{root}\" returns no value")]
    NoValue {
        /// The path.
        path: String,
        /// The step.
        root: String,
    },
    /// A path that leads nowhere.
    #[error("`{path}`: `{before}` is {shape}, {why}")]
    NoMember {
        /// The path.
        path: String,
        /// The part of it that leads somewhere.
        before: String,
        /// What is there.
        shape: String,
        /// Why the path does not go on.
        why: String,
    },
    /// A path to the error outside of `error`.
    #[error("`{path}`: `$error` is accepted in `error` only, of a step whose `err` has a value")]
    NoError {
        /// The path.
        path: String,
    },
    /// A key that cannot be compared.
    #[error("`{path}` is {found}; expected a text, an integer, a boolean, a character or an enum")]
    NoKey {
        /// The path.
        path: String,
        /// Its type.
        found: String,
    },
    /// What decides nothing.
    #[error("`{path}` is {found}; expected a boolean or an option")]
    Condition {
        /// The path.
        path: String,
        /// Its type.
        found: String,
    },
}
