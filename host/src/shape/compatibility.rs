//! Whether two versions of a function can call each other: what the one sends, can the other read.
//!
//! Between services a record's unknown keys are ignored and a missing key is `none` for an option, so
//! an optional field can be added in either order. A case can be added for those who receive it first.

use std::fmt;

use super::{Case, Field, Shape, Signature};

/// What one side sends and the other cannot read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The place, such as `order.lines[].sku` or `result.err`.
    pub path: String,
    /// Why it cannot be read there.
    pub why: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.why)
    }
}

impl Signature {
    /// Whether a caller that was built against `self` can call a function that is `callee`.
    ///
    /// # Errors
    ///
    /// The first thing that one of them sends and the other cannot read.
    pub fn can_call(&self, callee: &Self) -> Result<(), Unreadable> {
        readable_fields("", &callee.params, &self.params)?;
        match (&self.result, &callee.result) {
            (None, _) => Ok(()),
            (Some(wanted), Some(sent)) => readable("result", wanted, sent),
            (Some(wanted), None) => Err(Unreadable {
                path: "result".to_owned(),
                why: format!("a `{wanted}` is expected and nothing comes"),
            }),
        }
    }
}

/// Whether a value of `sent` can be read as `wanted`.
fn readable(path: &str, wanted: &Shape, sent: &Shape) -> Result<(), Unreadable> {
    use Shape::{
        Enum, FixedList, Flags, Future, List, Option, Record, Result, Stream, Tuple, Variant,
    };
    let differ = || {
        Err(Unreadable {
            path: path.to_owned(),
            why: format!("a `{wanted}` is expected and a `{sent}` comes"),
        })
    };
    match (wanted, sent) {
        (List(wanted), List(sent)) | (Stream(wanted), Stream(sent)) => {
            readable(&format!("{path}[]"), wanted, sent)
        }
        (FixedList(wanted, number), FixedList(sent, other)) if number == other => {
            readable(&format!("{path}[]"), wanted, sent)
        }
        (Tuple(wanted), Tuple(sent)) if wanted.len() == sent.len() => {
            let mut pairs = wanted.iter().zip(sent).enumerate();
            pairs.try_for_each(|(at, (wanted, sent))| {
                readable(&format!("{path}[{at}]"), wanted, sent)
            })
        }
        (Record(wanted), Record(sent)) => readable_fields(path, wanted, sent),
        (Variant(wanted), Variant(sent)) => readable_cases(path, wanted, sent),
        (Enum(wanted), Enum(sent)) | (Flags(wanted), Flags(sent)) => {
            match sent.iter().find(|case| !wanted.contains(case)) {
                None => Ok(()),
                Some(case) => Err(unknown(path, case)),
            }
        }
        (Option(wanted), Option(sent)) | (Future(wanted), Future(sent)) => {
            readable(path, wanted, sent)
        }
        (
            Result { ok, err },
            Result {
                ok: sent_ok,
                err: sent_err,
            },
        ) => {
            let sides = [("ok", ok, sent_ok), ("err", err, sent_err)];
            sides
                .into_iter()
                .try_for_each(|(side, wanted, sent)| match (wanted, sent) {
                    (Some(wanted), Some(sent)) => readable(&format!("{path}.{side}"), wanted, sent),
                    (None, None) => Ok(()),
                    _ => differ(),
                })
        }
        (wanted, sent) if wanted == sent => Ok(()),
        _ => differ(),
    }
}

fn readable_fields(path: &str, wanted: &[Field], sent: &[Field]) -> Result<(), Unreadable> {
    let below = |name: &str| match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    };
    wanted.iter().try_for_each(|field| {
        let path = below(&field.name);
        match sent.iter().find(|sent| sent.key == field.key) {
            Some(sent) => readable(&path, &field.shape, &sent.shape),
            None if matches!(field.shape, Shape::Option(_)) => Ok(()),
            None => Err(Unreadable {
                path,
                why: "it is required and does not come".to_owned(),
            }),
        }
    })
}

fn readable_cases(path: &str, wanted: &[Case], sent: &[Case]) -> Result<(), Unreadable> {
    sent.iter().try_for_each(|case| {
        let known = wanted.iter().find(|wanted| wanted.name == case.name);
        let Some(known) = known else {
            return Err(unknown(path, &case.name));
        };
        match (&known.payload, &case.payload) {
            (None, None) => Ok(()),
            (Some(wanted), Some(sent)) => readable(&format!("{path}.{}", case.name), wanted, sent),
            _ => Err(Unreadable {
                path: format!("{path}.{}", case.name),
                why: "one side has a value there and the other has none".to_owned(),
            }),
        }
    })
}

fn unknown(path: &str, case: &str) -> Unreadable {
    Unreadable {
        path: path.to_owned(),
        why: format!("the case `{case}` can come and is not known"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the older can call the newer, and the newer the older.
    fn both(older: &str, newer: &str) -> (Result<(), String>, Result<(), String>) {
        let parse = |text: &str| text.parse::<Signature>().unwrap();
        let (older, newer) = (parse(older), parse(newer));
        let text = |result: Result<(), Unreadable>| result.map_err(|why| why.to_string());
        (text(older.can_call(&newer)), text(newer.can_call(&older)))
    }

    #[test]
    fn an_optional_field_can_be_added_in_either_order() {
        let older = "func(order: record { id: string }) -> record { total: u32 }";
        let newer = "func(order: record { id: string, note: option<string> }) -> record { total: u32, tax: option<u32> }";
        assert_eq!(both(older, newer), (Ok(()), Ok(())));
    }

    #[test]
    fn a_required_argument_field_is_missed_by_newer_callees_only() {
        let older = "func(order: record { id: string })";
        let newer = "func(order: record { id: string, sku: string })";
        let (up, down) = both(older, newer);
        assert_eq!(
            up.unwrap_err(),
            "order.sku: it is required and does not come"
        );
        assert_eq!(down, Ok(()));
    }

    #[test]
    fn a_required_result_field_is_missed_by_newer_callers_only() {
        let (up, down) = both(
            "func() -> record { total: u32 }",
            "func() -> record { total: u32, tax: u32 }",
        );
        assert_eq!(up, Ok(()));
        assert_eq!(
            down.unwrap_err(),
            "result.tax: it is required and does not come"
        );
    }

    #[test]
    fn an_added_case_is_known_to_newer_receivers_only() {
        let (up, down) = both(
            "func() -> result<u32, enum { gone }>",
            "func() -> result<u32, enum { gone, busy }>",
        );
        assert_eq!(
            up.unwrap_err(),
            "result.err: the case `busy` can come and is not known"
        );
        assert_eq!(down, Ok(()));
    }

    #[test]
    fn another_type_is_readable_in_no_direction() {
        let (up, down) = both("func(lines: list<u32>)", "func(lines: list<string>)");
        assert_eq!(
            up.unwrap_err(),
            "lines[]: a `string` is expected and a `u32` comes"
        );
        assert!(down.is_err());
    }

    #[test]
    fn what_is_the_same_can_be_called() {
        let same = "func(a: variant { b(u8), c }, d: tuple<u8, flags { e }>, f: result<_, string>) -> list<option<bool>>";
        assert_eq!(both(same, same), (Ok(()), Ok(())));
    }
}
