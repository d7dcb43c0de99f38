//! The parts of a `multipart/form-data` body (RFC 7578), one after the other: no more of it is in memory than the
//! part that is read.

use bytes::{Buf as _, Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::gateway::answer::Refusal;
use crate::text::shown;

/// Bytes of the headers of a part, and of what may stand before the first.
const MAX_HEADERS: usize = 8 << 10;

/// Characters of a boundary, as RFC 2046 has it.
const MAX_BOUNDARY: usize = 70;

/// A body in parts.
pub(super) struct Parts<B = Incoming> {
    body: B,
    /// What was read of it and is not used yet.
    read: BytesMut,
    /// What stands between two parts.
    delimiter: Vec<u8>,
    has_begun: bool,
}

/// A part.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) bytes: Bytes,
}

/// The boundary that a content type names.
pub(super) fn boundary(content_type: &str) -> Option<&str> {
    let mut fields = content_type.split(';').map(str::trim);
    let kind = fields.next()?;
    if !kind.eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = fields.find_map(|field| {
        let (name, value) = field.split_once('=')?;
        name.eq_ignore_ascii_case("boundary").then_some(value)
    })?;
    let bare = boundary.strip_prefix('"').and_then(|b| b.strip_suffix('"'));
    let boundary = bare.unwrap_or(boundary);
    (1..=MAX_BOUNDARY)
        .contains(&boundary.len())
        .then_some(boundary)
}

impl<B> Parts<B>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    pub(super) fn new(body: B, boundary: &str) -> Self {
        Self {
            body,
            // The first one stands at the beginning, without a line before it.
            read: BytesMut::from(&b"\r\n"[..]),
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            has_begun: false,
        }
    }

    /// The next part, of at most so many bytes; nothing after the last.
    pub(super) async fn next(
        &mut self,
        limit: impl Fn(&str) -> Result<usize, Refusal>,
    ) -> Result<Option<Part>, Refusal> {
        if !self.has_begun {
            let delimiter = self.delimiter.clone();
            self.until(&delimiter, MAX_HEADERS, "what stands before the first part")
                .await?;
            self.has_begun = true;
        }
        let line = self.until(b"\r\n", MAX_HEADERS, "a boundary").await;
        let line = match line {
            // Nothing has to follow the last boundary.
            Err(_) if self.read.starts_with(b"--") => return Ok(None),
            line => line?,
        };
        if line.starts_with(b"--") {
            return Ok(None);
        }
        let mut name = None;
        loop {
            let line = self.until(b"\r\n", MAX_HEADERS, "a part's headers").await?;
            if line.is_empty() {
                break;
            }
            name = name.or(name_of(&String::from_utf8_lossy(&line)));
        }
        let Some(name) = name else {
            return Err(bad(
                "a part has no name: `Content-Disposition: form-data; name=\"…\"`",
            ));
        };
        let limit = limit(&name)?;
        let delimiter = self.delimiter.clone();
        let what = format!("part \"{}\"", shown(&name));
        let bytes = self.until(&delimiter, limit, &what).await?;
        Ok(Some(Part { name, bytes }))
    }

    /// What stands before these bytes, which are left out.
    async fn until(&mut self, end: &[u8], limit: usize, what: &str) -> Result<Bytes, Refusal> {
        let mut searched = 0;
        loop {
            if let Some(at) = find(&self.read, end, searched) {
                if at > limit {
                    return Err(too_large(what, limit));
                }
                let before = self.read.split_to(at).freeze();
                self.read.advance(end.len());
                return Ok(before);
            }
            // An end may have begun.
            searched = (self.read.len() + 1).saturating_sub(end.len());
            if searched > limit {
                return Err(too_large(what, limit));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(bad(&format!("the body ended early: {error}"))),
                None => return Err(bad(&format!("the body ends within {what}"))),
            }
        }
    }
}

/// Where some bytes begin, from there on.
fn find(bytes: &[u8], wanted: &[u8], from: usize) -> Option<usize> {
    let first = *wanted.first()?;
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == first)?;
        if bytes.get(at..)?.starts_with(wanted) {
            return Some(at);
        }
        at += 1;
    }
}

