//! The bindings of a route: the sources of a function's arguments in an HTTP request.

use crate::manifest::Route;
use crate::shape::{Field, Shape, Signature};
use crate::text::camel_case;

use super::RouteProblem;

/// The source of each parameter of a route's function. Numbers are indices of parameters, and every
/// parameter has exactly one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings {
    /// The path: the name in the route's pattern, and the parameter.
    pub path: Vec<(String, usize)>,
    /// The query string: the parameter's JSON key, of which [`spells`] knows the other
    /// accepted forms, and the parameter.
    pub query: Vec<(String, usize)>,
    /// The body: the other parameters.
    pub body: Body,
}

/// The parameters in a request's body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// No parameter.
    #[default]
    None,
    /// The value of this parameter.
    Whole(usize),
    /// An object with a key for each of these parameters.
    Object(Vec<usize>),
}

/// Whether `given` is the kebab-case `name` as written in kebab-case, snake_case or
/// lowerCamelCase.
#[must_use]
pub fn spells(given: &str, name: &str) -> bool {
    given == name || given == name.replace('-', "_") || given == camel_case(name)
}

impl Bindings {
    /// Binds the parameters of `signature`: those in the path, those that `query` lists, and the
    /// others to the body or, if the method has none, to the query string too.
    pub(super) fn new(
        route: &Route,
        signature: &Signature,
        query: &[String],
    ) -> Result<Self, RouteProblem> {
        let params = &signature.params;
        let find = |place: &'static str, given: &str| {
            let found = params
                .iter()
                .enumerate()
                .find(|(_, param)| spells(given, &param.name));
            found.ok_or_else(|| RouteProblem::no_param(place, given, params))
        };
        let mut bindings = Self::default();
        let mut free: Vec<_> = (0..params.len()).collect();
        for given in route.path_params() {
            let (index, param) = find("path", given)?;
            from_text("path", param, false)?;
            bindings.path.push((given.to_owned(), index));
            if !take(&mut free, index) {
                return Err(RouteProblem::Twice {
                    name: param.name.to_string(),
                });
            }
        }
        for given in query {
            let (index, param) = find("query", given)?;
            if !take(&mut free, index) {
                return Err(RouteProblem::Twice {
                    name: param.name.to_string(),
                });
            }
            bindings.query_param(index, param)?;
        }
        let has_body = route
            .method
            .as_deref()
            .is_some_and(|m| matches!(m, "POST" | "PUT" | "PATCH"));
        if has_body {
            bindings.body = match free.as_slice() {
                [] => Body::None,
                [only] => Body::Whole(*only),
                _ => Body::Object(free),
            };
        } else {
            for (index, param) in params
                .iter()
                .enumerate()
                .filter(|(index, _)| free.contains(index))
            {
                bindings.query_param(index, param)?;
            }
        }
        Ok(bindings)
    }

    fn query_param(&mut self, index: usize, param: &Field) -> Result<(), RouteProblem> {
        from_text("query", param, true)?;
        self.query.push((param.key.to_string(), index));
        Ok(())
    }
}

/// Removes a parameter from those that are not bound yet; whether it was there.
fn take(free: &mut Vec<usize>, index: usize) -> bool {
    let before = free.len();
    free.retain(|other| *other != index);
    free.len() < before
}

/// Checks that a parameter can be read from text: one value, which may be optional, or in the query
/// string a list, as keys can be repeated there.
fn from_text(place: &'static str, param: &Field, lists: bool) -> Result<(), RouteProblem> {
    let readable = match &param.shape {
        Shape::Option(some) => is_text(some),
        Shape::List(item) if lists => is_text(item),
        shape => is_text(shape),
    };
    if readable {
        return Ok(());
    }
    let (name, shape) = (param.name.to_string(), param.shape.to_string());
    Err(RouteProblem::NotText { place, name, shape })
}

fn is_text(shape: &Shape) -> bool {
    match shape {
        Shape::Bool | Shape::Char | Shape::String | Shape::Enum(_) => true,
        Shape::U8 | Shape::U16 | Shape::U32 | Shape::U64 => true,
        Shape::S8 | Shape::S16 | Shape::S32 | Shape::S64 => true,
        Shape::F32 | Shape::F64 => true,
        Shape::Bytes | Shape::List(_) | Shape::FixedList(..) | Shape::Tuple(_) => false,
        Shape::Record(_) | Shape::Variant(_) | Shape::Flags(_) => false,
        Shape::Option(_) | Shape::Result { .. } => false,
        Shape::Stream(_) | Shape::Future(_) => false,
    }
}
