//! Messages: bytes on a subject, handed to components as they are.

use std::sync::Arc;
use std::time::Instant;

use super::{Admitted, Function, Service};
use crate::call::{Call, CallError, Trace};
use crate::interfaces::{Backend, CurrentCall, Message};
use crate::runtime::component::HandlerKind;
use crate::spans::{Description, KeyValue, SpanKind};

impl Service {
    /// Hands a message to the function of [`Service::messages`]. The argument is the message itself,
    /// so `call` has no body. It is counted in the function's [`Stats`](super::Stats); the error that
    /// the guest itself returns is a result.
    ///
    /// # Errors
    ///
    /// Every way in which it ends without a result; see [`Code`](crate::call::Code).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the guest and drops its instance.
    pub fn deliver(
        &self,
        message: Message,
        call: Call,
        backend: &Arc<dyn Backend>,
    ) -> impl Future<Output = Result<Result<(), String>, CallError>> + Send {
        self.deliver_admitted(Admitted(None), message, call, backend)
    }

    /// As [`Service::deliver`], by a turn that was taken before.
    pub(crate) async fn deliver_admitted(
        &self,
        admitted: Admitted<'_>,
        message: Message,
        mut call: Call,
        backend: &Arc<dyn Backend>,
    ) -> Result<Result<(), String>, CallError> {
        let (kind, function) = self.message_handler()?;
        let term = self.term(&call);
        let account = self.account(function.counted(), &mut call, term);
        let work = || async {
            let (size, limit) = (message.body.len(), self.spec.limits.message);
            if size > limit {
                let why = format!("the message has {size} bytes, {limit} are allowed");
                return Err(CallError::request_too_large(why));
            }
            let instance = self.instance().await?;
            let mut current = CurrentCall::new(&call, term.deadline, backend);
            current.reply_to.clone_from(&message.reply_to);
            let (instance, returned) = instance
                .deliver(kind, &function.index, message, current)
                .await?;
            self.put_back(instance, term.started);
            Ok(returned)
        };
        self.run(account, term, admitted, work, |returned| {
            returned.clone().err()
        })
        .await
    }

    fn message_handler(&self) -> Result<(HandlerKind, &Function), CallError> {
        let kind = self.component.messages.as_ref().map(|handler| handler.kind);
        let mut functions = self.messages.iter().flat_map(|m| m.functions.values());
        kind.zip(functions.next()).ok_or_else(|| {
            let why = format!("service \"{}\" handles no messages", self.spec.name);
            CallError::not_found(why)
        })
    }

    /// Counts an event or message that became a dead letter, and records that as a span of its trace.
    pub(crate) fn dead_lettered(&self, function: &str, id: &str, mut trace: Trace, began: Instant) {
        self.counts().dead_lettered.add(1);
        let span = self.blueprint.tracer.begin(&mut trace, began);
        span.end(None::<&CallError>, || Description {
            kind: SpanKind::Producer,
            name: format!("dead-letter {function}").into(),
            attributes: vec![
                KeyValue::new("messaging.system", "nats"),
                KeyValue::new("messaging.operation.name", "dead-letter"),
                KeyValue::new("messaging.operation.type", "send"),
                KeyValue::new("messaging.destination.name", function.to_owned()),
                KeyValue::new("wasmbay.dead_letter", id.to_owned()),
            ],
        });
    }
}
