//! One request: its destination, its trace and deadline, its body within the limits, its answer.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use matchit::Params;
use tokio::time::{Instant, timeout_at};

use super::answer::{Answer, Payload, Refusal, empty, rpc, status};
use super::client::{admit_preflight, is_preflight, key_of, not_from_elsewhere, with_token};
use super::component::FromComponent;
use super::compress::{compress, takes_gzip};
use super::connection::{Activity, Answers, CLOSE, Received, Tasks};
use super::cors::Cors;
use super::health::{healthz, readyz};
use super::origin;
use super::rate::Told;
use super::route::{self, CallRoute, Callee, Destination, Own, Rpc, Way};
use super::sender::Sender;
use super::trace::{REQUEST_ID, TRACEPARENT, describe, failure, read_trace, request_id, trace_id};
use super::{Front, Table, grpc, streams};
use crate::call::{Blame, Call, CallError, Kind, Trace};
use crate::json::{self, Limits};
use crate::poll;
use crate::telemetry;
use crate::text::shown;
use crate::wire;

impl Answers for Front {
    fn timeout(&self) -> Duration {
        self.gateway.spec.timeout
    }

    fn tasks(&self) -> &Weak<Tasks> {
        &self.tasks
    }

    async fn answer(&self, request: &mut Received, activity: &Arc<Activity>) -> Answer {
        let started = Instant::now();
        let running = activity.begin(started);
        let (method, version) = (request.method().clone(), request.version());
        let (trace, parent, span) = read_trace(request.headers(), &self.gateway.tracer, started);
        let path = span.is_sampled().then(|| request.uri().path().to_owned());
        let cors = self.gateway.cors.as_ref();
        let origin = cors.and_then(|cors| cors.origin(request.headers()).cloned());
        let takes_gzip = takes_gzip(request.headers());
        let trusted = self.gateway.spec.trusted_proxies.as_ref();
        let mut beside = Beside {
            id: request_id(request.headers(), &parent),
            told: Told::new(),
            sender: Sender::of(activity, request.headers(), trusted),
        };

        let table = self.gateway.table();
        let (label, result) = self
            .dispatch(
                table.as_deref(),
                request,
                trace,
                started,
                activity,
                &mut beside,
            )
            .await;
        let mut answer = result.unwrap_or_else(Refusal::answer);
        let Beside { id, told, sender } = beside;

        if let Some(least) = self
            .gateway
            .spec
            .compress
            .filter(|_| method != Method::HEAD)
        {
            answer = compress(answer, least, takes_gzip).await;
        }
        let by_component = answer.extensions().get::<FromComponent>().is_some();
        let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(&TRACEPARENT, parent.clone());
        headers.extend(told.into_iter().map(|(name, value)| (Some(name), value)));
        if let Some(cors) = cors.filter(|_| !by_component) {
            cors.tell(origin.as_ref(), headers);
        }
        if version < Version::HTTP_2 && self.gateway.is_closing() && !switches {
            headers.insert(CONNECTION, CLOSE);
        }
        if method == Method::HEAD {
            answer = without_body(answer, &self.tasks);
        }
        answer.body_mut().hold(running);
        let duration = started.elapsed();
        let shown = grpc::http_status(&answer);
        let status = shown.as_u16();
        span.end(failure(status), || {
            describe(&method, label, path.as_deref(), status, &id, &sender)
        });
        let counts = &self.gateway.counts;
        counts.record(label, &method, shown, duration);
        tracing::info!(
            target: telemetry::GATEWAY,
            %method,
            route = label,
            status,
            ?duration,
            client = %sender.address,
            trace = trace_id(&parent),
            id = id.to_str().unwrap_or_default(),
            "request"
        );
        answer.headers_mut().insert(&REQUEST_ID, id);
        answer
    }
}

