//! What some wires of an app do with calls, besides sending them over NATS. Shared by its workers.

use std::sync::Arc;

use super::breaker::Breakers;
use super::grpc::Outside;
use super::nest::Handlers;

/// What some wires of an app do with calls.
#[derive(Clone, Default)]
pub(crate) struct Wires {
    /// Those that do not send them while too many fail.
    pub(crate) breakers: Arc<Breakers>,
    /// Those that services of NestJS answer.
    pub(crate) nest: Arc<Handlers>,
    /// Those that gRPC services outside answer.
    pub(crate) outside: Arc<Outside>,
}
