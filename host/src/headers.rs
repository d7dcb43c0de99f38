//! The headers of a NATS message, read where they lie in the bytes that came, and written as they are
//! sent.

use std::fmt;

use bytes::Bytes;

/// The first line of every block of headers.
const VERSION: &[u8] = b"NATS/1.0";
const LINE_END: &[u8] = b"\r\n";

/// A block of headers: names in any case, each with one value or more.
///
/// One that came is a slice of what the connection read; nothing of it is copied. One that is written
/// is at every moment the bytes that are sent, and has no bytes at all without headers.
#[derive(Clone, Default)]
pub struct Headers(Block);

#[derive(Clone)]
enum Block {
    /// Checked by [`Headers::parse`].
    Received(Bytes),
    Written(Vec<u8>),
}

impl Default for Block {
    fn default() -> Self {
        Self::Written(Vec::new())
    }
}

/// Bytes are no block of headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// They are no text.
    #[error("they are not UTF-8")]
    NoText,
    /// They begin with something else than `NATS/1.0`.
    #[error("they do not begin with NATS/1.0")]
    NoVersion,
    /// They do not end with an empty line.
    #[error("they do not end with an empty line")]
    NoEnd,
    /// A line has no name before a colon.
    #[error("a line has no name before a colon")]
    NoName,
}

