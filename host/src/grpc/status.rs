//! How a call ended, in gRPC's codes, with what an error is made of.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use prost::Message as _;

/// gRPC's codes, as far as a host answers with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are gRPC's own")]
pub enum Code {
    Ok = 0,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

impl Code {
    /// The code of what HTTP would answer with this status.
    #[must_use]
    pub const fn of_http(status: u16) -> Self {
        match status {
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 | 405 | 501 => Self::Unimplemented,
            413 | 429 => Self::ResourceExhausted,
            // A run that goes on after its caller's time.
            202 | 408 | 504 => Self::DeadlineExceeded,
            502 | 503 => Self::Unavailable,
            508 => Self::FailedPrecondition,
            400..=499 => Self::InvalidArgument,
            _ => Self::Internal,
        }
    }
}

/// What an error is called in its details.
const fn reason(status: u16) -> &'static str {
    match status {
        202 => "RUN_GOES_ON",
        401 => "UNAUTHENTICATED",
        403 => "FORBIDDEN",
        404 => "NOT_FOUND",
        405 | 501 => "UNIMPLEMENTED",
        413 => "TOO_LARGE",
        429 => "OVERLOADED",
        502 => "DEPENDENCY",
        503 => "UNAVAILABLE",
        408 | 504 => "DEADLINE",
        508 => "TOO_MANY_HOPS",
        400..=499 => "BAD_ARGUMENTS",
        _ => "TRAP",
    }
}

/// An error, by the HTTP status that would be answered.
#[derive(Clone, Copy, Debug)]
pub struct Failed<'a> {
    /// The HTTP status.
    pub status: u16,
    /// The message for a person.
    pub message: &'a str,
    /// The party at fault.
    pub blame: &'a str,
    /// The app.
    pub app: &'a str,
    /// The run that it is about.
    pub run: Option<&'a str>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: std::collections::BTreeMap<String, String>,
}

impl Failed<'_> {
    /// The code.
    #[must_use]
    pub const fn code(&self) -> Code {
        Code::of_http(self.status)
    }

    /// The bytes of a `google.rpc.Status` with a `google.rpc.ErrorInfo`, for `grpc-status-details-bin`.
    #[must_use]
    pub fn details(&self) -> Vec<u8> {
        let metadata = [("blame", Some(self.blame)), ("run", self.run)];
        let metadata = metadata
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())));
        let info = ErrorInfo {
            reason: reason(self.status).to_owned(),
            domain: self.app.to_owned(),
            metadata: metadata.collect(),
        };
        let status = Status {
            code: self.code() as i32,
            message: self.message.to_owned(),
            details: vec![prost_types::Any {
                type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(),
                value: info.encode_to_vec(),
            }],
        };
        status.encode_to_vec()
    }
}

/// The characters of a message that `grpc-message` has encoded.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// A text as `grpc-message` has it.
#[must_use]
pub fn message(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_code() {
        for (status, code) in [
            (202, 4),
            (400, 3),
            (401, 16),
            (403, 7),
            (404, 12),
            (408, 4),
            (413, 8),
            (415, 3),
            (429, 8),
            (500, 13),
            (501, 12),
            (502, 14),
            (503, 14),
            (504, 4),
            (508, 9),
        ] {
            assert_eq!(Code::of_http(status) as i32, code, "{status}");
        }
    }

    #[test]
    fn details_say_what_failed_and_who() {
        let failed = Failed {
            status: 429,
            message: "no room",
            blame: "host",
            app: "shop",
            run: None,
        };
        let status = Status::decode(&*failed.details()).unwrap();
        assert_eq!((status.code, &*status.message), (8, "no room"));
        let info = ErrorInfo::decode(&*status.details[0].value).unwrap();
        assert_eq!((&*info.reason, &*info.domain), ("OVERLOADED", "shop"));
        assert_eq!(
            info.metadata,
            [("blame".to_owned(), "host".to_owned())].into()
        );
    }

    #[test]
    fn a_message_is_one_line_of_ascii() {
        assert_eq!(message("a b 100%\né"), "a b 100%25%0A%C3%A9");
    }
}
