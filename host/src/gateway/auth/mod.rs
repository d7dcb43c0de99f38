//! Who a client is, and whether it may have what it asks for.
//!
//! What each part of a gateway asks for is its [`Access`], which is made with the table of routes. An
//! [`Authenticator`] reads the credentials of a request and nothing else of it, so any way in can ask
//! it. Where nothing is asked for, a request costs the look at that.

mod certificate;
mod crypto;
mod fetch;
mod jwks;
mod jwt;
mod keys;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::sync::Notify;

use super::answer::Refusal;
use super::rate::{Limiter, Limiters};
use crate::call::Blame;
use crate::claims::Proof;
use crate::manifest::{Auth, AuthSpec, GatewaySpec, Route};
pub(super) use certificate::Certificate;
use jwt::Tokens;
use keys::{Found, Keys};

static API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// How often keys are looked after.
const TICK: Duration = Duration::from_secs(1);

/// What a part of a gateway asks of its clients.
#[derive(Clone, Default)]
pub(crate) struct Access {
    auth: Auth,
    scopes: Vec<String>,
    /// How many requests a client may make.
    pub(super) limit: Option<Arc<Limiter>>,
}

/// A client that has shown who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) proof: Proof,
    /// The `sub` of its token, the name of its key, the subject of its certificate.
    pub(crate) subject: Option<Arc<str>>,
    scopes: Vec<String>,
    /// As services get it.
    pub(crate) claims: Arc<str>,
}

#[cfg(test)]
impl Client {
    pub(super) fn for_test(proof: Proof, subject: &str, claims: &str) -> Self {
        let written = crate::claims::Claims {
            auth: proof,
            subject: Some(subject.into()),
            scopes: Vec::new(),
            claims: serde_json::from_str(claims).unwrap(),
        };
        Self {
            proof,
            subject: Some(subject.into()),
            scopes: Vec::new(),
            claims: written.write().unwrap(),
        }
    }
}

/// Why a client is not let in.
#[derive(Debug, PartialEq, Eq)]
enum Denied {
    /// It shows nothing of what is taken.
    Missing,
    /// What it shows is not valid.
    Invalid(String),
    /// What it shows cannot be checked.
    Unready(&'static str),
}

/// Checks the credentials of clients.
pub(crate) struct Authenticator {
    realm: String,
    tokens: Option<Tokens>,
    keys: Option<Keys>,
    /// Whether it has a keeper.
    kept: AtomicBool,
    wake: Arc<Notify>,
}

impl Access {
    /// What is asked for where no route says otherwise.
    ///
    /// The routes are those of the app that is deployed, and the gateway may still be that of the one before: a
    /// route of an app that asks its clients is never open meanwhile, but answered with 503.
    pub(crate) fn usual<'s>(
        spec: &'s GatewaySpec,
        deployed: Option<&'s GatewaySpec>,
        limiters: &Limiters,
    ) -> Self {
        let asking = |spec: &'s GatewaySpec| {
            let auth = spec.auth.as_ref();
            auth.filter(|auth| auth.default != Auth::None)
        };
        let asked = asking(spec).or_else(|| deployed.and_then(asking));
        let rate = spec.rate.as_ref();
        Self {
            auth: asked.map(|asked| asked.default).unwrap_or_default(),
            scopes: asked.map(|asked| asked.scopes.clone()).unwrap_or_default(),
            limit: rate.map(|rate| limiters.get("", rate)),
        }
    }

    /// What a route asks for.
    pub(crate) fn of(&self, route: &Route, limiters: &Limiters) -> Self {
        let limit = route.rate.as_ref();
        let limit = limit.map(|rate| limiters.get(&route.label(), rate));
        Self {
            auth: route.auth.unwrap_or(self.auth),
            scopes: match route.asks_itself() {
                true => route.scopes.clone(),
                false => self.scopes.clone(),
            },
            limit: limit.or_else(|| self.limit.clone()),
        }
    }
}

/// Polls a keeper, if there is one; ends when that does.
pub(super) async fn kept(keeper: Option<impl Future<Output = ()>>) {
    match keeper {
        Some(keeper) => keeper.await,
        None => std::future::pending().await,
    }
}

impl Authenticator {
    pub(crate) fn new(app: &str, spec: Option<&AuthSpec>) -> Self {
        let wake = Arc::new(Notify::new());
        let jwt = spec.and_then(|spec| spec.jwt.as_ref());
        let keys = spec.filter(|spec| spec.has_keys());
        Self {
            realm: app.to_owned(),
            tokens: jwt.map(|jwt| Tokens::new(jwt, Arc::clone(&wake))),
            keys: keys.map(Keys::new),
            kept: AtomicBool::new(false),
            wake,
        }
    }

    /// Has the keys fetched and read for as long as this exists: to be polled by one task. `None` if there is
    /// nothing to look after, or somebody does.
    pub(crate) fn keeper(self: &Arc<Self>) -> Option<impl Future<Output = ()> + Send + use<>> {
        let has_work = self.tokens.is_some() || self.keys.is_some();
        if !has_work || self.kept.swap(true, Ordering::Relaxed) {
            return None;
        }
        let (this, wake) = (Arc::downgrade(self), Arc::clone(&self.wake));
        Some(async move {
            while let Some(this) = Weak::upgrade(&this) {
                if let Some(keys) = &this.keys {
                    keys.keep();
                }
                if let Some(tokens) = &this.tokens {
                    tokens.jwks.keep().await;
                }
                drop(this);
                let _ = tokio::time::timeout(TICK, wake.notified()).await;
            }
        })
    }