impl Headers {
    /// No headers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks a block of headers that came.
    ///
    /// # Errors
    ///
    /// It is none. A client may send any bytes as headers, and the server passes them on.
    pub fn parse(block: Bytes) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(&block).map_err(|_| Malformed::NoText)?;
        if !block.starts_with(VERSION) {
            return Err(Malformed::NoVersion);
        }
        let Some(lines) = text.strip_suffix("\r\n\r\n") else {
            return Err(Malformed::NoEnd);
        };
        for line in lines.split("\r\n").skip(1) {
            let name = line.split_once(':').map_or("", |(name, _)| name);
            let is_name = |byte: u8| byte.is_ascii_graphic() || byte >= 0x80;
            if name.is_empty() || !name.bytes().all(is_name) {
                return Err(Malformed::NoName);
            }
        }
        Ok(Self(Block::Received(block)))
    }

    /// Adds a header. A line break in a value is a space, and a name that is none adds nothing.
    pub fn append(&mut self, name: &str, value: impl fmt::Display) {
        if name.is_empty() || name.bytes().any(|b| b <= b' ' || b == b':' || b == 0x7f) {
            return;
        }
        let mut block = match std::mem::take(&mut self.0) {
            Block::Received(block) => block.to_vec(),
            Block::Written(block) => block,
        };
        if block.is_empty() {
            // A call has some five headers with a trace among them.
            block.reserve(256);
            block.extend_from_slice(VERSION);
            block.extend_from_slice(LINE_END);
        } else {
            block.truncate(block.len() - LINE_END.len());
        }
        block.extend_from_slice(name.as_bytes());
        block.extend_from_slice(b": ");
        let begin = block.len();
        // Writing to a vector does not fail.
        let _ = std::io::Write::write_fmt(&mut block, format_args!("{value}"));
        for byte in block.iter_mut().skip(begin) {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        block.extend_from_slice(LINE_END);
        block.extend_from_slice(LINE_END);
        self.0 = Block::Written(block);
    }

    /// Names and values in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let lines = self.text().split("\r\n").skip(1);
        lines.filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name, value.trim()))
        })
    }

    /// The first value of a name in any case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.iter();
        all.find_map(|(known, value)| known.eq_ignore_ascii_case(name).then_some(value))
    }

    /// The code of the first line, such as 503, by which a server answers.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.first_line().get(..3)?.parse().ok()
    }

    /// The words after the code.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        let words = self.first_line().get(3..)?.trim();
        (self.status().is_some() && !words.is_empty()).then_some(words)
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// The bytes on the wire; none without headers.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Block::Received(block) => block,
            Block::Written(block) => block,
        }
    }

    /// The number of bytes on the wire.
    #[must_use]
    pub fn size(&self) -> usize {
        self.as_bytes().len()
    }

    /// What follows the version in the first line.
    fn first_line(&self) -> &str {
        let line = self.text().split("\r\n").next().unwrap_or_default();
        line.get(VERSION.len()..).unwrap_or_default().trim()
    }

    fn text(&self) -> &str {
        // Both kinds are checked when they are made.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(block: &[u8]) -> Result<Headers, Malformed> {
        Headers::parse(Bytes::copy_from_slice(block))
    }

    #[test]
    fn headers_are_written_as_the_protocol_has_them() {
        let mut headers = Headers::new();
        assert!(headers.is_empty());
        headers.append("Key", "value");
        headers.append("Key", 7);
        headers.append("Second", "");
        let wire = "NATS/1.0\r\nKey: value\r\nKey: 7\r\nSecond: \r\n\r\n";
        assert_eq!(headers.as_bytes(), wire.as_bytes());
        assert_eq!(headers.size(), wire.len());
        let read = parse(wire.as_bytes()).unwrap();
        assert_eq!(read, headers);
        assert_eq!(read.get("KEY"), Some("value"));
        assert_eq!(read.get("second"), Some(""));
        assert_eq!((read.get("Ke"), read.status()), (None, None));
    }

    #[test]
    fn nothing_is_injected() {
        let mut headers = Headers::new();
        for name in ["", "a b", "a:b", "a\r\nb", "a\u{7f}"] {
            headers.append(name, "x");
        }
        assert!(headers.is_empty());
        headers.append("A", "1\r\nB: 2");
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("A", "1  B: 2")]);
    }

    #[test]
    fn a_status_is_read_with_its_words() {
        let read = parse(b"NATS/1.0 409 Consumer Deleted\r\nNats-Pending-Messages: 3\r\n\r\n");
        let read = read.unwrap();
        assert_eq!(read.status(), Some(409));
        assert_eq!(read.description(), Some("Consumer Deleted"));
        assert_eq!(read.get("nats-pending-messages"), Some("3"));
        let read = parse(b"NATS/1.0 503\r\n\r\n").unwrap();
        assert_eq!((read.status(), read.description()), (Some(503), None));
        assert_eq!(read.iter().count(), 0);
    }

    #[test]
    fn what_is_no_block_is_malformed() {
        for (block, why) in [
            (&b""[..], Malformed::NoVersion),
            (b"HTTP/1.0\r\n\r\n", Malformed::NoVersion),
            (b"NATS/1.0\r\nA: \xff\r\n\r\n", Malformed::NoText),
            (b"NATS/1.0\r\nA: 1\r\n", Malformed::NoEnd),
            (b"NATS/1.0\r\n", Malformed::NoEnd),
            (b"NATS/1.0\r\nno colon\r\n\r\n", Malformed::NoName),
            (b"NATS/1.0\r\n: 1\r\n\r\n", Malformed::NoName),
            (b"NATS/1.0\r\nA: 1\r\n folded: 2\r\n\r\n", Malformed::NoName),
            (b"NATS/1.0\r\nA: 1\r\n\r\nB: 2\r\n\r\n", Malformed::NoName),
        ] {
            assert_eq!(parse(block).unwrap_err(), why, "{}", block.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_headers_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let block = [b"NATS/1.0\r\n", &bytes[..], b"\r\n\r\n"].concat();
            if let Ok(headers) = parse(&block) {
                prop_assert!(headers.iter().all(|(name, _)| !name.is_empty()));
            }
        }

        #[test]
        fn what_is_written_is_read(name in "[!-9;-~]{1,9}", value in "[^\r\n]{0,9}") {
            let mut headers = Headers::new();
            headers.append(&name, &value);
            let read = parse(headers.as_bytes()).unwrap();
            prop_assert_eq!(read.iter().collect::<Vec<_>>(), [(&*name, value.trim())]);
        }
    }
}
