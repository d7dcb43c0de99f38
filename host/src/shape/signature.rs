//! Signatures from text, as in the metadata of discovery.

use std::str::FromStr;

use super::{Case, Shape, Signature, fields};

/// A text is no [`Signature`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the signature cannot be read at \"{rest}\": expected {expected}")]
pub struct ParseError {
    /// The rest of the text, up to 40 characters.
    pub rest: String,
    /// The expected token.
    pub expected: &'static str,
}

/// Upper bound of the nesting of types, as in WIT.
const MAX_DEPTH: u32 = 100;

impl FromStr for Signature {
    type Err = ParseError;

    /// Reads the text that `Display` writes.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut reader = Reader {
            rest: text,
            depth: 0,
        };
        reader.expect("func(", "`func(`")?;
        let params = fields(reader.list(")", Reader::field)?);
        let result = if reader.skip("->") {
            Some(reader.shape()?)
        } else {
            None
        };
        if reader.rest.trim().is_empty() {
            Ok(Self { params, result })
        } else {
            Err(reader.wrong("the end"))
        }
    }
}

impl FromStr for Shape {
    type Err = ParseError;

    /// Reads the text that `Display` writes.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut reader = Reader {
            rest: text,
            depth: 0,
        };
        let shape = reader.shape()?;
        if reader.rest.trim().is_empty() {
            Ok(shape)
        } else {
            Err(reader.wrong("the end"))
        }
    }
}

/// Reads types as WIT writes them, without names for types.
struct Reader<'a> {
    rest: &'a str,
    depth: u32,
}

impl<'a> Reader<'a> {
    fn wrong(&self, expected: &'static str) -> ParseError {
        ParseError {
            rest: self.rest.chars().take(40).collect(),
            expected,
        }
    }

    fn skip(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str, expected: &'static str) -> Result<(), ParseError> {
        if self.skip(token) {
            Ok(())
        } else {
            Err(self.wrong(expected))
        }
    }

    fn word(&mut self) -> Result<&'a str, ParseError> {
        self.rest = self.rest.trim_start();
        let other = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_');
        let end = self.rest.find(other).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        if word.is_empty() {
            return Err(self.wrong("a name"));
        }
        self.rest = rest;
        Ok(word)
    }

    /// Items separated by commas up to the closing token.
    fn list<T>(
        &mut self,
        close: &str,
        item: impl Fn(&mut Self) -> Result<T, ParseError>,
    ) -> Result<Vec<T>, ParseError> {
        let mut items = Vec::new();
        if self.skip(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.skip(close) {
                return Ok(items);
            }
            self.expect(",", "`,`")?;
        }
    }

    fn field(&mut self) -> Result<(Box<str>, Shape), ParseError> {
        let name = self.word()?.into();
        self.expect(":", "`:`")?;
        Ok((name, self.shape()?))
    }

    fn case(&mut self) -> Result<Case, ParseError> {
        let name = self.word()?.into();
        let payload = if self.skip("(") {
            let payload = self.shape()?;
            self.expect(")", "`)`")?;
            Some(payload)
        } else {
            None
        };
        Ok(Case { name, payload })
    }

    fn names(&mut self) -> Result<Box<[Box<str>]>, ParseError> {
        self.expect("{", "`{`")?;
        Ok(self
            .list("}", |reader| reader.word().map(Into::into))?
            .into())
    }

    fn shape(&mut self) -> Result<Shape, ParseError> {
        if self.depth == MAX_DEPTH {
            return Err(self.wrong("a type that is nested less deeply"));
        }
        self.depth += 1;
        let shape = self.nested();
        self.depth -= 1;
        shape
    }

    fn nested(&mut self) -> Result<Shape, ParseError> {
        let before = self.rest;
        Ok(match self.word()? {
            "bool" => Shape::Bool,
            "u8" => Shape::U8,
            "u16" => Shape::U16,
            "u32" => Shape::U32,
            "u64" => Shape::U64,
            "s8" => Shape::S8,
            "s16" => Shape::S16,
            "s32" => Shape::S32,
            "s64" => Shape::S64,
            "f32" => Shape::F32,
            "f64" => Shape::F64,
            "char" => Shape::Char,
            "string" => Shape::String,
            "list" => {
                self.expect("<", "`<`")?;
                let item = self.shape()?;
                let length = if self.skip(",") {
                    Some(self.word()?.parse().map_err(|_| self.wrong("a length"))?)
                } else {
                    None
                };
                self.expect(">", "`>`")?;
                match (item, length) {
                    (Shape::U8, None) => Shape::Bytes,
                    (item, None) => Shape::List(Box::new(item)),
                    (item, Some(length)) => Shape::FixedList(Box::new(item), length),
                }
            }
            "tuple" => {
                self.expect("<", "`<`")?;
                Shape::Tuple(self.list(">", Self::shape)?.into())
            }
            "option" => Shape::Option(Box::new(self.argument()?)),
            "stream" => Shape::Stream(Box::new(self.argument()?)),
            "future" => Shape::Future(Box::new(self.argument()?)),
            "result" => self.result()?,
            "record" => {
                self.expect("{", "`{`")?;
                Shape::Record(fields(self.list("}", Self::field)?))
            }
            "variant" => {
                self.expect("{", "`{`")?;
                Shape::Variant(self.list("}", Self::case)?.into())
            }
            "enum" => Shape::Enum(self.names()?),
            "flags" => Shape::Flags(self.names()?),
            _ => {
                self.rest = before;
                return Err(self.wrong("a type"));
            }
        })
    }

    /// The one type between angle brackets.
    fn argument(&mut self) -> Result<Shape, ParseError> {
        self.expect("<", "`<`")?;
        let shape = self.shape()?;
        self.expect(">", "`>`")?;
        Ok(shape)
    }

    fn result(&mut self) -> Result<Shape, ParseError> {
        if !self.skip("<") {
            return Ok(Shape::Result {
                ok: None,
                err: None,
            });
        }
        let ok = if self.skip("_") {
            None
        } else {
            Some(Box::new(self.shape()?))
        };
        let err = if self.skip(",") {
            Some(Box::new(self.shape()?))
        } else {
            None
        };
        self.expect(">", "`>`")?;
        Ok(Shape::Result { ok, err })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_read_as_it_is_written() {
        for text in [
            "func()",
            "func() -> result",
            "func(a: u8, b-c: list<u8>) -> list<list<u8>, 4>",
            "func(a: record { on-hand: option<u32>, sku: string }) -> result<_, enum { a, b-c }>",
            "func(a: tuple<s8, s16, s32, s64, f32, f64, char, bool>) -> result<flags { r, w }>",
            "func(rows: stream<tuple<u8, string>>) -> result<stream<u8>, future<string>>",
            "func() -> result<u64, variant { none, some(option<option<u16>>) }>",
        ] {
            assert_eq!(text.parse::<Signature>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_type_is_read_as_it_is_written() {
        let text = "record { on-hand: option<u32>, why: variant { none, other(string) } }";
        assert_eq!(text.parse::<Shape>().unwrap().to_string(), text);
        for text in ["", "record", "u8 x", "list<u8"] {
            assert!(text.parse::<Shape>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_signature_is_refused_where_it_goes_wrong() {
        let error = "func(a: strin)".parse::<Signature>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the signature cannot be read at \" strin)\": expected a type"
        );
        let deep = format!("func(a: {}", "list<".repeat(200));
        for text in [
            "",
            "func",
            "func(",
            "func(a)",
            "func() -> ",
            "func() x",
            deep.as_str(),
        ] {
            assert!(text.parse::<Signature>().is_err(), "{text}");
        }
    }
}
