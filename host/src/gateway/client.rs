//! Who asks: whether a client may, and what services get to know of it.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use hyper::body::Body;
use sha2::{Digest as _, Sha256};

use super::Front;
use super::answer::Refusal;
use super::auth::{Access, Client};
use super::connection::Received;
use super::cors::Cors;
use super::events::in_query;
use super::rate::Told;
use super::route::{Callee, Way};
use super::sender::Sender;
use crate::call::Identity;
use crate::claims::Claims;
use crate::pipelines::is_key;
use crate::text::hex;

// Statics, since a name that is text is checked and hashed anew for each request.
static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

impl Front {
    /// What services get to know of the client of a request, if it may have what asks for this, and has not asked
    /// for too much. Any way in can ask: only the credentials of a request and where it comes from are looked at.
    /// What the answer has to say of it, whatever it is, is `told`.
    pub(super) async fn admit(
        &self,
        access: &Access,
        headers: &HeaderMap,
        sender: &Sender,
        told: &mut Told,
    ) -> Result<Option<Arc<str>>, Refusal> {
        let authenticator = &self.gateway.authenticator;
        let known = authenticator.admit(access, headers, &sender.certificate);
        let Some(limit) = &access.limit else {
            return known.await.map(claims_of);
        };
        limit.before(sender.address, told)?;
        let known = known.await;
        // Who is not let in counts as its address, so guesses are limited, too.
        let client = known.as_ref().ok().and_then(Option::as_ref);
        limit.after(sender.address, client, told)?;
        known.map(claims_of)
    }
}

/// The headers of a request, with the token that its query has: a browser that follows events can send it in no
/// other way.
pub(super) fn with_token<'r>(request: &'r Received, query: Option<&str>) -> Cow<'r, HeaderMap> {
    let headers = request.headers();
    let token = in_query(query, "access_token").filter(|_| !headers.contains_key(AUTHORIZATION));
    let value = token.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok());
    match value {
        None => Cow::Borrowed(headers),
        Some(value) => {
            let mut headers = headers.clone();
            headers.insert(AUTHORIZATION, value);
            Cow::Owned(headers)
        }
    }
}

fn claims_of(client: Option<Client>) -> Option<Arc<str>> {
    client.map(|client| client.claims)
}

/// Whether a browser asks by a request whether a page may send another one. It does so without credentials, and with
/// nothing else than headers.
pub(super) fn is_preflight(request: &Received) -> bool {
    let body = request.body().as_ref();
    Cors::asked(request.method(), request.headers()).is_some()
        && body.is_none_or(Body::is_end_stream)
}

/// Lets through what a browser asks a component, within the limits of its address.
pub(super) fn admit_preflight(
    access: &Access,
    sender: &Sender,
    told: &mut Told,
) -> Result<(), Refusal> {
    if let Some(limit) = &access.limit {
        limit.before(sender.address, told)?;
        limit.after(sender.address, None, told)?;
    }
    Ok(())
}

pub(super) fn not_from_elsewhere() -> Refusal {
    let why = "functions have RPC paths for clients on the gateway's own machine only (`[gateway] rpc` is \"loopback\")";
    Refusal::caller(StatusCode::NOT_FOUND, why)
}

/// The key that a client chose for the run which its request begins: a second request with it is the
/// same run. Of a client that has shown who it is the key is its own, whatever others choose.
pub(super) fn key_of(
    way: &Way,
    headers: &HeaderMap,
    claims: Option<&str>,
) -> Result<Option<Identity>, Refusal> {
    let Way::Call(Callee {
        begins_run: true, ..
    }) = way
    else {
        return Ok(None);
    };
    let Some(key) = headers.get(&IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let key = key.to_str().ok().filter(|key| is_key(key));
    let why = "Idempotency-Key: accepted: 1 to 255 visible ASCII characters";
    let key = key.ok_or_else(|| Refusal::caller(StatusCode::BAD_REQUEST, why))?;
    let Some(claims) = claims.and_then(Claims::read) else {
        return Ok(Some(Identity::Key(key.into())));
    };
    let subject = claims.subject.as_deref().unwrap_or_default();
    let whose = format!("{:?}\n{}\n{subject}\n{key}", claims.auth, subject.len());
    let own = hex(&Sha256::digest(whose));
    Ok(Some(Identity::Key(own.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_of_the_client_that_chose_it() {
        let way = Way::Call(Callee {
            subject: "bay.a".to_owned(),
            limit: None,
            begins_run: true,
        });
        let mut headers = HeaderMap::new();
        headers.insert(&IDEMPOTENCY_KEY, HeaderValue::from_static("order-1"));
        let key = |claims: Option<&str>| match key_of(&way, &headers, claims).unwrap() {
            Some(Identity::Key(key)) => key.to_string(),
            other => panic!("{other:?}"),
        };
        let claims = [
            r#"{"auth":"jwt","subject":"ada"}"#,
            r#"{"auth":"jwt","subject":"bob"}"#,
            r#"{"auth":"key","subject":"ada"}"#,
        ];
        let keys = claims.map(|claims| key(Some(claims)));
        assert_eq!(key(None), "order-1");
        assert!(keys.iter().all(|key| is_key(key) && key != "order-1"));
        assert!(keys[0] != keys[1] && keys[0] != keys[2]);
        // A newer token of the same client is the same client.
        let later = r#"{"auth":"jwt","subject":"ada","scopes":["a"],"claims":{"exp":9}}"#;
        assert_eq!(key(Some(later)), keys[0]);
    }

    #[test]
    fn what_browsers_ask_before_is_a_preflight() {
        let is = |method: &str, headers: &[&'static str]| {
            let mut request = http::Request::builder().method(method);
            for name in headers {
                request = request.header(*name, "PUT");
            }
            is_preflight(&request.body(None).unwrap())
        };
        let both = ["origin", "access-control-request-method"];
        assert!(is("OPTIONS", &both));
        for (method, headers) in [
            ("GET", &both[..]),
            ("POST", &both[..]),
            ("OPTIONS", &both[..1]),
            ("OPTIONS", &both[1..]),
            ("OPTIONS", &[]),
        ] {
            assert!(!is(method, headers), "{method} {headers:?}");
        }
    }
}
