//! Why a value with paths does not fit.

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
    /// What decides nothing.
    #[error("`{path}` is {found}; expected a boolean or an option")]
    Condition {
        /// The path.
        path: String,
        /// Its type.
        found: String,
    },
}