impl Front {
    /// Sends the request to its destination; also returns the route's name.
    async fn dispatch<'t>(
        &self,
        table: Option<&'t Table>,
        request: &mut Received,
        trace: Trace,
        started: Instant,
        activity: &Arc<Activity>,
        beside: &mut Beside,
    ) -> (&'t str, Result<Answer, Refusal>) {
        let deadline = started + self.gateway.spec.timeout;
        let call = Call {
            body: Bytes::new(),
            arrived: started.into_std(),
            deadline: deadline.into_std(),
            hops: 0,
            caller: None,
            trace,
            claims: None,
            identity: None,
            kind: Kind::Request,
        };
        let uri = request.uri().clone();
        let path = route::normalized(uri.path());
        let Some(table) = table else {
            return match route::own(request.method(), &path) {
                Some(Ok(Own::Healthz)) => (route::HEALTHZ, Ok(healthz())),
                Some(Ok(Own::Readyz)) => {
                    let answer = Box::pin(readyz(&self.gateway, None, &self.link));
                    (route::READYZ, Ok(answer.await))
                }
                _ => (route::NO_ROUTE, Err(not_yet())),
            };
        };
        if grpc::is_grpc(request.headers()) && self.is_for_grpc(table, request.method(), &path) {
            let mut client = grpc::Asker {
                sender: &beside.sender,
                activity,
                told: &mut beside.told,
            };
            let answer = Box::pin(self.answer_grpc(table, &path, &mut client, request, call));
            return (grpc::LABEL, answer.await);
        }
        if !beside.sender.is_local && table.is_local_only(&path) {
            return (route::NO_ROUTE, Err(not_from_elsewhere()));
        }
        if let Some(cors) = &self.gateway.cors
            && let Some(asked) = Cors::asked(request.method(), request.headers())
            && (table.find(&asked, &path).calls_function()
                || grpc::is_preflight(request.method(), request.headers())
                    && self.is_for_grpc(table, &asked, &path))
        {
            return (route::PREFLIGHT, Ok(cors.preflight(request.headers())));
        }
        let destination = table.find(request.method(), &path);
        let label = destination.label();
        let answer = self.reach(table, destination, request, call, activity, beside);
        (label, answer.await)
    }

    /// Answers from a destination those who may have it.
    async fn reach(
        &self,
        table: &Table,
        destination: Destination<'_, '_>,
        request: &mut Received,
        mut call: Call,
        activity: &Arc<Activity>,
        beside: &mut Beside,
    ) -> Result<Answer, Refusal> {
        let Beside { id, told, sender } = beside;
        let cors = self.gateway.cors.as_ref();
        let uri = request.uri().clone();
        match destination {
            Destination::Healthz => Ok(healthz()),
            Destination::Readyz => {
                Ok(Box::pin(readyz(&self.gateway, Some(table), &self.link)).await)
            }
            Destination::OpenApi => {
                self.admit(&table.access, request.headers(), sender, told)
                    .await?;
                Ok(self.gateway.openapi(table, sender.is_local))
            }
            Destination::Explorer(file) => Ok(file.answer(request.headers())),
            Destination::Refused(refusal) => Err(refusal),
            Destination::Rpc(function) => {
                origin::check(request, cors)?;
                let admitted = self.admit(&table.access, request.headers(), sender, told);
                call.claims = admitted.await?;
                self.call_rpc(function, request, call).await
            }
            Destination::Call(route, params) => {
                origin::check(request, cors)?;
                let admitted = self.admit(&route.access, request.headers(), sender, told);
                call.claims = admitted.await?;
                self.call_route(route, &params, uri.query(), request, call)
                    .await
            }
            Destination::Events(route, params) => {
                origin::check(request, cors)?;
                let headers = with_token(request, uri.query());
                self.admit(&route.access, &headers, sender, told).await?;
                let from = (activity, sender.address, call.deadline.into());
                let answer = self.follow(route, &params, uri.query(), request, from);
                Box::pin(answer).await
            }
            Destination::Http(route) => {
                if is_preflight(request) {
                    admit_preflight(&route.access, sender, told)?;
                } else {
                    let admitted = self.admit(&route.access, request.headers(), sender, told);
                    call.claims = admitted.await?;
                }
                request.headers_mut().insert(&REQUEST_ID, id.clone());
                sender.tell(request.headers_mut());
                request.extensions_mut().insert(sender.scheme());
                let deadline = call.deadline.into();
                // Boxed, so that calls do not carry its state about.
                let answer = Box::pin(self.hand_over(route, request, call, activity));
                self.in_time(deadline, answer).await
            }
        }
    }

    /// Bounds an answer that has no deadline of its own.
    async fn in_time<T>(
        &self,
        deadline: Instant,
        answer: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let answer = timeout_at(deadline, answer).await;
        answer.unwrap_or_else(|_| Err(self.too_late()))
    }

    pub(super) fn too_late(&self) -> Refusal {
        let why = format!("no answer within {:?}", self.gateway.spec.timeout);
        Refusal::new(StatusCode::GATEWAY_TIMEOUT, Blame::Host, why)
    }

    async fn call_route(
        &self,
        route: &CallRoute,
        params: &Params<'_, '_>,
        query: Option<&str>,
        request: &mut Received,
        mut call: Call,
    ) -> Result<Answer, Refusal> {
        let body = if route.arguments.takes_body() {
            self.read_json(request, call.deadline.into()).await?
        } else {
            Bytes::new()
        };
        call.body = route.arguments.arguments(params, query, body)?;
        call.identity = key_of(&route.way, request.headers(), call.claims.as_deref())?;
        if let Way::Call(callee) = &route.way
            && streams::is_asked(request.headers(), &route.planned.signature)
        {
            return Box::pin(self.stream(route, callee, call)).await;
        }
        match self.send(&route.way, call).await? {
            Some(reply) => route.outcome.answer(&route.planned, reply),
            None => Ok(empty(status(route.planned.status))),
        }
    }

    async fn call_rpc(
        &self,
        function: &Rpc,
        request: &mut Received,
        mut call: Call,
    ) -> Result<Answer, Refusal> {
        call.body = self.read_json(request, call.deadline.into()).await?;
        call.identity = key_of(&function.way, request.headers(), call.claims.as_deref())?;
        let reply = self.send(&function.way, call).await?;
        Ok(reply.map_or_else(|| empty(StatusCode::ACCEPTED), rpc))
    }

    /// Calls, or publishes what is wired as an event: that has no reply. Either ends by the call's
    /// deadline, a call also when its service must have answered.
    pub(super) async fn send(&self, way: &Way, mut call: Call) -> Result<Option<Bytes>, CallError> {
        match way {
            Way::Call(Callee { subject, limit, .. }) => {
                if let Some(limit) = limit {
                    // From now on: the body may have been long in coming.
                    call.deadline = call.deadline.min(std::time::Instant::now() + *limit);
                }
                self.backend.call(subject, call).await.map(Some)
            }
            Way::Publish(publication) => {
                let limits = Limits {
                    bytes: call.body.len(),
                    ..Limits::default()
                };
                let event = publication.check(call, &limits)?;
                self.backend.publish(event).await.map(|()| None)
            }
        }
    }

    async fn read_json(&self, request: &mut Received, deadline: Instant) -> Result<Bytes, Refusal> {
        check_json(request.headers())?;
        // Most bodies come together with their headers and need no timer.
        let reading = pin!(read_body(request.body_mut(), self.gateway.spec.body));
        let read = poll::within(deadline, reading).await;
        let body = read.unwrap_or_else(|_| Err(self.too_late()))?;
        if body.starts_with(json::BYTE_ORDER_MARK) {
            return Ok(body.slice(json::BYTE_ORDER_MARK.len()..));
        }
        Ok(body)
    }
}

