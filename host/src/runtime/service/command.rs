//! The runs of a job's component.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Admitted, Instance, Of, Service, Term};
use crate::call::{Call, CallError, Kind, Trace};
use crate::interfaces::{Backend, CurrentCall, Tail};
use crate::runtime::Exit;

impl Service {
    /// Runs the command of a job once, in a fresh instance, for at most `limits.timeout`. It is counted in the
    /// [`Stats`](super::Stats) of `wasi:cli/run`; its last lines are in `tail`.
    ///
    /// # Errors
    ///
    /// It trapped, took too long, or could not begin.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the guest and drops its instance.
    pub(crate) async fn command(
        &self,
        tail: &Arc<Tail>,
        backend: &Arc<dyn Backend>,
    ) -> Result<Exit, CallError> {
        let functions = self.command.iter().flat_map(|c| c.functions.values());
        let Some(function) = functions.into_iter().next() else {
            return Err(CallError::defect("it is no job"));
        };
        let now = Instant::now();
        let mut call = Call {
            body: Bytes::new(),
            arrived: now,
            deadline: now + self.spec.limits.timeout + Duration::from_secs(1),
            hops: 0,
            caller: None,
            trace: Trace::default(),
            claims: None,
            identity: None,
            kind: Kind::Job,
        };
        // It is not one of the many calls among which turns are taken.
        let admitted = Admitted(None);
        let term: Term = self.term(&call);
        let account = self.account(function.counted(), &mut call, term);
        let work = || async {
            let instance = Box::pin(Instance::of(&self.blueprint, Of::Job(tail))).await?;
            let current = CurrentCall::new(&call, term.deadline, backend);
            instance.command(function.place(), current).await
        };
        self.run(account, term, admitted, work, |_| None).await
    }
}