/// The name in a header of a part, if it is the one that has it.
fn name_of(header: &str) -> Option<String> {
    let (header, value) = header.split_once(':')?;
    if !header.trim().eq_ignore_ascii_case("content-disposition") {
        return None;
    }
    let mut fields = value.split(';').map(str::trim);
    fields
        .next()
        .filter(|kind| kind.eq_ignore_ascii_case("form-data"))?;
    let name = fields.find_map(|field| field.strip_prefix("name="))?;
    let bare = name
        .strip_prefix('"')
        .and_then(|name| name.strip_suffix('"'));
    Some(bare.unwrap_or(name).to_owned())
}

fn bad(why: &str) -> Refusal {
    Refusal::caller(StatusCode::BAD_REQUEST, why)
}

fn too_large(what: &str, limit: usize) -> Refusal {
    let why = format!("{what} has more than {limit} bytes");
    Refusal::caller(StatusCode::PAYLOAD_TOO_LARGE, why)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use hyper::body::{Body, Frame};

    use super::*;

    /// A body that comes in these pieces.
    struct Pieces(VecDeque<Bytes>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
        }
    }

    /// The parts of a text that comes in pieces of this size, each of at most `limit` bytes.
    async fn parts(
        text: &str,
        size: usize,
        limit: usize,
    ) -> Result<Vec<(String, String)>, Refusal> {
        let pieces = text.as_bytes().chunks(size).map(Bytes::copy_from_slice);
        let mut parts = Parts::new(Pieces(pieces.collect()), "xx");
        let mut found = Vec::new();
        while let Some(Part { name, bytes }) = parts.next(|_| Ok(limit)).await? {
            found.push((name, String::from_utf8(bytes.to_vec()).unwrap()));
        }
        Ok(found)
    }

    const TWO: &str = "--xx\r\nContent-Disposition: form-data; name=\"a\"; filename=\"a.toml\"\r\nContent-Type: text/plain\r\n\r\none\r\n--x\r\nmore\r\n--xx  \r\ncontent-disposition: form-data; name=b\r\n\r\n\r\n--xx--";

    #[tokio::test]
    async fn parts_are_read_however_they_come() {
        let expected = [("a", "one\r\n--x\r\nmore"), ("b", "")];
        let expected = expected.map(|(name, text)| (name.to_owned(), text.to_owned()));
        for size in [1, 2, 3, 7, 64, 4_096] {
            assert_eq!(parts(TWO, size, 100).await.unwrap(), expected, "{size}");
            let more = format!("preamble\r\n{TWO}\r\nepilogue");
            assert_eq!(parts(&more, size, 100).await.unwrap(), expected, "{size}");
        }
    }

    #[tokio::test]
    async fn what_is_no_such_body_is_refused() {
        let long = format!("--xx\r\nX: {}", "y".repeat(MAX_HEADERS + 1));
        for (text, why) in [
            ("", "the body ends within what stands before the first part"),
            ("--xx", "the body ends within a boundary"),
            ("--xx\r\n\r\nbody\r\n--xx--", "a part has no name"),
            (
                "--xx\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nbody",
                "the body ends within part \"a\"",
            ),
            (
                "--yy\r\n",
                "the body ends within what stands before the first part",
            ),
            (&long, "a part's headers has more than 8192 bytes"),
            (TWO, "part \"a\" has more than 5 bytes"),
        ] {
            for size in [3, 1_000] {
                let refused = parts(text, size, 5).await.unwrap_err();
                assert!(
                    refused.message.starts_with(why),
                    "{text:?}: {}",
                    refused.message
                );
            }
        }
    }

    #[test]
    fn a_boundary_is_that_of_a_form() {
        assert_eq!(boundary("multipart/form-data; boundary=xx"), Some("xx"));
        assert_eq!(
            boundary("Multipart/Form-Data;charset=x; Boundary=\"x x\""),
            Some("x x")
        );
        let long = format!("multipart/form-data; boundary={}", "x".repeat(71));
        for text in [
            "",
            "multipart/form-data",
            "multipart/mixed; boundary=x",
            "multipart/form-data; boundary=",
            &long,
        ] {
            assert_eq!(boundary(text), None, "{text}");
        }
    }
}
