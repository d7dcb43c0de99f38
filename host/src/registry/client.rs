//! How a registry is asked: where it is, logins, where a request is sent on to, and what refusals mean.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use url::Url;

use super::artifact::MAX_SMALL;
use super::error::{LoginError, RegistryError};
use super::http::{Failure, Http, ReadError, Sent, is_loopback, read_all};
use super::login::{Challenge, Login, bearer};
use crate::interfaces::http::tls;
use crate::manifest::Reference;
use crate::text::one_line;

/// Places that a request is sent on to, one after the other.
const MAX_REDIRECTS: usize = 5;

/// Bytes of what a registry says of an error.
const MAX_SAID: usize = 200;

/// Where requests for the registry of docker go.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// A client of registries, with what it knows of each.
pub(super) struct Client {
    http: Http,
    /// Registries besides those of this machine that are reached without TLS.
    insecure: Vec<String>,
    origins: Mutex<BTreeMap<String, Url>>,
    /// By registry and repository.
    entries: Mutex<BTreeMap<(String, String), Entry>>,
}

/// How a repository is entered.
#[derive(Clone, Default)]
struct Entry {
    header: Option<HeaderValue>,
    /// Whether there is a login behind it.
    known: bool,
    /// Why there is no login.
    failure: Option<String>,
}

/// A request.
pub(super) struct Ask<'a> {
    of: &'a Reference,
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Sent,
    /// What it is for, in words.
    what: String,
    push: bool,
}

impl Client {
    /// # Errors
    ///
    /// TLS cannot be set up.
    pub(super) fn new(insecure: Vec<String>) -> Result<Self, Failure> {
        Ok(Self {
            http: Http::new(tls::config()?),
            insecure,
            origins: Mutex::default(),
            entries: Mutex::default(),
        })
    }

    /// Asks, and takes every other status for an error.
    pub(super) async fn ask_for(
        &self,
        ask: Ask<'_>,
        expected: &[StatusCode],
    ) -> Result<Response<Incoming>, RegistryError> {
        let response = self.ask(&ask).await?;
        if expected.contains(&response.status()) {
            return Ok(response);
        }
        Err(self.refuse(&ask, response).await)
    }

    /// Asks, logs in where that is wanted, and follows where a question is sent on to.
    async fn ask(&self, ask: &Ask<'_>) -> Result<Response<Incoming>, RegistryError> {
        let own = self.origin(ask.of).await?;
        let mut url = ask.url.clone();
        let (mut entered, mut redirects) = (false, 0);
        loop {
            self.may_go(&own, &url)?;
            // Wherever else it is sent, a login is none of that host's business.
            let is_own = url.origin() == own.origin();
            let header = self.entry(ask.of).header.filter(|_| is_own);
            let response = self.send(ask, &url, header).await?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && is_own && !entered {
                entered = true;
                if self.enter(ask, &own, response.headers()).await? {
                    continue;
                }
            }
            if !status.is_redirection() || ask.method != Method::GET {
                return Ok(response);
            }
            redirects += 1;
            if redirects > MAX_REDIRECTS {
                let why = format!("more than {MAX_REDIRECTS} other places, one after the other");
                return Err(malformed(ask.of, ask.what.clone(), why));
            }
            url = location(ask.of, &url, response.headers())?;
        }
    }

    async fn send(
        &self,
        ask: &Ask<'_>,
        url: &Url,
        login: Option<HeaderValue>,
    ) -> Result<Response<Incoming>, RegistryError> {
        let mut request = Request::new(ask.body.clone());
        let uri = url.as_str().parse();
        let not_asked =
            |error: http::uri::InvalidUri| malformed(ask.of, ask.what.clone(), error.to_string());
        *request.uri_mut() = uri.map_err(not_asked)?;
        *request.method_mut() = ask.method.clone();
        let headers = request.headers_mut();
        headers.extend(ask.headers.clone());
        let agent = concat!("wasmbay/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        if let Some(login) = login {
            headers.insert(AUTHORIZATION, login);
        }
        let answered = self.http.exchange(request).await;
        answered.map_err(|source| RegistryError::Unreachable {
            host: host(url),
            source,
        })
    }

