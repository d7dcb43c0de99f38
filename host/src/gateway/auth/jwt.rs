//! JSON Web Tokens: signed by a key of the issuer, for this audience, and at this time.

use std::sync::Arc;

use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde_json::{Map, Value};
use tokio::sync::Notify;

use super::jwks::Jwks;
use super::{Client, Denied, crypto};
use crate::claims::{self, Claims, Proof};
use crate::manifest::JwtSpec;

/// Upper bound of the bytes of a token.
pub(super) const MAX_TOKEN: usize = 8 << 10;

/// Which tokens are taken.
pub(super) struct Tokens {
    /// For each algorithm that is taken.
    validations: Vec<(Algorithm, Validation)>,
    pub(super) jwks: Jwks,
    scope_claim: String,
}

impl Tokens {
    pub(super) fn new(spec: &JwtSpec, wake: Arc<Notify>) -> Self {
        crypto::install();
        let algorithms = spec.algorithms.iter();
        let algorithms = algorithms.filter_map(|name| name.parse::<Algorithm>().ok());
        Self {
            validations: algorithms
                .map(|algorithm| (algorithm, validation(algorithm, spec)))
                .collect(),
            jwks: Jwks::new(spec.jwks.clone(), spec.refresh, wake),
            scope_claim: spec.scope_claim.clone(),
        }
    }

    /// The client that a token is for.
    pub(super) async fn check(&self, token: &str) -> Result<Client, Denied> {
        if token.len() > MAX_TOKEN {
            let why = format!("the token has more than {MAX_TOKEN} bytes");
            return Err(Denied::Invalid(why));
        }
        let header = decode_header(token).map_err(|error| Denied::Invalid(words(&error)))?;
        let mut validations = self.validations.iter();
        let found = validations.find(|(algorithm, _)| *algorithm == header.alg);
        let (_, validation) = found.ok_or_else(|| {
            let why = format!("tokens signed by {:?} are not taken", header.alg);
            Denied::Invalid(why)
        })?;
        let id = header.kid.as_deref();
        let unready = "the keys by which tokens are checked cannot be had at this time";
        let mut keys = self.jwks.keys().await.ok_or(Denied::Unready(unready))?;
        if keys.find(id, header.alg).is_none()
            && let Some(newer) = self.jwks.newer().await
        {
            keys = newer;
        }
        let key = keys.find(id, header.alg).ok_or_else(|| {
            Denied::Invalid("the token is signed by no key of the issuer".to_owned())
        })?;
        let token = decode::<Map<String, Value>>(token, key, validation);
        let claims = token
            .map_err(|error| Denied::Invalid(words(&error)))?
            .claims;
        self.client(claims)
    }

    fn client(&self, claims: Map<String, Value>) -> Result<Client, Denied> {
        let scopes: Vec<String> = match claims.get(&self.scope_claim) {
            Some(Value::String(words)) => words.split_whitespace().map(str::to_owned).collect(),
            Some(Value::Array(list)) => {
                let words = list.iter().filter_map(Value::as_str);
                words.map(str::to_owned).collect()
            }
            _ => Vec::new(),
        };
        let subject = claims.get("sub").and_then(Value::as_str).map(Arc::from);
        let written = Claims {
            auth: Proof::Jwt,
            subject: subject.as_deref().map(Into::into),
            scopes: scopes.iter().map(Into::into).collect(),
            claims,
        };
        let claims = written.write().ok_or_else(|| {
            let max = claims::MAX;
            Denied::Invalid(format!("the token's claims have more than {max} bytes"))
        })?;
        Ok(Client {
            proof: Proof::Jwt,
            subject,
            scopes,
            claims,
        })
    }
}

fn validation(algorithm: Algorithm, spec: &JwtSpec) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = spec.skew.as_secs();
    validation.validate_nbf = true;
    validation.set_issuer(&[&spec.issuer]);
    let mut required = vec!["exp", "iss"];
    if !spec.audience.is_empty() {
        validation.set_audience(&spec.audience);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation
}

/// Why a token is not taken, for the client.
fn words(error: &Error) -> String {
    match error.kind() {
        ErrorKind::InvalidSignature => "the token's signature is not that of the issuer's key",
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidIssuer => "the token is of another issuer",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::MissingRequiredClaim(claim) => return format!("the token has no `{claim}`"),
        ErrorKind::InvalidClaimFormat(claim) => {
            return format!("the token's `{claim}` is of another type");
        }
        ErrorKind::InvalidAlgorithm => {
            "the token is signed by another algorithm than its key is for"
        }
        _ => "this is no JSON Web Token that can be checked",
    }
    .to_owned()
}

#[cfg(test)]
mod tests;
