//! Query strings: filters, limits, and no unknown names.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;

use http::StatusCode;

use super::Refusal;
use crate::events::dead_letters::Filter;
use crate::text::shown;

/// Entries of a page unless the query says otherwise.
const LIMIT: usize = 100;

/// Upper bound of the entries of a page.
const MAX_LIMIT: usize = 1_000;

/// The names and values of a query string.
pub(crate) struct Query<'q>(Vec<(Cow<'q, str>, Cow<'q, str>)>);

impl<'q> Query<'q> {
    pub(crate) fn new(text: Option<&'q str>) -> Self {
        let text = text.unwrap_or_default().as_bytes();
        Self(form_urlencoded::parse(text).collect())
    }

    /// The query, if it has no other names than these, each of them once: a mistyped filter must
    /// not select everything.
    pub(crate) fn only(&self, names: &[&str]) -> Result<Asked<'_>, Refusal> {
        for (index, (name, _)) in self.0.iter().enumerate() {
            if !names.contains(&&**name) {
                let accepted = match names {
                    [] => "none".to_owned(),
                    names => names.join(", "),
                };
                let name = shown(name);
                return Err(bad(format!(
                    "unknown parameter `{name}`; accepted: {accepted}"
                )));
            }
            if self.0.iter().take(index).any(|(other, _)| other == name) {
                return Err(bad(format!("`{name}` is there twice")));
            }
        }
        Ok(Asked(&self.0))
    }
}

/// A query without unknown names.
pub(crate) struct Asked<'q>(&'q [(Cow<'q, str>, Cow<'q, str>)]);

impl Asked<'_> {
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter().filter(|(other, _)| other == name);
        found.next().map(|(_, value)| &**value)
    }

    /// The value of a parameter, read by `read`.
    pub(crate) fn value<T, E: Display>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Refusal> {
        let value = self.text(name).map(read).transpose();
        value.map_err(|error| bad(format!("`{name}`: {error}")))
    }

    /// The filter; it selects all without parameters.
    pub(crate) fn filter(&self) -> Result<Filter, Refusal> {
        Ok(Filter {
            service: self.text("service").map(str::to_owned),
            function: self.value("function", str::parse)?,
            id: None,
        })
    }

    /// The filter, where selecting all takes `all=true`.
    pub(crate) fn required_filter(&self) -> Result<Filter, Refusal> {
        let filter = self.filter()?;
        match (self.text("all"), filter == Filter::default()) {
            (Some("true"), true) | (None, false) => Ok(filter),
            (Some("true"), false) => Err(bad("`all` and a filter exclude each other")),
            (Some(_), _) => Err(bad("`all`: accepted: true")),
            (None, true) => Err(bad(
                "say which dead letters: `service=NAME`, `function=INTERFACE.FUNCTION`, or `all=true`",
            )),
        }
    }

    /// Whether something is wanted that is not by default.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.text(name) {
            None => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(bad(format!("`{name}`: accepted: true"))),
        }
    }

    /// The number of entries of a page.
    pub(crate) fn limit(&self) -> Result<usize, Refusal> {
        let read = |text: &str| match usize::from_str(text) {
            Ok(limit @ 1..=MAX_LIMIT) => Ok(limit),
            _ => Err(format!("accepted: 1 to {MAX_LIMIT}")),
        };
        Ok(self.value("limit", read)?.unwrap_or(LIMIT))
    }
}

pub(crate) fn bad(why: impl Into<String>) -> Refusal {
    Refusal::caller(StatusCode::BAD_REQUEST, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] = &["all", "service", "function", "limit"];

    fn required(text: &str) -> Result<Filter, String> {
        let query = Query::new(Some(text));
        let asked = query.only(NAMES);
        asked
            .and_then(|asked| asked.required_filter())
            .map_err(|refusal| refusal.message)
    }

    #[test]
    fn all_dead_letters_are_selected_only_with_all() {
        assert_eq!(required("all=true").unwrap(), Filter::default());
        let filter = required("service=mail&function=orders%2Fevents.placed").unwrap();
        assert_eq!(filter.service.as_deref(), Some("mail"));
        assert_eq!(filter.function.unwrap().package.as_deref(), Some("orders"));
        for (text, why) in [
            ("", "say which dead letters"),
            ("limit=1", "say which dead letters"),
            ("all=false", "`all`: accepted"),
            ("all", "`all`: accepted"),
            ("all=true&service=mail", "exclude each other"),
            ("servce=mail", "unknown parameter `servce`"),
            ("service=mail&service=stats", "twice"),
            ("function=*", "`function`: `*` is not a function"),
        ] {
            let refused = required(text).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }

    #[test]
    fn a_page_has_a_bound() {
        let limit = |text| {
            let query = Query::new(Some(text));
            let asked = query.only(NAMES);
            asked.and_then(|asked| asked.limit()).map_err(|r| r.status)
        };
        assert_eq!(limit("").unwrap(), 100);
        assert_eq!(limit("limit=1000").unwrap(), 1_000);
        for text in ["limit=0", "limit=1001", "limit=-1", "limit=x", "limit="] {
            assert_eq!(limit(text), Err(StatusCode::BAD_REQUEST), "{text}");
        }
    }
}