/// What goes along with a request, beside its call.
struct Beside {
    /// The id of the request, its client's or the trace's.
    id: HeaderValue,
    /// Further headers of its answer.
    told: Told,
    /// Where it comes from.
    sender: Sender,
}

/// The answer to HEAD: the headers, the length among them, without the body.
pub(crate) fn without_body(answer: Answer, tasks: &Weak<Tasks>) -> Answer {
    let (mut head, mut body) = answer.into_parts();
    match body.size_hint().exact() {
        Some(length) if length > 0 => {
            head.headers.insert(CONTENT_LENGTH, length.into());
        }
        Some(_) => {}
        // A guest that writes the body would get an error if it was not read.
        None => {
            if let Some(tasks) = tasks.upgrade() {
                tasks.spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
            }
        }
    }
    Answer::from_parts(head, Payload::whole(Bytes::new()))
}

fn not_yet() -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        Blame::Host,
        "nothing is served yet",
    )
}

/// Refuses a content type other than plain JSON.
pub(crate) fn check_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let refuse = |what: &str, found: &HeaderValue| {
        let found = String::from_utf8_lossy(found.as_bytes());
        let why = format!("{what}, not {}", shown(&found));
        Err(Refusal::caller(StatusCode::UNSUPPORTED_MEDIA_TYPE, why))
    };
    if let Some(coding) = headers.get(CONTENT_ENCODING)
        && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return refuse("the body must be sent without Content-Encoding", coding);
    }
    let Some(given) = headers.get(CONTENT_TYPE) else {
        return Ok(());
    };
    if wire::is_json(given.to_str().unwrap_or_default()) {
        return Ok(());
    }
    refuse(
        "the body must be JSON (Content-Type: application/json)",
        given,
    )
}

/// Refuses a body whose announced length is above the limit before any of it is read.
pub(super) fn check_length(body: &Incoming, limit: usize) -> Result<(), Refusal> {
    if body.size_hint().lower() > limit as u64 {
        Err(too_large(limit))
    } else {
        Ok(())
    }
}

fn too_large(limit: usize) -> Refusal {
    let why = format!("the body has more than {limit} bytes");
    Refusal::caller(StatusCode::PAYLOAD_TOO_LARGE, why)
}

/// Reads all of a body, and never more than the limit. One that comes in one piece is not copied.
/// What was not read stays.
pub(crate) async fn read_body(body: &mut Option<Incoming>, limit: usize) -> Result<Bytes, Refusal> {
    let Some(incoming) = body else {
        return Ok(Bytes::new());
    };
    check_length(incoming, limit)?;
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                *body = None;
                let why = format!("the body cannot be read: {error}");
                return Err(Refusal::caller(StatusCode::BAD_REQUEST, why));
            }
        };
        // Trailers mean nothing here.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if first.len() + all.len() + data.len() > limit {
            return Err(too_large(limit));
        }
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&data);
    }
    *body = None;
    Ok(if all.is_empty() { first } else { all.freeze() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_is_taken_for_json() {
        let check = |name, value| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            check_json(&headers).map_err(|refusal| refusal.status.as_u16())
        };
        check_json(&HeaderMap::new()).unwrap();
        for kind in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/ld+json",
        ] {
            check(CONTENT_TYPE, kind).unwrap();
        }
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "",
            "json",
        ] {
            assert_eq!(check(CONTENT_TYPE, kind), Err(415), "{kind}");
        }
        assert_eq!(check(CONTENT_ENCODING, "gzip"), Err(415));
        check(CONTENT_ENCODING, "identity").unwrap();
    }
}
