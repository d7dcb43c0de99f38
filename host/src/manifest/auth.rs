//! `[gateway.auth]`: how clients say who they are, and what each part of a gateway asks for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::file::Section;
use super::gateway::{Files, Finding, put_file};
use super::keys::{api_key, auth, gateway, jwt, route};
use super::kinds::{Key, Other};
use super::values::serialize_duration;
use crate::interface::is_label;
use crate::text::{hex, shown, unhex};

/// Upper bound of the keys of one manifest.
const MAX_KEYS: usize = 1_000;

/// Upper bound of the characters of a key's name, and of a scope.
const MAX_WORD: usize = 63;

/// What a request has to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Nothing.
    #[default]
    None,
    /// A JSON Web Token.
    Jwt,
    /// An API key.
    Key,
    /// One of the two.
    Any,
    /// A certificate of the connection.
    Cert,
}

/// How clients say who they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct AuthSpec {
    /// What is asked for where no route says otherwise.
    pub default: Auth,
    /// What a token or key has to allow there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Which tokens are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtSpec>,
    /// The API keys by name.
    #[serde(rename = "key", skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<String, KeySpec>,
    /// A file with further keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

/// Which tokens are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct JwtSpec {
    /// The `iss` of a token.
    pub issuer: String,
    /// The `aud` of a token is one of these; none has to be there where there are none.
    pub audience: Vec<String>,
    /// Where the issuer's keys are.
    pub jwks: JwksSource,
    /// The names of the algorithms, as tokens have them.
    pub algorithms: Vec<String>,
    /// How much clocks may differ.
    #[serde(serialize_with = "serialize_duration")]
    pub skew: Duration,
    /// Time after which the keys are fetched again.
    #[serde(serialize_with = "serialize_duration")]
    pub refresh: Duration,
    /// The claim that has the scopes.
    pub scope_claim: String,
}

/// Where a set of keys is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum JwksSource {
    /// It is fetched from there.
    Url(String),
    /// It is in a file.
    File(PathBuf),
}

/// An API key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeySpec {
    /// The SHA-256 of the key.
    #[serde(serialize_with = "as_digits")]
    pub sha256: [u8; 32],
    /// What it allows.
    pub scopes: Vec<String>,
}

fn as_digits<S: Serializer>(digest: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex(digest))
}

impl Auth {
    /// As it is written, in the order of the key's accepted values.
    const ALL: [(&'static str, Self); 5] = [
        ("none", Self::None),
        ("jwt", Self::Jwt),
        ("key", Self::Key),
        ("any", Self::Any),
        ("cert", Self::Cert),
    ];

    /// Whether a token is taken.
    #[must_use]
    pub const fn takes_jwt(self) -> bool {
        matches!(self, Self::Jwt | Self::Any)
    }

    /// Whether a key is taken.
    #[must_use]
    pub const fn takes_key(self) -> bool {
        matches!(self, Self::Key | Self::Any)
    }
}

impl AuthSpec {
    /// Whether there are API keys.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty() || self.key_file.is_some()
    }

    /// Why this cannot be asked for.
    fn refuses(&self, auth: Auth) -> Option<&'static str> {
        if auth.takes_jwt() && self.jwt.is_none() {
            return Some("takes tokens, and `[gateway.auth.jwt]` does not say which");
        }
        let keys = "takes keys, and there are none; add `[gateway.auth.key.NAME]` or `key-file`";
        (auth.takes_key() && !self.has_keys()).then_some(keys)
    }

    pub(super) fn put_files(&mut self, files: &Files) {
        if let Some(path) = &mut self.key_file {
            put_file(path, files);
        }
        if let Some(JwtSpec {
            jwks: JwksSource::File(path),
            ..
        }) = &mut self.jwt
        {
            put_file(path, files);
        }
    }
}

/// Reads `auth` of the gateway's part.
pub(super) fn read(top: &Section<'_>) -> Option<AuthSpec> {
    if !top.has(gateway::AUTH.name) {
        return None;
    }
    let section = top.section(&gateway::AUTH, &auth::TABLE);
    let named = section.named(&auth::KEY, &api_key::TABLE);
    if named.len() > MAX_KEYS {
        let why = format!("`key` has {} keys; accepted: {MAX_KEYS}", named.len());
        section.report_key(auth::KEY.name, why);
    }
    let mut keys = BTreeMap::new();
    for (name, table) in named {
        if !is_label(name.value) || name.value.len() > MAX_WORD {
            table.report(name.at, format!(
                "this is no name of a key; accepted: words of letters and digits joined by `-`, starting with a letter, \
                 at most {MAX_WORD} characters"
            ));
        }
        keys.insert(name.value.to_owned(), read_key(&table));
    }
    let spec = AuthSpec {
        default: read_auth(&section, &auth::DEFAULT).unwrap_or_default(),
        scopes: read_scopes(&section, &auth::SCOPES),
        jwt: read_jwt(&section),
        keys,
        key_file: section.text(&auth::KEY_FILE).map(|path| path.value.into()),
    };
    if let Some(why) = spec.refuses(spec.default) {
        section.report_key(auth::DEFAULT.name, format!("`default` {why}"));
    }
    if !spec.scopes.is_empty() && matches!(spec.default, Auth::None | Auth::Cert) {
        let why = "`scopes` are those of a token or key, and `default` asks for neither: say `default = \"jwt\"` or `\"key\"`";
        section.report_key(auth::SCOPES.name, why);
    }
    Some(spec)
}

