//! Values of runs that are stored and never shown.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::check::Check;
use super::filled::{JsonText, MASK, Root, Token, find};
use super::problem::{PipelineProblem, Problem};
use super::roots::{Known, KnownStep, Roots, Scope};
use super::sides;
use crate::manifest::{Place, Template, TemplateKind};
use crate::shape::{Shape, Signature};

/// Where a secret value stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Secret {
    /// The arguments of the run, or the result of a step.
    pub of: Root,
    /// What leads from there to the value.
    pub path: Vec<Token>,
}

/// The secret values of a call of one function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Secrets {
    /// What leads to those of its arguments.
    pub arguments: Vec<Vec<Token>>,
    /// What leads to those of its result.
    pub result: Vec<Vec<Token>>,
}

/// A value with the mask in the place of what is there.
pub(crate) fn mask(value: &RawValue, path: &[Token]) -> JsonText {
    let text = value.get();
    let masked = find(value, path).and_then(|found| {
        // What is found is a part of the text.
        let from = (found.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
        let (before, after) = (text.get(..from)?, text.get(from + found.len()..)?);
        RawValue::from_string(format!("{before}{MASK}{after}")).ok()
    });
    masked.unwrap_or_else(|| value.to_owned())
}

impl Check<'_, '_> {
    /// The secret values of a pipeline, all of whose steps are known.
    pub(super) fn secrets(&mut self) -> Vec<Secret> {
        let mut secrets = Vec::new();
        for template in &self.spec.secret {
            match secret(&self.roots(None), template) {
                Ok(secret) => secrets.extend(secret),
                Err(problem) => {
                    let (key, problem) = ("secret".to_owned(), Box::new(problem));
                    let problem = PipelineProblem::Value { key, problem };
                    self.report(&template.place, None, problem);
                }
            }
        }
        secrets
    }
}

fn secret(roots: &Roots<'_>, template: &Template) -> Result<Option<Secret>, Problem> {
    let TemplateKind::Path(path) = &template.kind else {
        return Ok(None);
    };
    let (of, path) = roots.place_of(path)?;
    Ok(Some(Secret { of, path }))
}

impl Secret {
    /// A value of the run's arguments.
    pub(super) const fn of_input(path: Vec<Token>) -> Self {
        let of = Root::Input;
        Self { of, path }
    }

    /// A value of the result of a step.
    pub(crate) const fn of_step(step: usize, path: Vec<Token>) -> Self {
        let of = Root::Step(step);
        Self { of, path }
    }
}

impl Secrets {
    /// Those of a function of this type.
    pub(super) fn of(
        signature: &Signature,
        templates: &[Template],
    ) -> Result<Self, (Place, Box<Problem>)> {
        let (value, _) = sides(signature);
        let arguments = Known::new(Shape::Record(signature.params.clone()), false);
        let result = value.map(|shape| Known::new(shape.clone(), false));
        let step = |(name, value): (&str, _)| KnownStep {
            name: name.to_owned(),
            group: None,
            value,
        };
        let steps = [("args", Some(arguments)), ("result", result)].map(step);
        let mut secrets = Self::default();
        for template in templates {
            let roots = Roots {
                input: &Shape::Record(signature.params.clone()),
                steps: &steps,
                error: None,
                scope: &Scope::default(),
            };
            let found = secret(&roots, template);
            let found = found.map_err(|problem| (template.place.clone(), Box::new(problem)))?;
            match found {
                Some(Secret {
                    of: Root::Step(1),
                    path,
                }) => secrets.result.push(path),
                Some(Secret { path, .. }) => secrets.arguments.push(path),
                None => {}
            }
        }
        Ok(secrets)
    }
}
