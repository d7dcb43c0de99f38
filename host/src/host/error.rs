//! Why a host could not start, or an app could not be applied.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Listening;
use super::worker::WorkerError;
use crate::call::CallError;
use crate::events::stream::{StoreError, Unavailable};
use crate::gateway::TlsError;
use crate::manifest::{Digest, SpecificationError};
use crate::nats::Refusal;
use crate::plan::PlanError;
use crate::runtime::{ComponentError, EngineError, ServiceError};

/// Why a host could not start or an app could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The engine could not be set up.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A worker could not start or was refused a subscription.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// An address cannot be listened on.
    #[error("{what} cannot listen on {address}")]
    Listen {
        /// The part of the host.
        what: Listening,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The gateway has no certificates.
    #[error("the gateway cannot speak TLS")]
    Tls(#[from] TlsError),
    /// Other machines can reach the admin address, and it asks for no token.
    #[error(
        "the admin address {address} can be reached from other machines, and asks for no token"
    )]
    Unguarded {
        /// The address.
        address: SocketAddr,
    },
    /// A file is no component that can be run.
    #[error("service \"{service}\": {}", path.display())]
    Component {
        /// The service.
        service: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: ComponentError,
    },
    /// Services and components are not each other's.
    #[error(transparent)]
    Specification(#[from] SpecificationError),
    /// The component of a service is not there.
    #[error("service \"{service}\": component {specified} is specified, but none is given")]
    NoComponent {
        /// The service.
        service: String,
        /// The component that it has to have.
        specified: Digest,
    },
    /// The component of a service is another than the one that it has to have.
    #[error("service \"{service}\": component {specified} is specified, but {given} is given")]
    OtherComponent {
        /// The service.
        service: String,
        /// The component that it has to have.
        specified: Digest,
        /// The component that there is.
        given: Digest,
    },
    /// The component of a service could not be had.
    #[error("service \"{0}\": {1}")]
    Unfetched(String, String),
    /// A component cannot be linked.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The app stores events, messages or runs, and there is no JetStream.
    #[error("app \"{app}\" stores events, messages or runs, which needs JetStream")]
    JetStream {
        /// The app.
        app: String,
        /// What is missing.
        source: Unavailable,
    },
    /// The streams and consumers of durable events cannot be created.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The login lacks a permission for them.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The services do not fit together.
    #[error("{}", join(.0))]
    Plan(Vec<PlanError>),
    /// Another app has the name.
    #[error(
        "another app is called \"{app}\" on this NATS system: service \"{service}\" of host {host} answers {subject} too, \
         and the two have no service in common; give one of them another `name`"
    )]
    Taken {
        /// The name.
        app: String,
        /// The id of the host that runs the other one.
        host: String,
        /// What both would answer.
        subject: String,
        /// The other one's service that does.
        service: String,
    },
    /// A component does not start.
    #[error("service \"{service}\" does not start")]
    Warm {
        /// The service.
        service: String,
        /// Why.
        source: CallError,
    },
    /// A running host was to run an app of another name, which is part of every subject.
    #[error("the app is called \"{running}\" and cannot be renamed to \"{wanted}\" while it runs")]
    Renamed {
        /// The name of the running app.
        running: String,
        /// The other name.
        wanted: String,
    },
}

fn join(errors: &[PlanError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}
