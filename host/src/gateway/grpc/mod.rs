//! Requests of gRPC: framing, compression, deadlines and trailers around the calls that RPC paths make.
//!
//! Names, messages and codes are the business of [`crate::grpc`]. A request ends as one of an RPC path does, in
//! a [`Refusal`] where there is no result; that becomes a status here.

mod answers;
mod frame;
mod health;
mod own;
mod web;

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, StatusCode, Version};
use tokio::time::Instant;

pub(super) use answers::http_status;
pub(super) use health::{Apps, Health};
pub(super) use own::{Own, answer_own, own};
pub(super) use web::is_preflight;

use super::answer::{Answer, Refusal};
use super::client::{key_of, not_from_elsewhere};
use super::connection::{Activity, Received};
use super::cors::Cors;
use super::rate::Told;
use super::route::{Destination, Rpc, not_allowed};
use super::sender::Sender;
use super::{Front, Table, origin};
use crate::call::{Call, CallError};
use crate::grpc::CodecError;
use crate::json::{self, Limits, UnknownKeys};
use crate::poll;
use crate::shape::Shape;
use crate::text::shown;
use crate::value::Value;
use answers::{failed, succeeded};
use frame::{check_trailers, read_one, takes_gzip, timeout};
use own::own_at;
use web::Form;

/// The name of all methods in the access log.
pub(super) const LABEL: &str = "/{package.Service}/{Method}";

/// Whether a request says that it is one of gRPC.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    content_type(headers).is_some()
}

/// What follows `application/grpc` in the content type.
fn content_type(headers: &HeaderMap) -> Option<&str> {
    const START: &str = "application/grpc";
    let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let (start, rest) = kind.split_at_checked(START.len())?;
    start.eq_ignore_ascii_case(START).then_some(rest)
}

/// Who makes a request.
pub(super) struct Asker<'t> {
    /// Where it comes from.
    pub(super) sender: &'t Sender,
    pub(super) activity: &'t Arc<Activity>,
    /// What the answer says of how much it may ask.
    pub(super) told: &'t mut Told,
}

