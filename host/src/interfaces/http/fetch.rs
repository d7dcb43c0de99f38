//! Outgoing HTTP of a durable function: whole requests and answers, which a run's journal can keep.
//!
//! A request is asked of the call's backend, which is the owner of the run, once its body is there. Requests of
//! one function are made one after the other, in the order in which the guest began them, so that they have
//! the same order when it is run again.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tokio::sync::oneshot;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::{Response as Answered, Sender, Transfer};
use crate::call::{Call, CallError, Identity};
use crate::interfaces::{Backend, CurrentCall};

/// By which a server recognises a repetition, as the draft of the IETF's HTTPAPI group has it.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// An HTTP request with its whole body, and what sends it.
pub struct Fetch {
    request: Request<Bytes>,
    options: Option<RequestOptions>,
    /// Bytes that the body of the answer may have.
    limit: usize,
    sender: Sender,
}

/// An answer with its whole body.
pub type Fetched = Response<Bytes>;

/// Why a request has no answer.
pub(crate) enum NotFetched {
    /// It would have none the next time either.
    Refused(String),
    /// The other side may answer another time.
    Failed(CallError),
}

impl Fetch {
    /// The host and port that it is for.
    pub(crate) fn host(&self) -> &str {
        self.request.uri().authority().map_or("", |a| a.as_str())
    }

    /// The request itself.
    pub(crate) fn request(&self) -> &Request<Bytes> {
        &self.request
    }

    /// Sends it, as part of this call.
    pub(crate) async fn send(&self, call: &Call) -> Result<Fetched, NotFetched> {
        let mut request = self.request.clone().map(whole);
        if let Some(Identity::Step(step)) = &call.identity
            && let Ok(step) = HeaderValue::try_from(&**step)
        {
            let headers = request.headers_mut();
            headers.entry(IDEMPOTENCY_KEY).or_insert(step);
        }
        let mut trace = call.trace.clone();
        let sent = self.sender.send(request, self.options, &mut trace).await;
        let failed = |error: Error| {
            let why = format!("{} {}: {error}", self.request.method(), self.host());
            NotFetched::Failed(CallError::unavailable(why))
        };
        let (head, body) = sent.map_err(failed)?.into_parts();
        match Limited::new(body, self.limit).collect().await {
            Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Err(NotFetched::Refused(format!(
                "{} {}: the body of the answer has more than {} bytes, the limit of the service (`limits.message`)",
                self.request.method(),
                self.host(),
                self.limit
            ))),
            Err(error) => Err(match error.downcast::<Error>() {
                Ok(error) => failed(*error),
                Err(error) => failed(Error::InternalError(Some(error.to_string()))),
            }),
        }
    }
}

fn whole(body: Bytes) -> WasiBody {
    Full::new(body)
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// The requests of a call that is run for a journal.
pub(super) struct Fetching {
    backend: Arc<dyn Backend>,
    /// Notified when the last request that was begun has its answer.
    last: Option<Shared<BoxFuture<'static, ()>>>,
}

impl Fetching {
    pub(super) fn new(call: &CurrentCall) -> Self {
        Self {
            backend: Arc::clone(&call.backend),
            last: None,
        }
    }

    /// The end of the next request, for it to drop, and that of all before it.
    fn turn(&mut self) -> (oneshot::Sender<()>, Shared<BoxFuture<'static, ()>>) {
        let (done, ended) = oneshot::channel::<()>();
        let ready = || std::future::ready(()).boxed().shared();
        let before = self.last.take().unwrap_or_else(ready);
        let all = before.clone();
        let last = async move {
            all.await;
            // An error means that it was dropped, which is as good.
            let _ = ended.await;
        };
        self.last = Some(last.boxed().shared());
        (done, before)
    }

    /// Makes a request whose body is still being written.
    pub(super) fn fetch(
        &mut self,
        sender: Sender,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        limit: usize,
    ) -> impl Future<Output = Answered> + Send + use<> {
        // Whoever comes next waits for this one and for those before it, however this one ends.
        let (done, before) = self.turn();
        let backend = Arc::clone(&self.backend);
        async move {
            let (head, body) = request.into_parts();
            let body = match Limited::new(body, limit).collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) if error.is::<LengthLimitError>() => {
                    return Err(Error::HttpRequestBodySize(Some(limit as u64)));
                }
                Err(error) => return Err(Error::InternalError(Some(error.to_string()))),
            };
            before.await;
            let fetch = Fetch {
                request: Request::from_parts(head, body),
                options,
                limit,
                sender,
            };
            let fetched = backend.fetch(fetch).await;
            drop(done);
            let fetched = fetched.map_err(|error| Error::InternalError(Some(error.message)))?;
            let transfer: Transfer = Box::new(async { Ok(()) });
            Ok((fetched.map(whole), transfer))
        }
    }
}

/// Headers whose values are logins, which are never shown.
const SECRET: [&str; 8] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "api-key",
    "x-auth-token",
    "x-csrf-token",
];

/// Names and values as texts, those that are shown and those that are not. A byte of a value that is not ASCII
/// is the character of its number, as browsers have it.
pub(crate) fn texts(headers: &HeaderMap) -> [Vec<(String, String)>; 2] {
    let texts = headers.iter().map(|(name, value)| {
        let value = value.as_bytes().iter().map(|byte| char::from(*byte));
        (name.as_str().to_owned(), value.collect())
    });
    let (secret, shown) = texts.partition(|(name, _): &(String, String)| SECRET.contains(&&**name));
    [shown, secret]
}

/// Headers of such texts; nothing for what is none.
pub(crate) fn headers(texts: impl IntoIterator<Item = (String, String)>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in texts {
        let bytes: Option<Vec<u8>> = value.chars().map(|c| u8::try_from(c).ok()).collect();
        let name: HeaderName = name.parse().ok()?;
        headers.append(name, HeaderValue::from_bytes(&bytes?).ok()?);
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_texts_and_come_back() {
        let mut all = HeaderMap::new();
        all.append("accept", HeaderValue::from_static("a/b"));
        all.append("x", HeaderValue::from_bytes(b"\xe4 \xff").unwrap());
        all.append("x", HeaderValue::from_static(""));
        all.append("authorization", HeaderValue::from_static("Bearer 1"));
        let [shown, secret] = texts(&all);
        assert_eq!(shown.len(), 3);
        assert!(shown.contains(&("x".to_owned(), "\u{e4} \u{ff}".to_owned())));
        assert_eq!(
            secret,
            [("authorization".to_owned(), "Bearer 1".to_owned())]
        );
        let back = headers(shown.into_iter().chain(secret)).unwrap();
        assert_eq!(back, all);
        assert_eq!(headers([("x".to_owned(), "\u{100}".to_owned())]), None);
        assert_eq!(headers([("a b".to_owned(), String::new())]), None);
    }
}
