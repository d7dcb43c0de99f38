//! The protocol between a client and a server of NATS, both ways: bytes to operations, and
//! operations to bytes. No I/O.
//!
//! What clients wrote (subjects, headers, bodies) comes in a frame that the server made, so it can
//! never break the stream: it is one message, and says that it is malformed. Only a peer that is no
//! NATS server breaks it.

use async_nats::{StatusCode, Subject};
use bytes::{Bytes, BytesMut};

use crate::headers::{self, Headers};

/// Upper bound of a line from the server. INFO is the longest: it lists a cluster's servers.
const MAX_LINE: usize = 1 << 20;

/// Upper bound of a message from the server, twice what a server can be configured to take.
const MAX_MESSAGE: usize = 128 << 20;

/// A message that came.
#[derive(Clone, Debug)]
pub struct Message {
    /// The subject that it was published on; with replacement characters if it is not UTF-8.
    pub subject: Subject,
    /// The subject of replies.
    pub reply: Option<Subject>,
    /// The headers, if there are any and they can be read.
    pub headers: Option<Headers>,
    /// The body.
    pub payload: Bytes,
    /// The server's own answer, such as that a request has no responders.
    pub status: Option<StatusCode>,
    /// Why it cannot be taken for what it should be.
    pub malformed: Option<Malformed>,
    /// Bytes of subject, headers and body.
    pub length: usize,
}

/// A part of a message is no text, or no headers. Its publisher wrote it so; servers pass on anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The subject.
    #[error("the subject is not UTF-8")]
    Subject,
    /// The subject of replies: there is none to reply to then.
    #[error("the reply subject is not UTF-8")]
    Reply,
    /// The headers.
    #[error("the headers are malformed: {0}")]
    Headers(headers::Malformed),
}

/// What a server sends.
#[derive(Debug)]
pub(super) enum Operation {
    /// A message for the subscription with this id.
    Message(u64, Message),
    /// Its description, as JSON.
    Info(Bytes),
    Ping,
    Pong,
    Ok,
    /// An error, in the server's words.
    Error(String),
}

/// The peer does not speak NATS.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("the server sent \"{0}\", which is no operation of NATS")]
    Operation(String),
    #[error("the server sent a line of more than {} bytes", MAX_LINE)]
    Line,
    #[error("the server sent a message of {0} bytes")]
    Size(usize),
}

/// The next operation in the buffer; `None` while it is not whole.
///
/// A message keeps slices of the buffer.
pub(super) fn read(buffer: &mut BytesMut) -> Result<Option<Operation>, Broken> {
    let Some(end) = buffer.iter().position(|byte| *byte == b'\n') else {
        return match buffer.len() {
            len if len > MAX_LINE => Err(Broken::Line),
            _ => Ok(None),
        };
    };
    let line = buffer.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let verb = line.split(|byte| *byte == b' ' || *byte == b'\t').next();
    let verb = verb.unwrap_or_default();
    let arguments = verb.len() + 1;
    if verb.eq_ignore_ascii_case(b"MSG") || verb.eq_ignore_ascii_case(b"HMSG") {
        let has_headers = verb.len() == b"HMSG".len();
        let broken = || Broken::Operation(shown(line));
        let frame = Frame::parse(line, arguments, has_headers).ok_or_else(broken)?;
        if frame.total > MAX_MESSAGE {
            return Err(Broken::Size(frame.total));
        }
        let begin = end + 1;
        let whole = begin + frame.total + b"\r\n".len();
        if buffer.len() < whole {
            buffer.reserve(whole - buffer.len());
            return Ok(None);
        }
        let bytes = buffer.split_to(whole).freeze();
        return Ok(Some(Operation::Message(
            frame.sid,
            frame.message(&bytes, begin),
        )));
    }
    let operation = match verb.to_ascii_uppercase().as_slice() {
        b"PING" => Operation::Ping,
        b"PONG" => Operation::Pong,
        b"+OK" => Operation::Ok,
        b"-ERR" => {
            let words = String::from_utf8_lossy(line.get(arguments..).unwrap_or_default());
            Operation::Error(words.trim().trim_matches('\'').to_owned())
        }
        b"INFO" => Operation::Info(Bytes::copy_from_slice(
            line.get(arguments..).unwrap_or_default(),
        )),
        _ => return Err(Broken::Operation(shown(line))),
    };
    bytes::Buf::advance(buffer, end + 1);
    Ok(Some(operation))
}

/// The first line of a message, as positions in it.
struct Frame {
    sid: u64,
    subject: (usize, usize),
    reply: Option<(usize, usize)>,
    /// Bytes of headers.
    headers: usize,
    /// Bytes of headers and body.
    total: usize,
}

impl Frame {
    /// `MSG subject sid [reply] size`, `HMSG subject sid [reply] headers size`.
    fn parse(line: &[u8], from: usize, has_headers: bool) -> Option<Self> {
        // One more than there can be.
        let mut fields = [(0, 0); 6];
        let mut count = 0;
        let mut begin = from;
        let ends = (from..line.len()).filter(|at| line.get(*at) == Some(&b' '));
        for end in ends.chain([line.len()]) {
            if end > begin {
                *fields.get_mut(count)? = (begin, end);
                count += 1;
            }
            begin = end + 1;
        }
        let number = |field: usize| {
            let (begin, end) = *fields.get(field)?;
            number(line.get(begin..end)?)
        };
        let sizes = 1 + usize::from(has_headers);
        let reply = match count.checked_sub(2 + sizes)? {
            0 => None,
            1 => Some(*fields.get(2)?),
            _ => return None,
        };
        let total = usize::try_from(number(count - 1)?).ok()?;
        let headers = match has_headers {
            true => usize::try_from(number(count - 2)?).ok()?,
            false => 0,
        };
        (headers <= total).then_some(Self {
            sid: number(1)?,
            subject: *fields.first()?,
            reply,
            headers,
            total,
        })
    }

