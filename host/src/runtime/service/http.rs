//! HTTP components: a request goes in, and its response comes out while the guest still writes it.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use tokio::sync::oneshot::{self, error::TryRecvError};
use wasmtime_wasi_http::WasiBody;

use super::{Account, Admitted, Service, current};
use crate::call::{Call, CallError};
use crate::interfaces::Backend;
use crate::runtime::instance::Head;

/// A response whose body the guest goes on to write.
type Response = http::Response<WasiBody>;

/// The rest of an HTTP component's work when its response has begun.
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
        tokio::select! {
            biased;
            // A guest that answers nothing ends with an error.
            Ok(response) = &mut response => Ok((response, guest)),
            ended = &mut guest => match response.try_recv() {
                Ok(response) => Ok((response, Box::pin(std::future::ready(ended)))),
                Err(_) => Err(ended.err().unwrap_or_else(CallError::host_failed)),
            },
        }
    }

    async fn handle(
        &self,
        request: http::Request<WasiBody>,
        call: Call,
        backend: &Arc<dyn Backend>,
        response: oneshot::Sender<Response>,
    ) -> Result<(), CallError> {
        let Some(handler) = &self.http else {
            let why = format!("service \"{}\" takes no HTTP requests", self.spec.name);
            return Err(CallError::not_found(why));
        };
        let term = self.term(&call);
        let work = async {
            let instance = self.instance().await?;
            let (done, ended) = oneshot::channel();
            let mut current = current(&call, term, backend);
            current.ended = Some(done);
            let (sender, mut head) = oneshot::channel();
            let mut guest = pin!(instance.handle(&handler.indices, request, sender, current));
            let finished = tokio::select! {
                biased;
                head = &mut head => match head {
                    Ok(head) => {
                        answer(head, ended, response)?;
                        guest.await?
                    }
                    // It let go of the means to answer; whether it also traps is still to be seen.
                    Err(_) => {
                        guest.await?;
                        return Err(no_response());
                    }
                },
                finished = &mut guest => {
                    let finished = finished?;
                    answer(head.try_recv().map_err(|_| no_response())?, ended, response)?;
                    finished
                }
            };
            self.put_back(finished, Instant::now());
            Ok(())
        };
        let account = Account {
            function: &handler.id,
            stats: &handler.stats,
        };
        self.run(account, term, Admitted(None), work).await
    }
}

/// Passes on the head of a response.
fn answer(
    head: Head,
    ended: oneshot::Receiver<()>,
    response: oneshot::Sender<Response>,
) -> Result<(), CallError> {
    let head = head.map_err(|error| {
        let why = format!("it answered with the error {error:?}");
        CallError::trap(why)
    })?;
    let ended = Some(ended);
    // The request may have been given up since.
    let _ = response.send(head.map(|body| GuestBody { body, ended }.boxed_unsync()));
    Ok(())
}

fn no_response() -> CallError {
    CallError::trap("it ended without a response")
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
