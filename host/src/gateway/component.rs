//! Requests to HTTP components, streamed both ways.

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::Front;
use super::answer::{Answer, Payload, Refusal};
use super::request::check_length;
use super::route::HttpRoute;
use crate::call::Call;

impl Front {
    /// Hands the request to the component as it came. The guest goes on after the head of its
    /// response, beside the connection, until the service's own deadline.
    pub(super) async fn hand_over(
        &self,
        route: &HttpRoute,
        request: Request<Incoming>,
        call: Call,
    ) -> Result<Answer, Refusal> {
        let limit = self.gateway.spec.body;
        check_length(request.body(), limit)?;
        if request.uri().authority().is_none()
            && !request.headers().contains_key(http::header::HOST)
        {
            return Err(Refusal::caller(
                StatusCode::BAD_REQUEST,
                "the header Host is missing",
            ));
        }
        let request = request.map(|body| {
            Limited::new(body, limit)
                .map_err(move |error| match error.downcast::<hyper::Error>() {
                    Ok(error) => (*error).into(),
                    Err(_) => wasmtime_wasi_http::Error::HttpRequestBodySize(Some(limit as u64)),
                })
                .boxed_unsync()
        });
        let service = &route.service;
        let (response, rest) = service.http(request, call, &self.backend).await?;
        if let Some(tasks) = self.tasks.upgrade() {
            tasks.spawn(async move {
                // The service has logged how it ended, and the client has seen it.
                let _ = rest.await;
            });
        }
        Ok(response.map(Payload::stream))
    }
}