    /// The message of a whole frame, whose headers and body begin at `begin`.
    fn message(&self, frame: &Bytes, begin: usize) -> Message {
        let mut malformed = None;
        let slice = |(begin, end): (usize, usize)| frame.slice(begin..end);
        let subject = slice(self.subject);
        let subject = Subject::from_utf8(subject.clone()).unwrap_or_else(|_| {
            malformed = Some(Malformed::Subject);
            Subject::from(String::from_utf8_lossy(&subject).into_owned())
        });
        let reply = self.reply.map(|reply| Subject::from_utf8(slice(reply)));
        let reply = reply.and_then(|reply| match reply {
            Ok(reply) => Some(reply),
            Err(_) => {
                malformed = Some(Malformed::Reply);
                None
            }
        });
        let body = begin + self.headers;
        let headers = (self.headers > 0).then(|| Headers::parse(slice((begin, body))));
        let headers = headers.and_then(|headers| match headers {
            Ok(headers) => Some(headers),
            Err(why) => {
                malformed = Some(Malformed::Headers(why));
                None
            }
        });
        let status = headers.as_ref().and_then(Headers::status);
        Message {
            length: subject.len() + self.total,
            subject,
            reply,
            status: status.and_then(|code| StatusCode::from_u16(code).ok()),
            headers,
            payload: slice((body, begin + self.total)),
            malformed,
        }
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    // Nineteen digits cannot overflow.
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    digits.iter().try_fold(0, |number: u64, digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit < 10).then(|| number * 10 + u64::from(digit))
    })
}

fn shown(line: &[u8]) -> String {
    let start = line.get(..line.len().min(64)).unwrap_or_default();
    start.escape_ascii().to_string()
}

/// Whether something can be published on a subject: no part of it is empty, and nothing in it ends a
/// word of the protocol.
pub(super) fn is_subject(subject: &str) -> bool {
    let is_part = |part: &[u8]| !part.is_empty() && part.iter().all(|b| *b > b' ' && *b != 0x7f);
    subject.as_bytes().split(|b| *b == b'.').all(is_part)
}

/// `PUB`, or `HPUB` with headers.
pub(super) fn write_publish(
    out: &mut Vec<u8>,
    subject: &str,
    reply: Option<&str>,
    headers: &[u8],
    payload: &[u8],
) {
    out.reserve(subject.len() + reply.map_or(0, str::len) + headers.len() + payload.len() + 64);
    out.extend_from_slice(if headers.is_empty() {
        b"PUB "
    } else {
        b"HPUB "
    });
    out.extend_from_slice(subject.as_bytes());
    if let Some(reply) = reply {
        out.push(b' ');
        out.extend_from_slice(reply.as_bytes());
    }
    if !headers.is_empty() {
        out.push(b' ');
        write_number(out, headers.len() as u64);
    }
    out.push(b' ');
    write_number(out, (headers.len() + payload.len()) as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(headers);
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// `SUB`.
pub(super) fn write_subscribe(out: &mut Vec<u8>, subject: &str, group: Option<&str>, sid: u64) {
    out.extend_from_slice(b"SUB ");
    out.extend_from_slice(subject.as_bytes());
    out.push(b' ');
    if let Some(group) = group {
        out.extend_from_slice(group.as_bytes());
        out.push(b' ');
    }
    write_number(out, sid);
    out.extend_from_slice(b"\r\n");
}

/// `UNSUB`.
pub(super) fn write_unsubscribe(out: &mut Vec<u8>, sid: u64) {
    out.extend_from_slice(b"UNSUB ");
    write_number(out, sid);
    out.extend_from_slice(b"\r\n");
}

pub(super) const PING: &[u8] = b"PING\r\n";
pub(super) const PONG: &[u8] = b"PONG\r\n";

fn write_number(out: &mut Vec<u8>, mut number: u64) {
    // 2^64 has twenty digits.
    let mut digits = [0; 20];
    let mut len = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        len += 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - len..).unwrap_or_default());
}

/// What was published in `written` and begins at `from` or behind it: what a connection that was lost
/// in the middle of writing had not begun to send. Subscriptions are made anew by themselves.
pub(super) fn publications(written: &[u8], from: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut begin = 0;
    while let Some(rest) = written.get(begin..)
        && let Some(line) = rest.iter().position(|byte| *byte == b'\n')
    {
        let line = rest.get(..line + 1).unwrap_or_default();
        let is_publication = line.starts_with(b"PUB ") || line.starts_with(b"HPUB ");
        let mut len = line.len();
        if is_publication {
            let words = line.trim_ascii_end().rsplit(|byte| *byte == b' ');
            let size = words.into_iter().next().and_then(number);
            len += usize::try_from(size.unwrap_or_default()).unwrap_or_default() + 2;
        }
        if is_publication && begin >= from {
            kept.extend_from_slice(rest.get(..len).unwrap_or_default());
        }
        begin += len;
    }
    kept
}

#[cfg(test)]
mod tests;
