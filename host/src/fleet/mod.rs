//! A fleet: the hosts that share one NATS system, and what they are to run.
//!
//! What is deployed is kept in JetStream ([`Store`]): the bytes of components by their digest, and a
//! [`Revision`] of each app. Every host reads the same and decides the same: which hosts run a service
//! follows from [`place`] alone, so there is no scheduler and no leader. What changes between two
//! revisions ([`changes`]), whom it breaks ([`breaks`]), which apps claim the same requests
//! ([`clashes`]) and how far a rollout is ([`progress`]) are pure functions of the same data.
//!
//! Nothing here runs a service; `host::node` does.

mod changes;
mod claims;
mod compatibility;
mod differences;
mod figures;
mod next;
mod placement;
mod progress;
mod proposal;
mod records;
mod rollout;
mod shown;
mod signatures;
mod store;

pub use changes::{Change, changes};
pub use claims::{Clash, Fronted, clashes};
pub use compatibility::{Break, Deployed, breaks};
pub use differences::{Difference, Specified, differences, lines};
pub use figures::{Figures, add_health, figures, host_id, running_apps};
pub use next::{NoTarget, Signed, changed, next, next_in_shares, scaled, target};
pub use placement::{Demand, Lack, Member, Placed, Placement, demands, place};
pub use progress::{Progress, Replica, ReplicaState, placement_of, progress};
pub use proposal::{Offer, Proposal, ProposalError, Specs, breaks_of};
pub(crate) use records::number_of;
pub use records::{
    DrainRecord, FORMAT, HostRecord, RecordError, Report, Revision, ServiceReport, ServiceState,
    VERSION, is_host_name,
};
pub(crate) use rollout::{End, HostTally, LEASE, Lease, Observed, ServiceTally, TICK, step};
pub use rollout::{Outcome, Rolling, Share, rollout_lines, rollouts, show_outcome, show_rolling};
pub use shown::{
    AllFigures, changes_of, services_on, show_app, show_history, show_hosts, show_lacks,
    show_replicas, sum,
};
pub use signatures::{
    KeyError, MAX_SIGNATURES, PublicKey, SignatureError, Signatures, SigningKey, Trust, Untrusted,
    read_signatures, write_signatures,
};
pub use store::{Kept, Store, StoreError};
pub(crate) use store::{
    RolloutKey, Watched, read_app, read_host, read_report, read_rollout, watch,
};

use std::time::Duration;

/// Time between two signs of life of a host.
pub const BEAT: Duration = Duration::from_millis(500);

/// Time after which a host without a sign of life is taken for dead: five of them were missed.
pub const DEAD: Duration = Duration::from_millis(2_500);

/// Revisions of an app that are kept: as many as a key of JetStream can have.
pub const HISTORY: u8 = 64;

/// Revisions that are kept of the app of a host that runs no other: each change of a file is one, and its
/// components are kept with it.
pub const OWN_HISTORY: u8 = 20;