    /// Gets what a registry asks for; returns whether asking again can help.
    async fn enter(
        &self,
        ask: &Ask<'_>,
        own: &Url,
        headers: &HeaderMap,
    ) -> Result<bool, RegistryError> {
        let Some(challenge) = Challenge::of(headers) else {
            return Ok(false);
        };
        let registry = ask.of.registry().to_owned();
        // A helper is a program of its own that may take its time.
        let login = tokio::task::spawn_blocking(move || Login::of(&registry)).await;
        let (login, failure) = match login {
            Ok(Ok(login)) => (login, None),
            // Without it, it may be public all the same.
            Ok(Err(LoginError(why))) => (None, Some(why)),
            Err(error) => (None, Some(error.to_string())),
        };
        let mut entry = Entry {
            header: None,
            known: login.is_some(),
            failure,
        };
        match challenge {
            Challenge::Basic => entry.header = login.and_then(|login| login.basic()),
            Challenge::Bearer {
                realm,
                service,
                scope,
            } => {
                let realm = own.join(&realm);
                let realm = realm
                    .map_err(|error| malformed(ask.of, ask.what.clone(), error.to_string()))?;
                self.may_go(own, &realm)?;
                let scope = scope.unwrap_or_else(|| {
                    let actions = if ask.push { "pull,push" } else { "pull" };
                    format!("repository:{}:{actions}", ask.of.repository())
                });
                let mut asked = vec![("scope", scope)];
                asked.extend(service.map(|service| ("service", service)));
                entry.header = self.token(ask, realm, asked, login).await?;
            }
        }
        let enters = entry.header.is_some();
        let key = key(ask.of);
        self.entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, entry);
        Ok(enters)
    }

    /// A token for this, from who issues them; nothing if there is none to be had with this login.
    async fn token(
        &self,
        ask: &Ask<'_>,
        realm: Url,
        asked: Vec<(&str, String)>,
        login: Option<Login>,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let what = format!("a token for {}", ask.of.repository());
        let (mut url, mut token) = (realm.clone(), Ask::get(ask.of, realm, what.clone()));
        let mut header = None;
        if let Some(Login::Refresh(refresh)) = login {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.extend_pairs(asked);
            form.extend_pairs([("grant_type", "refresh_token"), ("client_id", "wasmbay")]);
            form.append_pair("refresh_token", &refresh);
            token.method = Method::POST;
            token.body = Sent::new(form.finish(), None);
            token = token.with(CONTENT_TYPE, "application/x-www-form-urlencoded");
        } else {
            url.query_pairs_mut().extend_pairs(asked);
            header = login.and_then(|login| login.basic());
        }
        let response = self.send(&token, &url, header).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                return Ok(None);
            }
            _ => return Err(self.refuse(&token, response).await),
        }
        let issued = read_all(response.into_body(), MAX_SMALL).await;
        let issued = issued.map_err(|error| unread(ask.of, what.clone(), MAX_SMALL, error))?;
        let header = bearer(&issued);
        header
            .map(Some)
            .ok_or_else(|| malformed(ask.of, what, "something else".to_owned()))
    }

    /// What an answer means that is no success.
    async fn refuse(&self, ask: &Ask<'_>, response: Response<Incoming>) -> RegistryError {
        let status = response.status();
        let after = response.headers().get(RETRY_AFTER);
        let after = after.and_then(|after| after.to_str().ok()?.parse().ok());
        let body = read_all(response.into_body(), MAX_SMALL).await;
        let says = said(&body.unwrap_or_default());
        let (registry, repository) = key(ask.of);
        match status {
            StatusCode::UNAUTHORIZED => {
                let entry = self.entry(ask.of);
                RegistryError::Unauthorized {
                    registry,
                    repository,
                    known: entry.known,
                    source: entry.failure.map(LoginError),
                }
            }
            StatusCode::FORBIDDEN => RegistryError::Denied {
                registry,
                repository,
                push: ask.push,
                says,
            },
            StatusCode::NOT_FOUND => RegistryError::NotFound {
                registry,
                what: ask.what.clone(),
            },
            StatusCode::TOO_MANY_REQUESTS => RegistryError::RateLimited {
                registry,
                repository,
                after: after.map(Duration::from_secs),
            },
            _ => RegistryError::Status {
                registry,
                status: status.as_u16(),
                what: ask.what.clone(),
                says,
            },
        }
    }

    fn entry(&self, of: &Reference) -> Entry {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(&key(of)).cloned().unwrap_or_default()
    }

    /// The address of something in a repository.
    pub(super) async fn url(&self, of: &Reference, path: &[&str]) -> Result<Url, RegistryError> {
        let mut url = self.origin(of).await?;
        let path = path.join("/");
        url.set_path(&format!("/v2/{}/{path}", of.repository()));
        Ok(url)
    }

    /// Where a registry is. One that may do without TLS is asked whether it does.
    async fn origin(&self, of: &Reference) -> Result<Url, RegistryError> {
        let registry = of.registry();
        let known = self
            .origins
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(registry)
            .cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let (hub, of_hub) = DOCKER_HUB;
        let at = if registry == hub { of_hub } else { registry };
        let origin = |scheme: &str| {
            let url = Url::parse(&format!("{scheme}://{at}/"));
            url.map_err(|error| malformed(of, of.to_string(), error.to_string()))
        };
        let mut url = origin("https")?;
        if self.is_insecure(at) {
            let probe = Ask::get(of, url.join("/v2/").unwrap_or(url.clone()), of.to_string());
            if let Err(error) = self.send(&probe, &probe.url, None).await {
                let distrusts = |error: &_| matches!(error, rustls::Error::InvalidCertificate(_));
                if error.tls().is_some_and(distrusts) {
                    return Err(error);
                }
                url = origin("http")?;
            }
        }
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        origins.insert(registry.to_owned(), url.clone());
        Ok(url)
    }

    /// Whether a host, with its port, may be reached without TLS.
    fn is_insecure(&self, host: &str) -> bool {
        is_loopback(host) || self.insecure.iter().any(|insecure| insecure == host)
    }

    /// Nothing goes without TLS from a registry that has it, nor to a host where nobody asked for that.
    fn may_go(&self, own: &Url, url: &Url) -> Result<(), RegistryError> {
        let is_plain = own.scheme() == "http" && url.scheme() == "http";
        if url.scheme() == "https" || is_plain && self.is_insecure(&host(url)) {
            return Ok(());
        }
        Err(RegistryError::Insecure { host: host(url) })
    }
}

