//! The page of an admin address: three files of its own, which read the routes that everybody can use.

use http::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use http::{HeaderValue, Method};

use super::Answer;
use crate::gateway::answer::Payload;
use crate::gateway::connection::Received;

/// Nothing from anywhere else, and nothing that is written into the page.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

const HTML: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
pub(crate) const OPENAPI: &str = include_str!("page/openapi.json");

/// The file that a request is for: that of `/` where it accepts HTML, which programs do not ask for. They
/// say nothing of any app, so they are there without a token, which the page asks for.
pub(super) fn find(request: &Received) -> Option<Answer> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return None;
    }
    let (kind, text) = match request.uri().path() {
        "/" if accepts_html(request) => ("text/html; charset=utf-8", HTML),
        "/page.css" => ("text/css; charset=utf-8", STYLE),
        "/page.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "/openapi.json" => ("application/json", OPENAPI),
        _ => return None,
    };
    let mut answer = Answer::new(Payload::whole(text.into()));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Some(answer)
}

fn accepts_html(request: &Received) -> bool {
    let mut accepted = request.headers().get_all(ACCEPT).into_iter();
    accepted.any(|value| {
        let text = value.to_str().unwrap_or_default();
        text.split(',')
            .any(|kind| kind.trim_start().starts_with("text/html"))
    })
}