    /// The client, if it may have what asks for this. Where nothing is asked for, that of the certificate, if one
    /// was shown.
    ///
    /// # Errors
    ///
    /// 401 for a client that does not show who it is, 403 for one that may not, 503 where that cannot be
    /// checked.
    pub(crate) async fn admit(
        &self,
        access: &Access,
        headers: &HeaderMap,
        certificate: &Certificate,
    ) -> Result<Option<Client>, Refusal> {
        let client = match access.auth {
            Auth::None => return Ok(certificate.client().ok().cloned()),
            Auth::Cert => certificate.client().cloned(),
            // Boxed, so that requests that need none of it do not carry its state about.
            auth => Box::pin(self.identify(auth, headers)).await,
        };
        let client = client.map_err(|denied| self.refusal(access, denied))?;
        match access
            .scopes
            .iter()
            .find(|scope| !client.scopes.contains(scope))
        {
            None => Ok(Some(client)),
            Some(missing) => Err(self.forbidden(access, &client, missing)),
        }
    }

    async fn identify(&self, auth: Auth, headers: &HeaderMap) -> Result<Client, Denied> {
        // Until the next start a running host may not know what a newer manifest asks for.
        let unknown = Denied::Unready("this host does not know how clients are to be checked");
        let token = bearer(headers)?.filter(|_| auth.takes_jwt());
        if let Some(token) = token {
            let tokens = self.tokens.as_ref().ok_or(unknown)?;
            return tokens.check(token).await;
        }
        let key = headers.get(&API_KEY).filter(|_| auth.takes_key());
        let Some(key) = key else {
            return Err(Denied::Missing);
        };
        let keys = self.keys.as_ref().ok_or(unknown)?;
        match keys.find(key.as_bytes()) {
            Found::Client(client) => Ok(client),
            Found::Unknown => Err(Denied::Invalid("this is no key of a client".to_owned())),
            Found::Unready => Err(Denied::Unready("the file of keys cannot be read")),
        }
    }

    fn refusal(&self, access: &Access, denied: Denied) -> Refusal {
        let (why, is_invalid) = match denied {
            Denied::Unready(why) => {
                return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, Blame::Host, why);
            }
            Denied::Missing => (missing(access.auth).to_owned(), false),
            Denied::Invalid(why) => (why, true),
        };
        let mut refusal = Refusal::caller(StatusCode::UNAUTHORIZED, why);
        if access.auth.takes_jwt() {
            let mut challenge = format!("Bearer realm=\"{}\"", self.realm);
            if is_invalid {
                challenge += ", error=\"invalid_token\"";
            }
            refusal.add(WWW_AUTHENTICATE, &challenge);
        }
        if access.auth.takes_key() {
            let challenge = format!("ApiKey realm=\"{}\"", self.realm);
            refusal.add(WWW_AUTHENTICATE, &challenge);
        }
        if access.auth == Auth::Cert {
            let challenge = format!("Certificate realm=\"{}\"", self.realm);
            refusal.add(WWW_AUTHENTICATE, &challenge);
        }
        refusal
    }

    fn forbidden(&self, access: &Access, client: &Client, missing: &str) -> Refusal {
        let what = match client.proof {
            Proof::Jwt => "token",
            Proof::Key => "key",
            Proof::Certificate => "certificate",
        };
        let why = format!("the {what} does not allow `{missing}`");
        let mut refusal = Refusal::caller(StatusCode::FORBIDDEN, why);
        if client.proof == Proof::Jwt {
            let (realm, scopes) = (&self.realm, access.scopes.join(" "));
            let challenge = format!(
                "Bearer realm=\"{realm}\", error=\"insufficient_scope\", scope=\"{scopes}\""
            );
            refusal.add(WWW_AUTHENTICATE, &challenge);
        }
        refusal
    }
}

/// What a client has to show.
fn missing(auth: Auth) -> &'static str {
    match auth {
        Auth::Key => "an API key is missing: `X-Api-Key: KEY`",
        Auth::Any => {
            "a token or an API key is missing: `Authorization: Bearer TOKEN` or `X-Api-Key: KEY`"
        }
        Auth::Cert => "a client certificate is missing; it is shown when a connection begins",
        Auth::Jwt | Auth::None => "a token is missing: `Authorization: Bearer TOKEN`",
    }
}

/// The token of a request. Another scheme is none.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Denied> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let Some(first) = given.next() else {
        return Ok(None);
    };
    let invalid = |why: &str| Denied::Invalid(why.to_owned());
    if given.next().is_some() {
        return Err(invalid("the header Authorization is there twice"));
    }
    let text = HeaderValue::to_str(first)
        .map_err(|_| invalid("the header Authorization is no plain text"))?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    Ok(is_bearer.then(|| token.trim()))
}
