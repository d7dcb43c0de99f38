//! Raw messages: bytes on a subject, for components that handle them as they are.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use super::{Function, Service};
use crate::call::{Blame, Call, CallError, Code};
use crate::component::HandlerKind;
use crate::instance::{Current, Instance};
use crate::outbound::Outbound;
use crate::outbound::messaging::Message;

impl Service {
    /// Hands a raw message to the function of [`Service::messages`]. The argument is the message
    /// itself, so `call` has no body. It is counted in the function's [`Stats`](super::Stats); the
    /// error that the guest itself returns is a result.
    ///
    /// # Errors
    ///
    /// Every way in which it ends without a result; see [`Code`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the guest and drops its instance.
    pub async fn deliver(
        &self,
        message: Message,
        call: Call,
        outbound: &Arc<dyn Outbound>,
    ) -> Result<Result<(), String>, CallError> {
        let started = Instant::now();
        let (kind, function) = self.message_handler()?;
        let deadline = call.deadline.min(started + self.spec.limits.timeout);
        let running = pin!(async {
            self.check_begin(&call, started, deadline)?;
            let (size, limit) = (message.body.len(), self.spec.limits.message);
            if size > limit {
                let why = format!("the message has {size} bytes, {limit} are allowed");
                return Err(CallError::new(Code::TooLarge, Blame::Caller, why));
            }
            let _permit = self.admission.enter(deadline).await?;
            let instance = match self.idle.take() {
                Some(instance) => instance,
                None => Box::pin(Instance::new(&self.blueprint)).await?,
            };
            let current = Current {
                deadline,
                hops: call.hops,
                trace: call.trace,
                outbound: Arc::clone(outbound),
                failed_import: None,
                ended: None,
                reply_to: message.reply_to.clone(),
            };
            let (instance, returned) = instance
                .deliver(kind, &function.index, message, current)
                .await?;
            self.keep_idle(instance, started);
            Ok(returned)
        });
        self.within(function, started, deadline, running).await
    }

    fn message_handler(&self) -> Result<(HandlerKind, &Function), CallError> {
        let kind = self.component.messages.as_ref().map(|handler| handler.kind);
        let mut functions = self.messages.iter().flat_map(|m| m.functions.values());
        kind.zip(functions.next()).ok_or_else(|| {
            let why = format!("service \"{}\" handles no raw messages", self.spec.name);
            CallError::new(Code::NotFound, Blame::Host, why)
        })
    }
}
