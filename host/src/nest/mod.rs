//! NestJS microservices on NATS: patterns as subjects, and packets as calls and results. Pure: what is sent
//! and received is for `transport`.
//!
//! A packet is a JSON object beside no header: of a request `pattern`, `data` and `id`, of a response `response`,
//! `err`, `isDisposed` and `id`. What a client of Nest makes of anything else is that it hangs, or takes an error
//! for a value; so a request gets exactly one last packet with these keys.

mod packet;
mod pattern;
mod translate;

pub(crate) use packet::{Packet, RequestPacket, id_of, request};
pub use pattern::{Pattern, PatternError};
pub(crate) use translate::{arguments, data, error_packet, result, result_packets};
