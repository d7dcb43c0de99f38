//! Stored messages as a stream has them. They come as JSON with their headers in base64, so what they
//! are made of does not matter on the way.

use async_nats::jetstream::ErrorCode;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::failed;
use super::{DeadLetterError, DeadLetters};
use crate::headers::Headers;
use crate::nats::Malformed;

/// Which message of a stream.
#[derive(Serialize)]
pub(super) enum Which<'a> {
    /// The one with this sequence.
    #[serde(rename = "seq")]
    Sequence(u64),
    /// The last of this subject, which may have wildcards.
    #[serde(rename = "last_by_subj")]
    LastOf(&'a str),
}

/// A stored message.
pub(super) struct Raw {
    pub(super) subject: String,
    pub(super) sequence: u64,
    pub(super) headers: Result<Headers, Malformed>,
    pub(super) body: Bytes,
}

#[derive(Deserialize)]
struct Answer {
    message: Option<Stored>,
    error: Option<AnswerError>,
}

#[derive(Deserialize)]
struct AnswerError {
    description: String,
    err_code: Option<ErrorCode>,
}

#[derive(Deserialize)]
struct Stored {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

impl DeadLetters {
    /// A message of a stream; `None` if there is none.
    pub(super) async fn raw(
        &self,
        what: &'static str,
        stream: &str,
        which: Which<'_>,
    ) -> Result<Option<Raw>, DeadLetterError> {
        let subject = format!("STREAM.MSG.GET.{stream}");
        let answer: Result<Answer, _> = self.context.request(subject, &which).await;
        match answer.map_err(failed(what))? {
            Answer {
                error: Some(error), ..
            } => match error.err_code {
                Some(ErrorCode::NO_MESSAGE_FOUND) => Ok(None),
                _ => Err(failed(what)(error.description)),
            },
            Answer {
                message: Some(message),
                ..
            } => Ok(Some(message.decode().map_err(failed(what))?)),
            Answer { .. } => Err(failed(what)("the server answers nothing")),
        }
    }
}

impl Stored {
    fn decode(self) -> Result<Raw, base64::DecodeError> {
        let block = BASE64_STANDARD.decode(self.hdrs)?;
        Ok(Raw {
            subject: self.subject,
            sequence: self.seq,
            headers: match block.is_empty() {
                true => Ok(Headers::new()),
                false => Headers::parse(block.into()).map_err(Malformed::Headers),
            },
            body: BASE64_STANDARD.decode(self.data)?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_are_none_are_said_to_be() {
        let stored = |hdrs: &[u8]| Stored {
            subject: "a".to_owned(),
            seq: 7,
            hdrs: BASE64_STANDARD.encode(hdrs),
            data: BASE64_STANDARD.encode("body"),
        };
        let raw = stored(b"NATS/1.0\r\nA: \xff\r\n\r\n").decode().unwrap();
        assert!(matches!(raw.headers, Err(Malformed::Headers(_))));
        assert_eq!((raw.sequence, &raw.body[..]), (7, &b"body"[..]));
        assert!(stored(b"").decode().unwrap().headers.unwrap().is_empty());
        let read = stored(b"NATS/1.0\r\nA: 1\r\n\r\n").decode().unwrap();
        assert_eq!(read.headers.unwrap().get("a"), Some("1"));
    }

    #[test]
    fn a_query_is_what_the_server_reads() {
        let text = |which| serde_json::to_string(&which).unwrap();
        assert_eq!(text(Which::Sequence(7)), r#"{"seq":7}"#);
        assert_eq!(text(Which::LastOf("a.>")), r#"{"last_by_subj":"a.>"}"#);
    }
}
