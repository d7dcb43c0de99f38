//! One attempt at a step or its undo: a call, or an event that is published.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::owner::Work;
use super::provided::Operation;
use super::run::{Outcome, Slot};
use crate::call::{Call, CallError, Identity, Kind, Trace};
use crate::json::{self, Limits, UnknownKeys};
use crate::plan::{Publication, StepCall};
use crate::spans::{Description, KeyValue, SpanKind};

/// What an attempt takes.
pub(super) struct Attempt {
    pub(super) slot: Slot,
    /// Whether it undoes the step.
    pub(super) undo: bool,
    /// When it began, in milliseconds since 1970.
    pub(super) began: u64,
    /// The value of `Bay-Step`.
    pub(super) id: String,
    pub(super) pipeline: String,
    pub(super) hops: u8,
    pub(super) trace: Option<String>,
    /// Who the run is for.
    pub(super) claims: Option<Arc<str>>,
    /// The subject of its function, if it is no event.
    pub(super) subject: String,
    pub(super) call: StepCall,
    /// Milliseconds that it may take.
    pub(super) millis: u64,
}

/// What came of an attempt.
pub(super) struct Made {
    pub(super) slot: Slot,
    pub(super) undo: bool,
    pub(super) began: u64,
    pub(super) outcome: Outcome,
}

impl Attempt {
    /// Makes it with these arguments.
    pub(super) async fn make(self, work: &Work, body: Bytes) -> Made {
        self.make_with(work, body, None).await
    }

    /// Makes it with these arguments, by an operation of the host if there is one.
    pub(super) async fn make_with(
        self,
        work: &Work,
        body: Bytes,
        operation: Option<&Operation>,
    ) -> Made {
        let outcome = self.outcome(work, body, operation).await;
        Made {
            slot: self.slot,
            undo: self.undo,
            began: self.began,
            outcome,
        }
    }

    async fn outcome(&self, work: &Work, body: Bytes, operation: Option<&Operation>) -> Outcome {
        let arrived = Instant::now();
        let mut trace = Trace {
            parent: self.trace.clone(),
            ..Trace::default()
        };
        let span = work.tracer.begin(&mut trace, arrived);
        if trace.parent.is_none() {
            trace = Trace::begin(false);
        }
        let function = &self.call.function;
        let describe = || Description {
            kind: SpanKind::Client,
            name: format!("step {function}").into(),
            attributes: vec![
                KeyValue::new("rpc.system.name", "wasmbay"),
                KeyValue::new("rpc.method", function.to_string()),
                KeyValue::new("wasmbay.step", self.id.clone()),
            ],
        };
        let call = Call {
            body,
            arrived,
            deadline: arrived + Duration::from_millis(self.millis),
            hops: self.hops,
            caller: Some(self.pipeline.clone()),
            trace,
            claims: self.claims.clone(),
            identity: Some(Identity::Step(self.id.as_str().into())),
            kind: Kind::Request,
        };
        let made = match (operation, &self.call.event) {
            (Some(operation), _) => operation.perform(&*work.backend, call).await.map(Some),
            (None, Some(event)) => publish(work, event, call).await.map(|()| None),
            (None, None) => work.backend.call(&self.subject, call).await.map(Some),
        };
        span.end(made.as_ref().err(), describe);
        match made {
            Ok(Some(reply)) => self.read(&reply, work.link.max_payload()),
            Ok(None) => Outcome::Ok(None),
            Err(error) => Outcome::Failed(error),
        }
    }

    /// Reads a reply, as this host writes it, so that paths find what the types say.
    fn read(&self, reply: &[u8], bytes: usize) -> Outcome {
        let signature = &self.call.signature;
        let limits = Limits {
            bytes,
            unknown_keys: UnknownKeys::Ignore,
            ..Limits::default()
        };
        let read = json::decode_result(reply, signature, &limits);
        let text = read.and_then(|value| json::encode_result(value.as_ref(), signature, &limits));
        match text {
            Ok(text) => Outcome::read(signature, &text).unwrap_or_else(|| {
                let why = "the reply cannot be kept";
                Outcome::Failed(CallError::bad_reply(why))
            }),
            Err(error) => {
                let why = format!("the reply of {}: {error}", self.call.function);
                Outcome::Failed(CallError::bad_reply(why))
            }
        }
    }
}

async fn publish(work: &Work, event: &Publication, call: Call) -> Result<(), CallError> {
    let limits = Limits {
        bytes: work.link.max_payload(),
        ..Limits::default()
    };
    let event = event.check(call, &limits)?;
    work.backend.publish(event).await
}
