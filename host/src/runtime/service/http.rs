//! HTTP components: a request in, and its response out while the guest still writes the body.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::oneshot::{self, error::TryRecvError};
use wasmtime_wasi_http::WasiBody;

use super::{Admitted, Service, Stats};
use crate::call::{Call, CallError};
use crate::interface::FunctionId;
use crate::interfaces::{Backend, CurrentCall};
use crate::runtime::instance::{Failed, HandlerIndices, Head, Instance};
use crate::telemetry::Count;

/// A response whose body the guest still writes.
type Response = http::Response<WasiBody>;

/// The rest of an HTTP component's work after the head of its response.
pub(crate) type Rest = Pin<Box<dyn Future<Output = Result<(), CallError>> + Send>>;

impl Service {
    /// Hands an HTTP request to the component. Arguments and result are the request and the
    /// response themselves, so `call` has no body.
    ///
    /// The result is the response and the rest of the guest's work: it writes the response's body
    /// while that is polled, and counts as running until then.
    ///
    /// # Errors
    ///
    /// Every way in which a call ends without a response; see [`Code`](crate::call::Code).
    ///
    /// # Cancel safety
    ///
    /// Dropping this future, or the rest, stops the guest and drops its instance.
    pub(crate) async fn http(
        self: &Arc<Self>,
        request: http::Request<WasiBody>,
        call: Call,
        backend: &Arc<dyn Backend>,
    ) -> Result<(Response, Rest), CallError> {
        let (sender, mut response) = oneshot::channel();
        let service = Arc::clone(self);
        let backend = Arc::clone(backend);
        let mut guest: Rest =
            Box::pin(async move { service.handle(request, call, &backend, sender).await });
        let answered: Result<(Response, Rest), CallError> = tokio::select! {
            biased;
            // A guest that answers nothing ends with an error.
            Ok(response) = &mut response => Ok((response, guest)),
            ended = &mut guest => match response.try_recv() {
                Ok(response) => Ok((response, Box::pin(std::future::ready(ended)))),
                Err(_) => Err(ended.err().unwrap_or_else(CallError::host_failed)),
            },
        };
        if let (Ok((response, _)), Some(handler)) = (&answered, &self.http)
            && response.status().is_server_error()
        {
            handler.refusals.add(1);
        }
        answered
    }

    async fn handle(
        &self,
        request: http::Request<WasiBody>,
        mut call: Call,
        backend: &Arc<dyn Backend>,
        response: oneshot::Sender<Response>,
    ) -> Result<(), CallError> {
        let Some(handler) = &self.http else {
            let why = format!("service \"{}\" takes no HTTP requests", self.spec.name);
            return Err(CallError::not_found(why));
        };
        let term = self.term(&call);
        let account = self.account(handler.counted(), &mut call, term);
        let work = || async {
            let instance = match handler.served() {
                Served::One => self.unused_instance().await?,
                Served::Unknown | Served::Many => self.instance().await?,
            };
            if instance.calls == 0 || handler.served() == Served::Many {
                let current = CurrentCall::new(&call, term.deadline, backend);
                let attempt = self.attempt(handler, instance, request, response, current);
                return attempt.await.map_err(|failed| failed.error);
            }
            // It is not known yet whether an instance serves a second request.
            let (request, lent) = Lent::new(request);
            let next = CurrentCall::new(&call, term.deadline, backend);
            let attempt = self.attempt(handler, instance, request, response, next);
            match attempt.await {
                Ok(()) => {
                    handler.learn(Served::Many);
                    Ok(())
                }
                Err(NoResponse {
                    error,
                    response: Some(response),
                }) if let Some(request) = lent.take_back() => {
                    let instance = self.unused_instance().await?;
                    let next = CurrentCall::new(&call, term.deadline, backend);
                    let attempt = self.attempt(handler, instance, request, response, next);
                    attempt.await.map_err(|failed| failed.error)?;
                    if handler.learn(Served::One) {
                        let service = &*self.spec.name;
                        tracing::info!(
                            service,
                            %error,
                            "an instance served one HTTP request and no second; from now on each gets a fresh one"
                        );
                    }
                    Ok(())
                }
                Err(failed) => Err(failed.error),
            }
        };
        self.run(account, term, Admitted(None), work, |()| None)
            .await
    }

    /// Has an instance handle a request.
    async fn attempt(
        &self,
        handler: &HttpHandler,
        instance: Instance,
        request: http::Request<WasiBody>,
        response: oneshot::Sender<Response>,
        mut current: CurrentCall,
    ) -> Result<(), NoResponse> {
        let (done, ended) = oneshot::channel();
        current.ended = Some(done);
        let (sender, mut head) = oneshot::channel();
        let mut guest = pin!(instance.handle(&handler.indices, request, sender, current));
        let finished = tokio::select! {
            biased;
            head = &mut head => match head {
                Ok(head) => {
                    answer(head, ended, response)?;
                    guest.await.map_err(|failed| failed.error)?
                }
                // It let go of the means to answer; whether it also traps is still to be seen.
                Err(_) => {
                    let failed = guest.await.map_or_else(|failed| failed, no_response);
                    return Err(NoResponse::new(failed, response));
                }
            },
            finished = &mut guest => match (finished, head.try_recv()) {
                (Ok(finished), Ok(head)) => {
                    answer(head, ended, response)?;
                    finished
                }
                (Ok(finished), Err(_)) => {
                    return Err(NoResponse::new(no_response(finished), response));
                }
                (Err(failed), Err(_)) => return Err(NoResponse::new(failed, response)),
                (Err(failed), Ok(_)) => return Err(failed.error.into()),
            },
        };
        if handler.served() != Served::One {
            self.put_back(finished, Instant::now());
        }
        Ok(())
    }

