//! Pages of other origins that may call functions (CORS, as the Fetch standard has it).

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::answer::{Answer, empty};
use crate::manifest::CorsSpec;

/// What a page may read of an answer's headers, beside those that it always may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "traceparent, x-request-id, retry-after, ratelimit, ratelimit-policy, www-authenticate, \
     grpc-status, grpc-message, grpc-status-details-bin",
);

const TRUE: HeaderValue = HeaderValue::from_static("true");
const ANY: HeaderValue = HeaderValue::from_static("*");
const ORIGIN_NAME: HeaderValue = HeaderValue::from_static("origin");

/// Which pages may call functions.
pub(crate) struct Cors {
    spec: CorsSpec,
    methods: HeaderValue,
    headers: HeaderValue,
}

impl Cors {
    pub(crate) fn new(spec: &CorsSpec) -> Self {
        let list = |names: &[String]| {
            // Both are checked words of ASCII.
            let text = names.join(", ");
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
        };
        Self {
            methods: list(&spec.methods),
            headers: list(&spec.headers),
            spec: spec.clone(),
        }
    }

    /// The origin of a request, if it is one of those. With more than one it is none.
    pub(super) fn origin<'h>(&self, headers: &'h HeaderMap) -> Option<&'h HeaderValue> {
        let mut given = headers.get_all(ORIGIN).iter();
        let (first, second) = (given.next()?, given.next());
        let text = first.to_str().ok().filter(|_| second.is_none())?;
        let known = |origin: &String| origin == text || origin == "*" && text != "null";
        self.spec.origins.iter().any(known).then_some(first)
    }

    /// Whether a page of one of the origins may send this.
    pub(super) fn allows(&self, method: &Method, headers: &HeaderMap) -> bool {
        let mut methods = self.spec.methods.iter();
        self.origin(headers).is_some() && methods.any(|known| known == method.as_str())
    }

    /// The method that a browser asks for before it sends a request for a page.
    pub(super) fn asked(method: &Method, headers: &HeaderMap) -> Option<Method> {
        let is_preflight = *method == Method::OPTIONS && headers.contains_key(ORIGIN);
        let asked = headers
            .get(ACCESS_CONTROL_REQUEST_METHOD)
            .filter(|_| is_preflight)?;
        Method::from_bytes(asked.as_bytes()).ok()
    }

    /// The answer to what a browser asks before. Whether the page may, it finds out by the headers.
    pub(super) fn preflight(&self, headers: &HeaderMap) -> Answer {
        let mut answer = empty(StatusCode::NO_CONTENT);
        if self.origin(headers).is_some() {
            let own = answer.headers_mut();
            own.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
            own.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.headers.clone());
            own.insert(ACCESS_CONTROL_MAX_AGE, self.spec.max_age.as_secs().into());
        }
        answer
    }

    /// Says in an answer which page may read it.
    pub(super) fn tell(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        let is_any = self.spec.origins.iter().any(|origin| origin == "*");
        if !is_any {
            answer.append(VARY, ORIGIN_NAME);
        }
        let Some(origin) = origin else {
            return;
        };
        let allowed = if is_any { ANY } else { origin.clone() };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        if self.spec.credentials {
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
    }
}
