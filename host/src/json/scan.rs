//! The tokens of JSON text.

use std::borrow::Cow;

use super::Limits;
use super::error::{Fault, mismatch, too_deep, too_large};
use crate::text::shown;

/// What some editors begin a file with; RFC 8259 lets a reader ignore it.
pub(crate) const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A place in the text of one body.
pub(super) struct Scanner<'a> {
    text: &'a str,
    /// The next byte. Whenever it is read, it is the first of a character.
    pos: usize,
    depth: u32,
    max_depth: u32,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(body: &'a [u8], limits: &Limits) -> Result<Self, Fault> {
        if body.len() > limits.bytes {
            return Err(too_large(limits.bytes, body.len().to_string()));
        }
        let text = std::str::from_utf8(body).map_err(|error| {
            let at = error.valid_up_to();
            let byte = body.get(at).copied().unwrap_or_default();
            mismatch("UTF-8", format!("the byte 0x{byte:02x} at offset {at}"))
        })?;
        Ok(Self {
            text,
            // What offsets and errors do not count.
            pos: if body.starts_with(BYTE_ORDER_MARK) {
                BYTE_ORDER_MARK.len()
            } else {
                0
            },
            depth: 0,
            max_depth: limits.depth,
        })
    }

    /// Nothing but space is left.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(mismatch("nothing more", self.found())),
        }
    }

    /// The next byte that is not space, without taking it.
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.as_bytes().get(self.pos)?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.pos += 1;
        }
    }

    /// Takes the word if it stands here.
    pub(super) fn literal(&mut self, word: &str) -> bool {
        self.peek();
        let rest = self.text.as_bytes().get(self.pos..).unwrap_or_default();
        let Some(after) = rest.strip_prefix(word.as_bytes()) else {
            return false;
        };
        if after.first().is_some_and(u8::is_ascii_alphanumeric) {
            return false;
        }
        self.pos += word.len();
        true
    }

    pub(super) fn open(
        &mut self,
        bracket: u8,
        wanted: impl FnOnce() -> String,
    ) -> Result<(), Fault> {
        if self.peek() != Some(bracket) {
            return Err(mismatch(wanted(), self.found()));
        }
        if self.depth == self.max_depth {
            return Err(too_deep(self.max_depth));
        }
        self.depth += 1;
        self.pos += 1;
        Ok(())
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.pos += 1;
    }

    /// Whether another item of the array follows; takes the comma before it, or the bracket.
    pub(super) fn next_item(&mut self, first: bool) -> Result<bool, Fault> {
        match self.peek() {
            Some(b']') => {
                self.close();
                Ok(false)
            }
            _ if first => Ok(true),
            Some(b',') => {
                self.pos += 1;
                Ok(true)
            }
            _ => Err(mismatch("`,` or `]`", self.found())),
        }
    }

    /// The next key of the object with its colon; takes the comma before it, or the brace.
    pub(super) fn next_key(&mut self, first: bool) -> Result<Option<Cow<'a, str>>, Fault> {
        match self.peek() {
            Some(b'}') => {
                self.close();
                return Ok(None);
            }
            _ if first => {}
            Some(b',') => self.pos += 1,
            _ => return Err(mismatch("`,` or `}`", self.found())),
        }
        let key = self.string(|| "a key (a string)".into())?;
        if self.peek() != Some(b':') {
            return Err(mismatch("`:` after the key", self.found()));
        }
        self.pos += 1;
        Ok(Some(key))
    }

    /// A number's text, exactly as JSON has it.
    pub(super) fn number(&mut self, wanted: impl FnOnce() -> String) -> Result<&'a str, Fault> {
        self.peek();
        let start = self.pos;
        let bytes = self.text.as_bytes();
        let at = |pos: usize| bytes.get(pos).copied();
        let digits = |mut pos: usize| {
            while at(pos).is_some_and(|b| b.is_ascii_digit()) {
                pos += 1;
            }
            pos
        };
        let whole = if at(start) == Some(b'-') {
            start + 1
        } else {
            start
        };
        let mut end = digits(whole);
        let mut valid = end > whole && (end == whole + 1 || at(whole) != Some(b'0'));
        if at(end) == Some(b'.') {
            let fraction = end + 1;
            end = digits(fraction);
            valid &= end > fraction;
        }
        if let Some(b'e' | b'E') = at(end) {
            let sign = matches!(at(end + 1), Some(b'+' | b'-'));
            let exponent = end + 1 + usize::from(sign);
            end = digits(exponent);
            valid &= end > exponent;
        }
        // `0x10` and `1_000` are no numbers with something behind them.
        valid &= !at(end).is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
        match self.text.get(start..end) {
            Some(token) if valid => {
                self.pos = end;
                Ok(token)
            }
            _ => Err(mismatch(wanted(), self.found())),
        }
    }

    pub(super) fn string(
        &mut self,
        wanted: impl FnOnce() -> String,
    ) -> Result<Cow<'a, str>, Fault> {
        if self.peek() != Some(b'"') {
            return Err(mismatch(wanted(), self.found()));
        }
        let start = self.pos + 1;
        let end = self.run(start);
        if self.text.as_bytes().get(end) == Some(&b'"') {
            self.pos = end + 1;
            return Ok(Cow::Borrowed(self.text.get(start..end).unwrap_or_default()));
        }
        self.escaped(start).map(Cow::Owned)
    }

    /// Where the run of plain characters from here on ends.
    fn run(&self, start: usize) -> usize {
        const STEP: usize = 16;
        let rest = self.text.as_bytes().get(start..).unwrap_or_default();
        let special = |b: &u8| matches!(b, b'"' | b'\\' | 0..0x20);
        // Whole steps without a branch inside, which the compiler makes vector instructions of.
        let (steps, _) = rest.as_chunks::<STEP>();
        let plain = |step: &&[u8; STEP]| !step.iter().fold(false, |any, b| any | special(b));
        let skipped = steps.iter().take_while(plain).count() * STEP;
        let tail = rest.get(skipped..).unwrap_or_default();
        start + skipped + tail.iter().position(special).unwrap_or(tail.len())
    }

    /// The rest of a string with something special in it.
    fn escaped(&mut self, mut start: usize) -> Result<String, Fault> {
        let mut out = String::new();
        loop {
            let end = self.run(start);
            out.push_str(self.text.get(start..end).unwrap_or_default());
            self.pos = end + 1;
            match self.text.as_bytes().get(end) {
                Some(b'"') => return Ok(out),
                Some(b'\\') => out.push(self.escape()?),
                Some(byte) => {
                    let found = format!("the bare character U+{byte:04X}");
                    return Err(mismatch("control characters in a string escaped", found));
                }
                None => return Err(mismatch("the end of the string", "the end of the text")),
            }
            start = self.pos;
        }
    }

    /// The character after a backslash.
    fn escape(&mut self) -> Result<char, Fault> {
        let start = self.pos - 1;
        let byte = self.text.as_bytes().get(self.pos).copied();
        self.pos += 1;
        let c = match byte {
            Some(b'"') => Some('"'),
            Some(b'\\') => Some('\\'),
            Some(b'/') => Some('/'),
            Some(b'b') => Some('\u{8}'),
            Some(b'f') => Some('\u{c}'),
            Some(b'n') => Some('\n'),
            Some(b'r') => Some('\r'),
            Some(b't') => Some('\t'),
            Some(b'u') => self.utf16(),
            _ => None,
        };
        c.ok_or_else(|| {
            let rest = self.text.get(start..).unwrap_or_default();
            let found: String = rest.chars().take(6).take_while(|c| *c != '"').collect();
            mismatch(
                "an escape such as \\n or \\u00e9, surrogates in pairs",
                shown(&found),
            )
        })
    }

    fn utf16(&mut self) -> Option<char> {
        let high = self.hex4()?;
        if let Some(c) = char::from_u32(high.into()) {
            return Some(c);
        }
        let rest = self.text.as_bytes().get(self.pos..)?;
        if !rest.starts_with(b"\\u") {
            return None;
        }
        self.pos += 2;
        let low = self.hex4()?;
        char::decode_utf16([high, low]).next()?.ok()
    }

    fn hex4(&mut self) -> Option<u16> {
        let digits = self.text.get(self.pos..self.pos + 4)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        self.pos += 4;
        u16::from_str_radix(digits, 16).ok()
    }

    /// The token at this position, for an error.
    #[cold]
    pub(super) fn found(&mut self) -> String {
        match self.peek() {
            None if self.text.trim_ascii().is_empty() => "an empty body".into(),
            None => "the end of the text".into(),
            Some(b'{') => "an object".into(),
            Some(b'[') => "an array".into(),
            Some(first) => {
                let rest = self.text.get(self.pos..).unwrap_or_default();
                shown(rest.get(..token_len(first, rest)).unwrap_or_default()).into_owned()
            }
        }
    }

    /// Steps over a value whose type is not known yet. Only its end is looked for; the scanner
    /// that comes back stands at its start and ends where it ends.
    pub(super) fn skip(&mut self) -> Result<Self, Fault> {
        self.peek();
        let start = self.pos;
        let mut open = 0_usize;
        loop {
            match self.peek() {
                None => break,
                Some(b',' | b']' | b'}') if open == 0 => break,
                Some(b'"') => {
                    self.string(String::new)?;
                    continue;
                }
                Some(b'[' | b'{') => open += 1,
                Some(b']' | b'}') => open -= 1,
                Some(_) => {}
            }
            self.pos += 1;
        }
        let text = self.text.get(..self.pos).unwrap_or_default();
        Ok(Self {
            text,
            pos: start,
            ..*self
        })
    }

    /// Steps over a value that means nothing here. It has to be JSON all the same.
    pub(super) fn ignore(&mut self) -> Result<(), Fault> {
        let mut skipped = self.skip()?;
        let text = skipped.text.get(skipped.pos..).unwrap_or_default();
        match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) => Ok(()),
            Err(_) => Err(mismatch("JSON", skipped.found())),
        }
    }
}

/// The length of the token that begins here: a string, a mark, or the text up to the next mark.
fn token_len(first: u8, rest: &str) -> usize {
    const MARKS: &str = ",:]}\"{[";
    let mut behind = rest.char_indices().skip(1);
    let end = match first {
        b'"' => {
            let mut escape = false;
            let close = behind.find(|&(_, c)| {
                let closes = c == '"' && !escape;
                escape = c == '\\' && !escape;
                closes
            });
            close.map(|(at, _)| at + 1)
        }
        mark if MARKS.as_bytes().contains(&mark) => Some(1),
        _ => behind
            .find(|&(_, c)| c.is_ascii_whitespace() || MARKS.contains(c))
            .map(|(at, _)| at),
    };
    end.unwrap_or(rest.len())
}
