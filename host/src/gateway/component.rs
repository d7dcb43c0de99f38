//! Requests to HTTP components, streamed both ways.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::Front;
use super::answer::{Answer, Payload, Refusal};
use super::connection::{Activity, Received, Tasks};
use super::origin;
use super::request::{check_length, without_body};
use super::route::HttpRoute;
use super::unread;
use crate::call::{Call, CallError};

impl Front {
    /// Hands the request to the component as it came. The guest goes on after the head of its
    /// response, beside the connection, until the service's own deadline.
    pub(super) async fn hand_over(
        &self,
        route: &HttpRoute,
        request: &mut Received,
        call: Call,
        activity: &Arc<Activity>,
    ) -> Result<Answer, Refusal> {
        let limit = self.gateway.spec.body;
        if let Some(body) = request.body() {
            check_length(body, limit)?;
        }
        // The component is passed the host, so a request of HTTP/1.0 has to name it as well.
        if origin::host(request)?.is_empty() {
            let why = "the header Host is missing";
            return Err(Refusal::caller(StatusCode::BAD_REQUEST, why));
        }
        let version = request.version();
        let expects_continue = unread::expects_continue(request.headers());
        let left = Arc::new(AtomicU64::new(0));
        strip_own(request.headers_mut());
        let request = std::mem::take(request).map(|body| {
            let body = body.filter(|body| !body.is_end_stream());
            left.store(body.as_ref().map_or(0, rest), Ordering::Relaxed);
            let tasks = Weak::clone(&self.tasks);
            let (left, activity) = (Arc::clone(&left), Arc::clone(activity));
            RequestBody {
                body,
                limit,
                read: 0,
                left,
                version,
                activity,
                tasks,
            }
            .boxed_unsync()
        });
        let service = route.chosen();
        let answered = service.http(request, call, &self.backend).await;
        // It may go on reading while it answers. But if it does not, this is the last place where
        // the answer can announce that the connection ends.
        let left = left.load(Ordering::Relaxed);
        if left > 0 && (left > unread::SMALL || expects_continue) && version < Version::HTTP_2 {
            activity.end();
        }
        let (response, rest) = answered?;
        let status = response.status();
        if status.is_informational() {
            // Dropping the rest of its work stops the guest.
            let name = &service.spec.name;
            let why =
                format!("service \"{name}\": it answered with {status}, which is no final status");
            return Err(CallError::trap(why).into());
        }
        if let Some(tasks) = self.tasks.upgrade() {
            tasks.spawn(async move {
                // The service has logged how it ended, and the client has seen it.
                let _ = rest.await;
            });
        }
        let mut answer = response.map(Payload::stream);
        answer.extensions_mut().insert(FromComponent);
        Ok(match status {
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => {
                without_content(answer, &self.tasks)
            }
            _ => answer,
        })
    }
}

/// Marks an answer that a component made: it decides itself which pages may read it.
#[derive(Clone, Copy)]
pub(super) struct FromComponent;

/// Takes away what only a host says: a component could take it for that.
fn strip_own(headers: &mut HeaderMap) {
    let is_own = |name: &&HeaderName| name.as_str().starts_with("bay-");
    let own: Vec<_> = headers.keys().filter(is_own).cloned().collect();
    for name in own {
        headers.remove(name);
    }
}

/// An answer whose status has no content. A guest may have some nevertheless, which would be taken for
/// the next answer, or be an error of the stream on HTTP/2.
fn without_content(mut answer: Answer, tasks: &Weak<Tasks>) -> Answer {
    let headers = answer.headers_mut();
    let length = headers.remove(CONTENT_LENGTH);
    let mut answer = without_body(answer, tasks);
    if let Some(length) = length.filter(|_| answer.status() == StatusCode::NOT_MODIFIED) {
        answer.headers_mut().insert(CONTENT_LENGTH, length);
    }
    answer
}

/// A request's body as a component reads it, within the gateway's limit.
struct RequestBody {
    /// Until it was read.
    body: Option<Incoming>,
    limit: usize,
    read: usize,
    /// Bytes that may still come; shared with the one who answers.
    left: Arc<AtomicU64>,
    version: Version,
    activity: Arc<Activity>,
    tasks: Weak<Tasks>,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = match ready!(Pin::new(&mut *body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            ended => {
                self.body = None;
                self.left.store(0, Ordering::Relaxed);
                let error = ended.and_then(Result::err);
                return Poll::Ready(error.map(|error| Err(error.into())));
            }
        };
        let left = if body.is_end_stream() { 0 } else { rest(body) };
        self.left.store(left, Ordering::Relaxed);
        self.read += frame.data_ref().map_or(0, Bytes::len);
        if self.read > self.limit {
            let limit = self.limit as u64;
            let error = wasmtime_wasi_http::Error::HttpRequestBodySize(Some(limit));
            return Poll::Ready(Some(Err(error)));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.body.as_ref();
        body.map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let unread = self.body.take().filter(|body| !body.is_end_stream());
        if let Some(body) = unread
            && !unread::let_go(body, self.version, &self.tasks)
        {
            self.activity.end();
        }
    }
}

/// Bytes that may still come of a body.
fn rest(body: &Incoming) -> u64 {
    body.size_hint().upper().unwrap_or(u64::MAX)
}