impl<'a> Ask<'a> {
    pub(super) fn get(of: &'a Reference, url: Url, what: String) -> Self {
        Self {
            of,
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Sent::default(),
            what,
            push: false,
        }
    }

    /// A request that changes what is there.
    pub(super) fn push(of: &'a Reference, method: Method, url: Url, body: Sent) -> Self {
        Self {
            method,
            body,
            push: true,
            ..Self::get(of, url, of.to_string())
        }
    }

    pub(super) fn with(mut self, header: http::HeaderName, value: &'static str) -> Self {
        self.headers.insert(header, HeaderValue::from_static(value));
        self
    }
}

fn key(of: &Reference) -> (String, String) {
    (of.registry().to_owned(), of.repository().to_owned())
}

/// The host of an address, with its port unless that is the usual one.
fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

pub(super) fn location(
    of: &Reference,
    asked: &Url,
    headers: &HeaderMap,
) -> Result<Url, RegistryError> {
    let location = headers
        .get(LOCATION)
        .and_then(|location| location.to_str().ok());
    let url = location.and_then(|location| asked.join(location).ok());
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(|| malformed(of, of.to_string(), "no place to go on to".to_owned()))
}

pub(super) fn malformed(of: &Reference, what: String, why: String) -> RegistryError {
    RegistryError::Malformed {
        registry: of.registry().to_owned(),
        what,
        why,
    }
}

pub(super) fn unread(of: &Reference, what: String, limit: u64, error: ReadError) -> RegistryError {
    let registry = of.registry().to_owned();
    match error {
        ReadError::TooLarge => RegistryError::TooLarge {
            registry,
            what,
            limit,
        },
        ReadError::Failed(source) => RegistryError::Unreachable {
            host: registry,
            source,
        },
    }
}

/// What a registry says of an error.
fn said(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Said {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let said = serde_json::from_slice::<Said>(body).ok();
    let first = said.and_then(|said| said.errors.into_iter().next());
    let text = first.map(|one| {
        if one.message.is_empty() {
            one.code
        } else {
            one.message
        }
    });
    one_line(&text.unwrap_or_default(), MAX_SAID).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_goes_without_tls_where_nobody_asked_for_that() {
        let client = Client::new(vec!["plain.example:5000".to_owned()]).unwrap();
        let may_go = |own: &str, to: &str| {
            let [own, to] = [own, to].map(|url| Url::parse(url).unwrap());
            client.may_go(&own, &to).is_ok()
        };
        let (plain, local) = ("http://plain.example:5000", "http://127.0.0.1:5000");
        let (secure, other) = ("https://registry.example", "http://registry.example");
        for (own, to) in [
            (plain, local),
            (local, plain),
            (plain, secure),
            (secure, secure),
        ] {
            assert!(may_go(own, to), "{own} {to}");
        }
        for (own, to) in [
            (secure, local),
            (secure, plain),
            (secure, other),
            (plain, other),
            (plain, "http://plain.example"),
            (plain, "ftp://plain.example:5000"),
        ] {
            assert!(!may_go(own, to), "{own} {to}");
        }
    }
}
