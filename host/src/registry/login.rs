//! Logins: where they come from, and what a registry asks for.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use docker_credential::{CredentialRetrievalError as Retrieval, DockerCredential};
use http::HeaderValue;
use http::header::{HeaderMap, WWW_AUTHENTICATE};
use http_auth::parse_challenges;
use serde::Deserialize;

use super::error::LoginError;

/// Where docker keeps the login of its own registry.
const DOCKER_HUB: (&str, &str) = ("docker.io", "https://index.docker.io/v1/");

/// What `docker login` left for a registry.
#[derive(PartialEq, Eq)]
pub(super) enum Login {
    Password {
        user: String,
        password: String,
    },
    /// Is exchanged for tokens.
    Refresh(String),
}

/// Without what is secret.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(..)")
    }
}

impl Login {
    /// The login of docker for a registry, else that of podman. Blocks: a helper may ask the user's keychain.
    pub(super) fn of(registry: &str) -> Result<Option<Self>, LoginError> {
        let (hub, of_hub) = DOCKER_HUB;
        let server = if registry == hub { of_hub } else { registry };
        let docker = read(docker_credential::get_credential(server))?;
        if docker.is_some() {
            return Ok(docker);
        }
        read(docker_credential::get_podman_credential(registry))
    }

    /// As a header, where the registry takes it itself.
    pub(super) fn basic(&self) -> Option<HeaderValue> {
        let Self::Password { user, password } = self else {
            return None;
        };
        secret(&format!(
            "Basic {}",
            STANDARD.encode(format!("{user}:{password}"))
        ))
    }
}

fn read(found: Result<DockerCredential, Retrieval>) -> Result<Option<Login>, LoginError> {
    match found {
        Ok(DockerCredential::UsernamePassword(user, password)) if user == "<token>" => {
            Ok(Some(Login::Refresh(password)))
        }
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            Ok(Some(Login::Password { user, password }))
        }
        Ok(DockerCredential::IdentityToken(token)) => Ok(Some(Login::Refresh(token))),
        // No file is the same as one without this registry, and one that is no JSON says nothing of it.
        Err(Retrieval::NoCredentialConfigured | Retrieval::ConfigNotFound) => Ok(None),
        Err(Retrieval::ConfigReadError) => Ok(None),
        Err(Retrieval::HelperFailure { stdout, stderr, .. })
            if [&stdout, &stderr]
                .iter()
                .any(|said| said.contains("credentials not found")) =>
        {
            Ok(None)
        }
        Err(Retrieval::HelperFailure { helper, .. }) => {
            Err(LoginError(format!("`{helper} get` fails")))
        }
        Err(Retrieval::HelperCommunicationError) => {
            Err(LoginError("its credential helper cannot be run".to_owned()))
        }
        Err(other) => Err(LoginError(other.to_string())),
    }
}

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// A token from elsewhere.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// The one of an answer that is understood; a token before a password.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut basic = None;
        for header in headers.get_all(WWW_AUTHENTICATE) {
            let Ok(challenges) = header.to_str().map(parse_challenges) else {
                continue;
            };
            for challenge in challenges.into_iter().flatten() {
                let param = |name: &str| {
                    let mut params = challenge.params.iter();
                    let (_, value) = params.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
                    Some(value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                } else if challenge.scheme.eq_ignore_ascii_case("bearer")
                    && let Some(realm) = param("realm")
                {
                    return Some(Self::Bearer {
                        realm,
                        service: param("service"),
                        scope: param("scope"),
                    });
                }
            }
        }
        basic
    }
}

/// The header of a token, as it was issued.
pub(super) fn bearer(issued: &[u8]) -> Option<HeaderValue> {
    #[derive(Deserialize)]
    struct Issued {
        #[serde(alias = "access_token")]
        token: String,
    }
    let as_both = |issued: &[u8]| serde_json::from_slice::<serde_json::Value>(issued).ok();
    let token = match serde_json::from_slice::<Issued>(issued) {
        Ok(issued) => issued.token,
        // Some issue it under both names, for readers of either.
        Err(_) => as_both(issued)?.get("token")?.as_str()?.to_owned(),
    };
    secret(&format!("Bearer {token}"))
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(headers: &[&'static str]) -> Option<Challenge> {
        let values = headers
            .iter()
            .map(|text| (WWW_AUTHENTICATE, HeaderValue::from_static(text)));
        Challenge::of(&values.collect())
    }

    #[test]
    fn challenges_are_read() {
        let bearer = r#"Bearer realm="https://auth.example/token",service="registry",scope="repository:a/b:pull,push""#;
        let token = Challenge::Bearer {
            realm: "https://auth.example/token".to_owned(),
            service: Some("registry".to_owned()),
            scope: Some("repository:a/b:pull,push".to_owned()),
        };
        assert_eq!(
            challenge(&[r#"Basic realm="x""#, bearer]).as_ref(),
            Some(&token)
        );
        assert_eq!(challenge(&[bearer, "basic realm=x"]), Some(token));
        assert_eq!(challenge(&["basic realm=x"]), Some(Challenge::Basic));
        for other in ["Negotiate", "Bearer service=x", "", "Bearer realm=\"x"] {
            assert_eq!(challenge(&[other]), None, "{other}");
        }
        assert_eq!(challenge(&[]), None);
    }

    #[test]
    fn tokens_are_read_under_both_names() {
        let token = |text: &str| Some(bearer(text.as_bytes())?.to_str().unwrap().to_owned());
        let read = Some("Bearer a".to_owned());
        assert_eq!(token(r#"{"token":"a","expires_in":300}"#), read);
        assert_eq!(token(r#"{"access_token":"a"}"#), read);
        assert_eq!(token(r#"{"access_token":"a","token":"a"}"#), read);
        for none in ["", "{}", r#"{"token":7}"#, r#"{"token":"a\n"}"#, "[]"] {
            assert_eq!(token(none), None, "{none}");
        }
    }

    #[test]
    fn logins_of_helpers_are_read() {
        let found =
            |user: &str| DockerCredential::UsernamePassword(user.to_owned(), "p".to_owned());
        let login = read(Ok(found("<token>"))).unwrap().unwrap();
        assert_eq!(login, Login::Refresh("p".to_owned()));
        assert_eq!(login.basic(), None);
        let login = read(Ok(found("u"))).unwrap().unwrap();
        assert_eq!(login.basic().unwrap(), "Basic dTpw");
        assert!(!format!("{login:?}").contains('p'));
        let failing = |stdout: &str| Retrieval::HelperFailure {
            helper: "docker-credential-x".to_owned(),
            stdout: stdout.to_owned(),
            stderr: String::new(),
        };
        assert_eq!(
            read(Err(failing("credentials not found in native keychain"))).unwrap(),
            None
        );
        let error = read(Err(failing("locked"))).unwrap_err().to_string();
        assert!(
            error.ends_with("`docker-credential-x get` fails"),
            "{error}"
        );
    }
}
