//! HTTP components: a request goes in, and its response comes out while the guest still writes it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use tokio::sync::oneshot::{self, error::TryRecvError};
use wasmtime_wasi_http::WasiBody;

use super::{Service, log};
use crate::call::{Blame, Call, CallError, Code};
use crate::instance::{Current, Head, Instance};
use crate::outbound::Outbound;

/// What is left of an HTTP component's work when its response has begun.
pub(crate) type Rest = Pin<Box<dyn Future<Output = Result<(), CallError>> + Send>>;

impl Service {
    /// Hands an HTTP request to the component. Arguments and result are the request and the
    /// response themselves, so `call` has no body.
    ///
    /// The result is the response and what is left of the guest's work: it writes the response's
    /// body while that is polled, and its place among the running calls is taken until then.
    ///
    /// # Errors
    ///
    /// Every way in which a call ends without a response; see [`Code`].
    ///
    /// # Cancel safety
    ///
    /// Dropping this future, or what it gives, stops the guest and drops its instance.
    pub(crate) async fn http(
        self: &Arc<Self>,
        request: http::Request<WasiBody>,
        call: Call,
        outbound: &Arc<dyn Outbound>,
    ) -> Result<(http::Response<WasiBody>, Rest), CallError> {
        let (sender, mut head) = oneshot::channel();
        let (done, ended) = oneshot::channel();
        let handle = Arc::clone(self).handle(request, call, Arc::clone(outbound), sender, done);
        let mut guest: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(handle);
        let silent = "it ended without a response";
        let (head, rest) = tokio::select! {
            biased;
            received = &mut head => match received {
                Ok(head) => (head, guest),
                // It let go of the means to answer; whether it also traps is still to be seen.
                Err(_) => return Err(guest.await.err().unwrap_or_else(|| self.failed(silent))),
            },
            ended = &mut guest => match head.try_recv() {
                Ok(head) => (head, Box::pin(std::future::ready(ended)) as Pin<Box<_>>),
                Err(_) => return Err(ended.err().unwrap_or_else(|| self.failed(silent))),
            },
        };
        match head {
            Ok(response) => {
                let ended = Some(ended);
                let response = response.map(|body| GuestBody { body, ended }.boxed_unsync());
                Ok((response, rest))
            }
            Err(error) => Err(self.failed(format_args!("it answered with the error {error:?}"))),
        }
    }

    async fn handle(
        self: Arc<Self>,
        request: http::Request<WasiBody>,
        call: Call,
        outbound: Arc<dyn Outbound>,
        head: oneshot::Sender<Head>,
        ended: oneshot::Sender<()>,
    ) -> Result<(), CallError> {
        let deadline = call.deadline.min(Instant::now() + self.spec.limits.timeout);
        let handling = async {
            self.check_hops(call.hops)?;
            let _permit = self.admission.enter(deadline).await?;
            let handler = self.handler.as_ref().ok_or_else(|| {
                CallError::new(Code::NotFound, Blame::Caller, "the component takes no HTTP")
            })?;
            let instance = match self.idle.take() {
                Some(instance) => instance,
                None => Instance::new(&self.blueprint).await?,
            };
            let current = Current {
                deadline,
                hops: call.hops,
                trace: call.trace,
                outbound,
                failed_import: None,
                ended: Some(ended),
                reply_to: None,
            };
            let instance = instance.handle(handler, request, head, current).await?;
            self.keep_idle(instance, Instant::now());
            Ok(())
        };
        let ended = tokio::time::timeout_at(deadline.into(), handling).await;
        ended
            .unwrap_or_else(|_| {
                let why = "it did not end within its time";
                Err(CallError::new(Code::Deadline, Blame::Guest, why))
            })
            .map_err(|error| CallError {
                message: format!("service \"{}\": {}", self.spec.name, error.message),
                ..error
            })
            .inspect_err(log)
    }

    fn failed(&self, why: impl std::fmt::Display) -> CallError {
        let why = format!("service \"{}\": {why}", self.spec.name);
        let error = CallError::new(Code::Trap, Blame::Guest, why);
        log(&error);
        error
    }
}

/// A response's body as a guest writes it. One that the guest did not live to finish breaks off
/// with an error instead of ending as if it were complete.
struct GuestBody {
    body: WasiBody,
    ended: Option<oneshot::Receiver<()>>,
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let failed =
            |mut ended: oneshot::Receiver<()>| ended.try_recv() == Err(TryRecvError::Closed);
        Poll::Ready(match frame {
            None if self.ended.take().is_some_and(failed) => {
                Some(Err(wasmtime_wasi_http::Error::HttpResponseIncomplete))
            }
            frame => frame,
        })
    }
}