/// Refuses what is no gRPC that can be answered as gRPC, and returns the form in which it is answered.
fn check(request: &Received, cors: Option<&Cors>) -> Result<Form, Refusal> {
    let kind = content_type(request.headers()).unwrap_or_default();
    let Some(form) = Form::of(kind) else {
        let why = format!(
            "gRPC is taken as application/grpc, application/grpc-web or application/grpc-web-text, each with +proto or without, not application/grpc{}",
            shown(kind)
        );
        return Err(Refusal::caller(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    };
    if form == Form::Grpc && request.version() < Version::HTTP_2 {
        let why = "gRPC is taken over HTTP/2 only, gRPC-Web over HTTP/1.1, too";
        return Err(Refusal::caller(StatusCode::HTTP_VERSION_NOT_SUPPORTED, why));
    }
    if request.method() != Method::POST {
        return Err(not_allowed("POST"));
    }
    origin::check(request, cors)?;
    Ok(form)
}

impl Front {
    /// Whether a request of gRPC is answered here, not by an HTTP component that has its path.
    pub(super) fn is_for_grpc(&self, table: &Table, method: &Method, path: &str) -> bool {
        let is_http = || matches!(table.find(method, path), Destination::Http(_));
        own_at(path).is_some() || self.gateway.api(table).method(path).is_some() || !is_http()
    }

    /// Answers a request of gRPC.
    ///
    /// # Errors
    ///
    /// It cannot be answered as one.
    pub(super) async fn answer_grpc(
        &self,
        table: &Table,
        path: &str,
        asker: &mut Asker<'_>,
        request: &mut Received,
        call: Call,
    ) -> Result<Answer, Refusal> {
        if let Some(own) = own(request.headers(), path) {
            let deadline = call.deadline.into();
            let (gateway, link) = (Arc::clone(&self.gateway), self.link.clone());
            let health = Health {
                closing: gateway.closing.subscribe(),
                watchers: Arc::clone(&gateway.watchers),
                apps: Box::new(move || Apps {
                    open: true,
                    all: vec![(Arc::clone(&gateway), link.clone())],
                }),
            };
            let parts = [(self, table)];
            return Ok(answer_own(own, &parts, health, asker, request, deadline).await);
        }
        let form = check(request, self.gateway.cors.as_ref())?;
        let gzip = takes_gzip(request.headers());
        let answer = self
            .call_grpc(table, path, asker, (form, request), call)
            .await;
        Ok(form.write(match answer {
            Ok(message) => succeeded(message, gzip).await,
            Err(refusal) => failed(&refusal, &self.gateway.app),
        }))
    }

    /// Lets in who may call functions, and returns what services get to know of the client.
    async fn admit_grpc(
        &self,
        table: &Table,
        asker: &mut Asker<'_>,
        headers: &HeaderMap,
    ) -> Result<Option<Arc<str>>, Refusal> {
        if !asker.sender.is_local && table.is_rpc_local() {
            return Err(not_from_elsewhere());
        }
        self.admit(&table.access, headers, asker.sender, asker.told)
            .await
    }

    /// Makes the call of a unary method.
    async fn call_grpc(
        &self,
        table: &Table,
        path: &str,
        asker: &mut Asker<'_>,
        (form, request): (Form, &mut Received),
        mut call: Call,
    ) -> Result<Vec<u8>, Refusal> {
        call.claims = self.admit_grpc(table, asker, request.headers()).await?;
        let api = self.gateway.api(table);
        let found = api
            .method(path)
            .and_then(|method| Some((method, table.rpc(&method.function)?)));
        let Some((method, Rpc { way, .. })) = found else {
            let why = format!(
                "no method has the path {}; reflection lists those that are served",
                shown(path)
            );
            return Err(Refusal::caller(StatusCode::NOT_IMPLEMENTED, why));
        };
        if let Some(timeout) = timeout(request.headers())? {
            call.deadline = call.deadline.min(call.arrived + timeout);
        }
        let limit = self.gateway.spec.body;
        let message = self
            .one_message(form, request, call.deadline.into())
            .await?;
        let arguments = method.decode_request(&message, limit).map_err(bad)?;
        // What comes of it has the bound of NATS and of the service.
        let limits = Limits {
            bytes: usize::MAX,
            ..Limits::default()
        };
        let body = json::encode_arguments(&arguments, &method.signature, &limits);
        call.body = body.map_err(|error| bad_json(&error))?.into();
        call.identity = key_of(way, request.headers(), call.claims.as_deref())?;
        // A newer version of the service may answer with fields that are not known here.
        let tolerant = Limits {
            unknown_keys: UnknownKeys::Ignore,
            ..limits
        };
        let result = match self.send(way, call).await? {
            Some(reply) => json::decode_result(&reply, &method.signature, &tolerant)
                .map_err(|error| CallError::bad_reply(format!("{}: {error}", method.function)))?,
            // An event that was published; it has no result but that.
            None => match method.signature.result {
                Some(Shape::Result { .. }) => Some(Value::Result(Ok(None))),
                _ => None,
            },
        };
        let message = method.encode_response(result, limit);
        message.map_err(|error| {
            let why = format!("{}: the response: {error}", method.function);
            match error.too_large {
                true => CallError::result_too_large(why).into(),
                false => CallError::bad_reply(why).into(),
            }
        })
    }

    /// The one message of a request.
    async fn one_message(
        &self,
        form: Form,
        request: &mut Received,
        deadline: Instant,
    ) -> Result<Bytes, Refusal> {
        check_trailers(form, request.headers())?;
        let limit = self.gateway.spec.body;
        let reading = std::pin::pin!(read_one(form, request, limit));
        let read = poll::within(deadline, reading).await;
        read.unwrap_or_else(|_| Err(self.too_late()))
    }
}

fn bad(error: CodecError) -> Refusal {
    let status = match error.too_large {
        true => StatusCode::PAYLOAD_TOO_LARGE,
        false => StatusCode::BAD_REQUEST,
    };
    Refusal::caller(status, error.to_string())
}

fn bad_json(error: &json::JsonError) -> Refusal {
    let status = match error.is_too_large() {
        true => StatusCode::PAYLOAD_TOO_LARGE,
        false => StatusCode::BAD_REQUEST,
    };
    Refusal::caller(status, error.to_string())
}
