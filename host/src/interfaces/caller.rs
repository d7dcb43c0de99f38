//! The caller of a host interface: the service, and the call that its instance runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::otel::OpenSpans;
use super::{Backend, Output, Recorded};
use crate::call::{Call, CallError, Identity, Kind, Trace};
use crate::interface::FunctionId;
use crate::manifest::ServiceSpec;
use crate::spans::Tracer;
use crate::telemetry::Counts;
use crate::value::streams::Account;

/// Upper bound of the time for a guest after its import has run out of time.
const REPLY_MARGIN: Duration = Duration::from_millis(20);

/// The service of an instance, and the call that it is running.
pub(crate) struct Caller {
    pub(crate) service: Arc<ServiceSpec>,
    /// What it writes to the log.
    pub(crate) output: Arc<Output>,
    /// Time and random of the run that the instance is for, if it is for one.
    pub(crate) recorded: Option<Arc<Recorded>>,
    /// What it has done beside its calls.
    pub(crate) counts: Arc<Counts>,
    /// Takes what it records of its work itself.
    pub(crate) tracer: Arc<Tracer>,
    /// The name of the instance in metrics of its own, once it has sent any.
    pub(crate) instance: Option<String>,
    /// `None` while the instance is created, which belongs to no call, and between two calls.
    pub(crate) call: Option<CurrentCall>,
}

/// The call that an instance is running.
pub(crate) struct CurrentCall {
    pub(crate) deadline: Instant,
    pub(crate) hops: u8,
    pub(crate) trace: Trace,
    /// Spans of the guest's own that are open.
    pub(crate) spans: OpenSpans,
    /// Who the call is made for.
    pub(crate) claims: Option<Arc<str>>,
    pub(crate) backend: Arc<dyn Backend>,
    /// The failed import that trapped the guest, for want of a value for the failure.
    pub(crate) failed_import: Option<Box<(FunctionId, CallError)>>,
    /// Notified when the call ends well, and dropped when it ends in any other way: before the
    /// guest's side of a response's body is dropped, whose end would else look like that of a
    /// complete one.
    pub(crate) ended: Option<oneshot::Sender<()>>,
    /// The streams that the guest writes, where it is asynchronous.
    pub(crate) streams: Option<Arc<Account>>,
    /// The step of a run that the call is an attempt of.
    pub(crate) step: Option<Box<str>>,
    /// The subject of replies to the message that is being handled.
    pub(crate) reply_to: Option<String>,
    /// Whether the guest has asked for anything outside of the host, so that doing its work again
    /// would do that twice.
    pub(crate) acted: AtomicBool,
}

impl CurrentCall {
    /// A call with this deadline, and what carries what its guest calls.
    pub(crate) fn new(call: &Call, deadline: Instant, backend: &Arc<dyn Backend>) -> Self {
        Self {
            deadline,
            hops: call.hops,
            trace: call.trace.clone(),
            spans: OpenSpans::default(),
            claims: call.claims.clone(),
            backend: Arc::clone(backend),
            failed_import: None,
            ended: None,
            streams: None,
            step: match &call.identity {
                Some(Identity::Step(step)) => Some(step.clone()),
                Some(Identity::Key(_)) | None => None,
            },
            reply_to: None,
            acted: AtomicBool::new(false),
        }
    }
}

/// Gives host interfaces access to the [`Caller`] in a store.
pub(crate) trait CallerView: Send + 'static {
    fn caller(&mut self) -> &mut Caller;
}

impl Caller {
    /// Whether the guest does what it did before, so that what it logs was logged.
    pub(crate) fn is_replaying(&self) -> bool {
        let recorded = self.recorded.as_ref();
        recorded.is_some_and(|recorded| recorded.is_replaying())
    }

    /// The deadline of an import that is called now: a little before the call's own, so that a
    /// guest whose import runs out of time can still return an error. `None` outside of a call.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let deadline = self.call.as_ref()?.deadline;
        let left = deadline.saturating_duration_since(Instant::now());
        Some(deadline - (left / 10).min(REPLY_MARGIN))
    }

    /// Notes that the guest asks for something outside of the host.
    pub(crate) fn act(&self) {
        if let Some(call) = &self.call {
            call.acted.store(true, Ordering::Relaxed);
        }
    }

    /// A call that the guest makes now with this body, and what carries it. `None` outside of a
    /// call.
    pub(crate) fn outgoing(&self, body: Bytes) -> Option<(Arc<dyn Backend>, Call)> {
        self.act();
        let current = self.call.as_ref()?;
        let call = Call {
            body,
            arrived: Instant::now(),
            deadline: self.deadline()?,
            hops: current.hops.saturating_add(1),
            caller: Some(self.service.name.clone()),
            trace: current.trace.clone(),
            claims: current.claims.clone(),
            identity: None,
            kind: Kind::Request,
        };
        Some((Arc::clone(&current.backend), call))
    }
}
