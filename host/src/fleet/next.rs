//! The next revision of an app, as verbs and admin addresses write it. Pure.

use super::{Change, FORMAT, Kept, Revision, VERSION, changes, rollouts};
use crate::manifest::{Replicas, Specification};

/// What is written of a change beside what it changes.
#[derive(Clone, Debug, Default)]
pub struct Signed {
    /// Who asked for it.
    pub author: String,
    /// When, as RFC 3339.
    pub at: String,
    /// Why, in the author's words.
    pub message: Option<String>,
    /// The manifest that it was made from.
    pub source: Option<String>,
}

/// There is no revision to go back to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTarget {
    /// No earlier one is another than the one of now.
    #[error("there is no earlier revision to go back to")]
    Earlier,
    /// By that revision the app was undeployed.
    #[error("revision {0} is that the app was undeployed")]
    Undeployed(u64),
    /// It is not kept, but these are.
    #[error("revision {number} is not kept")]
    NotKept {
        /// The revision.
        number: u64,
        /// Those that are kept.
        kept: Vec<u64>,
    },
}

/// The next revision of an app.
#[must_use]
pub fn next(
    before: Option<&Kept>,
    verb: impl Into<String>,
    specification: Option<Specification>,
    signed: Signed,
) -> Revision {
    Revision {
        format: FORMAT,
        number: before.map_or(0, |kept| kept.revision.number) + 1,
        wasmbay: Some(VERSION.to_owned()),
        verb: verb.into(),
        specification,
        stable: None,
        outcome: None,
        refused: None,
        author: signed.author,
        at: signed.at,
        source: signed.source,
        message: signed.message,
        forced: Vec::new(),
    }
}

/// The next revision of an app, of which new versions of services get a share of the calls first, where their
/// manifest says so. During a rollout, its services are compared with those that ran before that.
#[must_use]
pub fn next_in_shares(
    before: Option<&Kept>,
    verb: impl Into<String>,
    specification: Specification,
    signed: Signed,
) -> Revision {
    let works = before.and_then(|kept| kept.revision.works());
    let works = works.filter(|works| !rollouts(works, &specification).is_empty());
    let stable = works.cloned();
    Revision {
        stable,
        ..next(before, verb, Some(specification), signed)
    }
}

/// The next revision of an app, by which a service has this many replicas; nothing if it has no such service. A
/// rollout that is under way begins anew.
#[must_use]
pub fn scaled(
    before: &Kept,
    service: &str,
    replicas: Replicas,
    signed: Signed,
) -> Option<Revision> {
    let mut specification = before.revision.specification.clone()?;
    specification.app.services.get_mut(service)?.replicas = replicas;
    let verb = format!("scale {service} to {replicas}");
    let mut revision = next(Some(before), verb, Some(specification), signed);
    revision.stable.clone_from(&before.revision.stable);
    let old = revision.stable.as_mut();
    if let Some(spec) = old.and_then(|old| old.app.services.get_mut(service)) {
        spec.replicas = replicas;
    }
    Some(revision)
}

/// The revision to go back to: this one, or the last that is another than the one of now.
///
/// # Errors
///
/// There is none.
pub fn target<'a>(
    history: &'a [Revision],
    now: &Revision,
    to: Option<u64>,
) -> Result<(u64, &'a Specification), NoTarget> {
    let of = |revision: &'a Revision| Some((revision.number, revision.specification.as_ref()?));
    let Some(to) = to else {
        let mut earlier = history.iter().rev().filter(|one| one.number < now.number);
        let other = earlier
            .find(|one| one.specification.is_some() && one.specification != now.specification);
        return other.and_then(of).ok_or(NoTarget::Earlier);
    };
    match history.iter().find(|one| one.number == to).map(of) {
        Some(Some(found)) => Ok(found),
        Some(None) => Err(NoTarget::Undeployed(to)),
        None => Err(NoTarget::NotKept {
            number: to,
            kept: history.iter().map(|one| one.number).collect(),
        }),
    }
}

/// The changes of a revision.
#[must_use]
pub fn changed(before: Option<&Revision>, now: &Revision) -> Vec<Change> {
    let before = before.and_then(|before| before.specification.as_ref());
    changes(before, now.specification.as_ref())
}