    /// An instance that has handled nothing yet.
    async fn unused_instance(&self) -> Result<Instance, CallError> {
        loop {
            let instance = self.instance().await?;
            if instance.calls == 0 {
                return Ok(instance);
            }
        }
    }
}

/// The function that takes HTTP requests.
///
/// A runtime can be made to serve one request an instance (StarlingMonkey's `fetch` event), and
/// nothing in a component says so. It shows when an instance that has served a request ends another
/// without a response. That request is then handed to a fresh instance, if it can be: nothing of its
/// body was read and the guest had asked for nothing outside of the host. If the fresh one serves it,
/// all requests get fresh ones from then on. When an instance has served a second request that can no
/// longer happen, and a failure is one.
pub(super) struct HttpHandler {
    indices: HandlerIndices,
    id: FunctionId,
    stats: Stats,
    /// Answers with a status from 500, which end no call with an error.
    refusals: Count,
    served: AtomicU8,
}

/// What is known of the requests that one instance serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Served {
    Unknown,
    One,
    Many,
}

impl HttpHandler {
    pub(super) fn new(indices: HandlerIndices, id: FunctionId) -> Self {
        Self {
            indices,
            id,
            stats: Stats::default(),
            refusals: Count::default(),
            served: AtomicU8::new(Served::Unknown as u8),
        }
    }

    /// Answers with a status from 500.
    pub(super) fn refusals(&self) -> u64 {
        self.refusals.read()
    }

    /// Its name and counts.
    pub(super) fn counted(&self) -> (&FunctionId, &Stats) {
        (&self.id, &self.stats)
    }

    fn served(&self) -> Served {
        match self.served.load(Ordering::Relaxed) {
            known if known == Served::One as u8 => Served::One,
            known if known == Served::Many as u8 => Served::Many,
            _ => Served::Unknown,
        }
    }

    /// Returns whether that is news; what is known once stays known.
    fn learn(&self, served: Served) -> bool {
        let (unknown, served) = (Served::Unknown as u8, served as u8);
        let known = &self.served;
        known
            .compare_exchange(unknown, served, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

/// A request that has no response.
struct NoResponse {
    error: CallError,
    /// Where its response goes, if another instance may try.
    response: Option<oneshot::Sender<Response>>,
}

impl NoResponse {
    fn new(Failed { error, acted }: Failed, response: oneshot::Sender<Response>) -> Self {
        let response = Some(response).filter(|_| !acted);
        Self { error, response }
    }
}

impl From<CallError> for NoResponse {
    fn from(error: CallError) -> Self {
        let response = None;
        Self { error, response }
    }
}

/// Takes a request back from an instance that did not read its body.
struct Lent {
    parts: http::request::Parts,
    body: Arc<Mutex<Borrowed>>,
}

struct Borrowed {
    body: WasiBody,
    read: bool,
    ended: bool,
}

/// The body of a request as an instance sees it that may give it back.
struct LentBody(Arc<Mutex<Borrowed>>);

impl Lent {
    fn new(request: http::Request<WasiBody>) -> (http::Request<WasiBody>, Self) {
        let (parts, body) = request.into_parts();
        let body = Arc::new(Mutex::new(Borrowed {
            body,
            read: false,
            ended: false,
        }));
        let request = LentBody(Arc::clone(&body)).boxed_unsync();
        let request = http::Request::from_parts(parts.clone(), request);
        (request, Self { parts, body })
    }

    /// The request, if nothing of its body is lost. The instance has to be gone.
    fn take_back(self) -> Option<http::Request<WasiBody>> {
        let borrowed = Arc::into_inner(self.body)?.into_inner();
        let Borrowed { body, read, ended } = borrowed.unwrap_or_else(PoisonError::into_inner);
        let body = match (read, ended) {
            (true, _) => return None,
            (false, true) => Empty::new().map_err(|never| match never {}).boxed_unsync(),
            (false, false) => body,
        };
        Some(http::Request::from_parts(self.parts, body))
    }
}

impl LentBody {
    fn borrow(&self) -> MutexGuard<'_, Borrowed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body for LentBody {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut borrowed = self.borrow();
        let frame = ready!(Pin::new(&mut borrowed.body).poll_frame(context));
        match &frame {
            Some(_) => borrowed.read = true,
            None => borrowed.ended = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.borrow().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.borrow().body.size_hint()
    }
}

/// Passes on the head of a response.
fn answer(
    head: Head,
    ended: oneshot::Receiver<()>,
    response: oneshot::Sender<Response>,
) -> Result<(), CallError> {
    let head = head.map_err(|error| {
        let why = format!("it answered with the error {error}");
        CallError::trap(why)
    })?;
    let ended = Some(ended);
    // The request may be given up already.
    let _ = response.send(head.map(|body| GuestBody { body, ended }.boxed_unsync()));
    Ok(())
}

/// An instance that ended like this is not used again.
fn no_response(instance: Instance) -> Failed {
    Failed {
        error: CallError::trap("it ended without a response"),
        acted: instance.acted,
    }
}

/// A response's body as a guest writes it. If the guest fails before its end, the body breaks off
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

#[cfg(test)]
mod tests;
