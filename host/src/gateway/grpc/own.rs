//! The gateway's own services: health and reflection.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use tokio::time::{Instant, Sleep, sleep_until};

use super::answers::{failed, refuse, response, trailers};
use super::frame::{check_trailers, framed, has_gzip, next_message, read_one, timeout};
use super::health::Health;
use super::web::Form;
use super::{Asker, check, is_grpc};
use crate::call::Blame;
use crate::gateway::answer::{Answer, Payload, Refusal};
use crate::gateway::connection::Received;
use crate::gateway::{Front, Table};
use crate::grpc::status::Code;
use crate::grpc::{self, HEALTH, Reflected};
use crate::poll;

/// A service of the gateway's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) enum Own {
    Check,
    Watch,
    Reflection,
    /// A method that it does not have.
    Unknown,
}

/// The gateway's own service that a request is for.
pub(in crate::gateway) fn own(headers: &HeaderMap, path: &str) -> Option<Own> {
    is_grpc(headers).then(|| own_at(path))?
}

/// The gateway's own service that has a path.
pub(super) fn own_at(path: &str) -> Option<Own> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    if service == HEALTH {
        return Some(match method {
            "Check" => Own::Check,
            "Watch" => Own::Watch,
            _ => Own::Unknown,
        });
    }
    let is_reflection = grpc::REFLECTION.contains(&service);
    is_reflection.then_some(match method {
        grpc::REFLECTION_METHOD => Own::Reflection,
        _ => Own::Unknown,
    })
}

/// Answers for the gateway's own services, which know of these apps.
pub(in crate::gateway) async fn answer_own(
    own: Own,
    parts: &[(&Front, &Table)],
    health: Health,
    asker: &mut Asker<'_>,
    request: &mut Received,
    deadline: Instant,
) -> Answer {
    let app = match parts {
        [(front, _)] => front.gateway.app.as_str(),
        _ => "",
    };
    let cors = match parts {
        [(front, _)] => front.gateway.cors.as_ref(),
        _ => None,
    };
    let form = match check(request, cors) {
        Ok(form) => form,
        Err(refusal) => return refusal.answer(),
    };
    let answered = async {
        check_trailers(form, request.headers())?;
        match own {
            Own::Unknown => {
                let why = "the gateway's own services are Check and Watch of grpc.health.v1.Health, and reflection";
                Err(Refusal::caller(StatusCode::NOT_IMPLEMENTED, why))
            }
            Own::Check => {
                let service = checked(form, request, deadline).await?;
                Ok(health.check(&service).await)
            }
            Own::Watch => {
                let ends = timeout(request.headers())?.map(|timeout| Instant::now() + timeout);
                let service = checked(form, request, deadline).await?;
                health.watch(service, ends, asker.activity)
            }
            Own::Reflection if form != Form::Grpc => {
                let why = "reflection is a conversation, which gRPC-Web has none of";
                Err(Refusal::caller(StatusCode::NOT_IMPLEMENTED, why))
            }
            Own::Reflection => {
                let gzip = has_gzip(request.headers())?;
                let (mut apis, mut refused) = (Vec::new(), None);
                for (front, table) in parts {
                    match front.admit_grpc(table, asker, request.headers()).await {
                        Ok(_) => apis.push(front.gateway.api(table)),
                        Err(refusal) => refused = Some(refusal),
                    }
                }
                if let Some(refusal) = refused.filter(|_| apis.is_empty()) {
                    return Err(refusal);
                }
                let exchange = Exchange {
                    incoming: request.body_mut().take(),
                    came: BytesMut::new(),
                    gzip,
                    reflected: Reflected::of(apis.iter().map(|api| &**api)),
                    deadline: Box::pin(sleep_until(deadline)),
                    has_ended: false,
                    app: app.to_owned(),
                };
                let body = exchange.boxed_unsync();
                Ok(response(Payload::stream(body), StatusCode::OK))
            }
        }
    };
    let answer = answered.await;
    form.write(answer.unwrap_or_else(|refusal: Refusal| failed(&refusal, app)))
}

/// Bytes that a message to one of the gateway's own services may have.
const OWN_LIMIT: usize = 16 << 10;

/// The service that a health check is about.
async fn checked(form: Form, request: &mut Received, deadline: Instant) -> Result<String, Refusal> {
    let reading = std::pin::pin!(read_one(form, request, OWN_LIMIT));
    let message = poll::within(deadline, reading).await.unwrap_or_else(|_| {
        let why = "the message took too long";
        Err(Refusal::caller(StatusCode::REQUEST_TIMEOUT, why))
    })?;
    let bad = || Refusal::caller(StatusCode::BAD_REQUEST, "this is no HealthCheckRequest");
    grpc::checked(&message).ok_or_else(bad)
}

/// A conversation with a client of reflection: an answer to each message, until its deadline.
struct Exchange {
    incoming: Option<Incoming>,
    came: BytesMut,
    gzip: bool,
    reflected: Reflected,
    deadline: Pin<Box<Sleep>>,
    has_ended: bool,
    app: String,
}

impl Exchange {
    /// The next message of the client; nothing when it sends no more.
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Refusal>> {
        loop {
            if let Some(message) = next_message(&mut self.came, OWN_LIMIT, self.gzip)? {
                return Poll::Ready(Ok(Some(message)));
            }
            if self.deadline.as_mut().poll(context).is_ready() {
                let why = "the conversation took longer than a request may";
                let late = Refusal::new(StatusCode::GATEWAY_TIMEOUT, Blame::Host, why);
                return Poll::Ready(Err(late));
            }
            let Some(incoming) = &mut self.incoming else {
                let why = "the request ends within a message";
                let cut = Refusal::caller(StatusCode::BAD_REQUEST, why);
                let is_whole = self.came.is_empty();
                return Poll::Ready(if is_whole { Ok(None) } else { Err(cut) });
            };
            match Pin::new(incoming).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.came.extend_from_slice(&data);
                    }
                }
                Poll::Ready(Some(Err(_)) | None) => self.incoming = None,
            }
        }
    }
}

impl Body for Exchange {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let message = match self.poll_message(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(message) => message,
        };
        let answer = message.and_then(|message| {
            let bad = || {
                Refusal::caller(
                    StatusCode::BAD_REQUEST,
                    "this is no ServerReflectionRequest",
                )
            };
            let answer = message.map(|message| self.reflected.answer(&message).ok_or_else(bad));
            answer.transpose()
        });
        let frame = match answer {
            Ok(Some(answer)) => Frame::data(framed(0, &answer)),
            Ok(None) => {
                self.has_ended = true;
                Frame::trailers(trailers(Code::Ok))
            }
            Err(refusal) => {
                self.has_ended = true;
                let mut trailers = HeaderMap::new();
                refuse(&mut trailers, &refusal, &self.app);
                Frame::trailers(trailers)
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended
    }
}