fn read_auth(section: &Section<'_>, key: &Key<Other>) -> Option<Auth> {
    let typed = section.one_of(key)?;
    let found = Auth::ALL.into_iter().find(|(name, _)| *name == typed.value);
    found.map(|(_, auth)| auth)
}

fn read_key(section: &Section<'_>) -> KeySpec {
    section.require(&api_key::SHA256);
    let digest = section.value(&api_key::SHA256, |value| unhex::<32>(value.as_str()?));
    KeySpec {
        sha256: digest.map_or([0; 32], |digest| digest.value),
        scopes: read_scopes(section, &api_key::SCOPES),
    }
}

/// Scopes as RFC 6749 (3.3) has them: visible ASCII without quotes and backslashes.
fn read_scopes(section: &Section<'_>, key: &Key<Other>) -> Vec<String> {
    let scopes = section.texts(key);
    for scope in &scopes {
        let visible = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
        if !(1..=MAX_WORD).contains(&scope.value.len()) || !scope.value.bytes().all(visible) {
            let why = format!(
                "`{}`: `{}` is no scope; accepted: 1 to {MAX_WORD} visible ASCII characters without quotes and backslashes",
                key.name,
                shown(scope.value)
            );
            section.report(scope.at, why);
        }
    }
    let scopes = scopes.into_iter();
    scopes.map(|scope| scope.value.to_owned()).collect()
}

fn read_jwt(top: &Section<'_>) -> Option<JwtSpec> {
    if !top.has(auth::JWT.name) {
        return None;
    }
    let section = top.section(&auth::JWT, &jwt::TABLE);
    section.require(&jwt::ISSUER);
    section.require(&jwt::JWKS);
    let given = |text: &str| !text.is_empty();
    let issuer = section.text_that(&jwt::ISSUER, given);
    let jwks = section.value(&jwt::JWKS, |value| read_source(value.as_str()?));
    let mut algorithms = Vec::new();
    let names = section.texts(&jwt::ALGORITHMS);
    let is_none = names.is_empty();
    for name in names {
        if jwt::ALGORITHMS.values.accepted.contains(&name.value) {
            algorithms.push(name.value.to_owned());
            continue;
        }
        let why = format!(
            "`algorithms`: `{}` is none; accepted: {}",
            shown(name.value),
            jwt::ALGORITHMS.values.accepted.join(", ")
        );
        section.report(name.at, why);
    }
    if section.has(jwt::ALGORITHMS.name) {
        if is_none {
            section.report_key(
                jwt::ALGORITHMS.name,
                "`algorithms` has none, so no token would be taken",
            );
        }
    } else {
        algorithms.extend(["RS256", "ES256", "EdDSA"].map(str::to_owned));
    }
    let audience = section.texts(&jwt::AUDIENCE).into_iter();
    let claim = section.text_that(&jwt::SCOPE_CLAIM, given);
    Some(JwtSpec {
        issuer: issuer.map_or_else(String::new, |issuer| issuer.value.to_owned()),
        audience: audience.map(|audience| audience.value.to_owned()).collect(),
        jwks: jwks.map_or_else(|| JwksSource::Url(String::new()), |jwks| jwks.value),
        algorithms,
        skew: section.read_or_default(&jwt::SKEW),
        refresh: section.read_or_default(&jwt::REFRESH),
        scope_claim: claim.map_or("scope", |claim| claim.value).to_owned(),
    })
}

/// An address or a path. Over plain HTTP anybody on the way could put in keys of their own, so that is for
/// this machine only.
fn read_source(text: &str) -> Option<JwksSource> {
    let Some((scheme, _)) = text.split_once("://") else {
        return (!text.is_empty()).then(|| JwksSource::File(text.into()));
    };
    let uri: http::Uri = text.parse().ok()?;
    let host = uri.host()?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let address = bare.unwrap_or(host).parse::<std::net::IpAddr>();
    let is_here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    let accepted = scheme == "https" || scheme == "http" && is_here;
    accepted.then(|| JwksSource::Url(text.to_owned()))
}

/// Reads what a route asks for.
pub(super) fn read_of_route(
    section: &Section<'_>,
    spec: Option<&AuthSpec>,
) -> (Option<Auth>, Vec<String>) {
    let auth = read_auth(section, &route::AUTH);
    let scopes = read_scopes(section, &route::SCOPES);
    match (auth, spec) {
        (Some(Auth::None) | None, _) => {}
        (Some(_), None) => {
            section.report_key(
                route::AUTH.name,
                "`auth` needs `[gateway.auth]`, which says how clients are known",
            );
        }
        (Some(auth), Some(spec)) => {
            if let Some(why) = spec.refuses(auth) {
                section.report_key(route::AUTH.name, format!("`auth` {why}"));
            }
        }
    }
    let asked = auth.or(spec.map(|spec| spec.default)).unwrap_or_default();
    if !scopes.is_empty() && matches!(asked, Auth::None | Auth::Cert) {
        let why = "`scopes` are those of a token or key, and the route asks for neither: say `auth = \"jwt\"` or `\"key\"`";
        section.report_key(route::SCOPES.name, why);
    }
    (auth, scopes)
}

/// The files that `auth` names.
pub(super) fn find_files(top: &Section<'_>, finding: &Finding<'_>, files: &mut Files) {
    let section = top.section(&gateway::AUTH, &auth::TABLE);
    finding.file(&section, &auth::KEY_FILE, files);
    let jwt = section.section(&auth::JWT, &jwt::TABLE);
    let source = jwt
        .text(&jwt::JWKS)
        .and_then(|typed| read_source(typed.value));
    if let Some(JwksSource::File(_)) = source {
        finding.file(&jwt, &jwt::JWKS, files);
    }
}
