//! The keys of an issuer of tokens: fetched by one keeper, read by everybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use super::fetch::{self, fetch};
use crate::manifest::JwksSource;

/// Keys of a set beyond which none is looked at.
const MAX_KEYS: usize = 100;

/// Bytes that a secret has at least (RFC 7518, 3.2).
const MIN_SECRET: usize = 32;

/// Shortest pause between two fetches: tokens with unknown keys come from anybody.
pub(super) const MIN_PAUSE: Duration = Duration::from_secs(10);

/// A set of keys.
#[derive(Default)]
pub(super) struct KeySet(Vec<IssuerKey>);

struct IssuerKey {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
}

impl KeySet {
    /// Reads a set. Keys that sign nothing here are left out.
    ///
    /// # Errors
    ///
    /// It is no set, or none of its keys can be used.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set =
            serde_json::from_slice(bytes).map_err(|error| format!("it is no JWK set: {error}"))?;
        let keys = set.keys.into_iter().take(MAX_KEYS);
        let keys: Vec<_> = keys.filter_map(IssuerKey::read).collect();
        if keys.is_empty() {
            return Err("it has no key that signs tokens".to_owned());
        }
        Ok(Self(keys))
    }

    /// The key by which a token is signed. One that names none has to fit one alone.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let mut fitting = self
            .0
            .iter()
            .filter(|key| key.algorithms.contains(&algorithm));
        let found = match id {
            Some(id) => fitting.find(|key| key.id.as_deref() == Some(id)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        };
        found.map(|key| &key.decoding)
    }
}

impl IssuerKey {
    fn read(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        if !matches!(
            jwk.common.public_key_use,
            None | Some(PublicKeyUse::Signature)
        ) {
            return None;
        }
        let of_family = |family: AlgorithmFamily| family.algorithms().to_vec();
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => of_family(AlgorithmFamily::Rsa),
            AlgorithmParameters::OctetKey(_) => of_family(AlgorithmFamily::Hmac),
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                vec![Algorithm::EdDSA]
            }
            _ => return None,
        };
        if let Some(only) = jwk.common.key_algorithm {
            algorithms.retain(|algorithm| KeyAlgorithm::from(*algorithm) == only);
        }
        let decoding = DecodingKey::from_jwk(&jwk).ok()?;
        let secret = decoding.family() == AlgorithmFamily::Hmac;
        if secret && decoding.try_get_as_bytes().ok()?.len() < MIN_SECRET {
            tracing::warn!(kid = ?jwk.common.key_id, "a secret of less than {MIN_SECRET} bytes is not used");
            return None;
        }
        Some(Self {
            id: jwk.common.key_id,
            algorithms,
            decoding,
        })
    }
}

/// The keys of an issuer, as they were last fetched.
pub(super) struct Jwks {
    source: JwksSource,
    refresh: Duration,
    state: watch::Sender<State>,
    /// A token has a key that is not there.
    wanted: AtomicBool,
    wake: Arc<Notify>,
}

#[derive(Clone, Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    /// Fetches that have ended.
    attempts: u64,
    began: Option<Instant>,
}

impl Jwks {
    pub(super) fn new(source: JwksSource, refresh: Duration, wake: Arc<Notify>) -> Self {
        Self {
            source,
            refresh,
            state: watch::Sender::default(),
            wanted: AtomicBool::new(false),
            wake,
        }
    }

    /// The keys; waits for the first fetch. `None` if there never were any.
    pub(super) async fn keys(&self) -> Option<Arc<KeySet>> {
        let first = self.state.borrow().clone();
        if first.keys.is_none() && first.attempts == 0 {
            self.wait(0).await;
            return self.state.borrow().keys.clone();
        }
        first.keys
    }

    /// The keys, fetched again, if that was not done just now.
    pub(super) async fn newer(&self) -> Option<Arc<KeySet>> {
        let seen = self.state.borrow().clone();
        if seen.began.is_some_and(|began| began.elapsed() < MIN_PAUSE) {
            return None;
        }
        self.wanted.store(true, Ordering::Relaxed);
        self.wake.notify_one();
        self.wait(seen.attempts).await;
        self.state.borrow().keys.clone()
    }

    /// Waits for the end of a fetch after so many.
    async fn wait(&self, attempts: u64) {
        let mut state = self.state.subscribe();
        let ended = state.wait_for(|state| state.attempts > attempts);
        // Whoever waited in vain finds what there was.
        let _ = timeout(fetch::TIMEOUT + Duration::from_secs(1), ended).await;
    }

    /// Fetches the keys if that is due.
    pub(super) async fn keep(&self) {
        let since = self.state.borrow().began.map(|began| began.elapsed());
        let failed = self.state.borrow().keys.is_none();
        let due = match since {
            None => true,
            Some(since) if since >= self.refresh => true,
            Some(since) => since >= MIN_PAUSE && (failed || self.wanted.load(Ordering::Relaxed)),
        };
        if !due {
            return;
        }
        self.wanted.store(false, Ordering::Relaxed);
        self.state
            .send_modify(|state| state.began = Some(Instant::now()));
        let fetched = fetch(&self.source).await;
        let read = fetched.and_then(|bytes| KeySet::read(&bytes));
        self.state.send_modify(|state| {
            state.attempts += 1;
            match read {
                Ok(keys) => state.keys = Some(Arc::new(keys)),
                Err(why) => {
                    let from = match &self.source {
                        JwksSource::Url(url) => url.clone(),
                        JwksSource::File(path) => path.display().to_string(),
                    };
                    let held = state.keys.is_some();
                    tracing::warn!(
                        from,
                        why,
                        "keys for tokens cannot be had; the last ones hold: {held}"
                    );
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ed(id: &str) -> Value {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": x, "use": "sig" })
    }

    fn set(keys: &[Value]) -> Vec<u8> {
        json!({ "keys": keys }).to_string().into_bytes()
    }

    #[test]
    fn keys_that_sign_nothing_here_are_left_out() {
        let secret =
            |bytes: usize| json!({ "kty": "oct", "kid": "s", "k": "A".repeat(bytes * 4 / 3) });
        let with = |key: &str, value: &str| {
            let mut ed = ed("a");
            ed[key] = value.into();
            ed
        };
        for key in [
            json!(7),
            json!({ "kty": "RSA" }),
            json!({ "kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA" }),
            with("use", "enc"),
            with("crv", "X25519"),
            secret(24),
        ] {
            assert!(
                KeySet::read(&set(std::slice::from_ref(&key))).is_err(),
                "{key}"
            );
            let read = KeySet::read(&set(&[key, ed("b")])).unwrap();
            assert!(read.find(Some("b"), Algorithm::EdDSA).is_some());
        }
        assert!(KeySet::read(&set(&[secret(33)])).is_ok());
        for none in ["", "[]", "{}", r#"{"keys":[]}"#] {
            assert!(KeySet::read(none.as_bytes()).is_err(), "{none}");
        }
        let many: Vec<_> = (0..=MAX_KEYS).map(|id| ed(&id.to_string())).collect();
        let read = KeySet::read(&set(&many)).unwrap();
        assert!(read.find(Some("99"), Algorithm::EdDSA).is_some());
        assert!(read.find(Some("100"), Algorithm::EdDSA).is_none());
    }

    #[test]
    fn a_key_is_found_by_its_id_and_for_its_algorithm_only() {
        let read = KeySet::read(&set(&[ed("a")])).unwrap();
        assert!(read.find(Some("a"), Algorithm::EdDSA).is_some());
        assert!(read.find(None, Algorithm::EdDSA).is_some());
        assert!(read.find(Some("b"), Algorithm::EdDSA).is_none());
        assert!(read.find(Some("a"), Algorithm::HS256).is_none());
        let two = KeySet::read(&set(&[ed("a"), ed("b")])).unwrap();
        assert!(two.find(None, Algorithm::EdDSA).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_keys_have_the_set_fetched_again_but_not_all_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.json");
        let write = |id: &str| std::fs::write(&file, set(&[ed(id)])).unwrap();
        write("a");
        let (refresh, wake) = (Duration::from_secs(600), Arc::new(Notify::new()));
        let jwks = Jwks::new(JwksSource::File(file.clone()), refresh, Arc::clone(&wake));
        let jwks = Arc::new(jwks);
        let has = |keys: Option<Arc<KeySet>>, id| {
            keys.is_some_and(|keys| keys.find(Some(id), Algorithm::EdDSA).is_some())
        };
        jwks.keep().await;
        assert!(has(jwks.keys().await, "a"));
        write("b");
        // Just now it was fetched.
        assert!(jwks.newer().await.is_none());
        jwks.keep().await;
        assert!(has(jwks.keys().await, "a"));
        tokio::time::advance(MIN_PAUSE).await;
        let keeper = Arc::clone(&jwks);
        let keeping = tokio::spawn(async move {
            loop {
                wake.notified().await;
                keeper.keep().await;
            }
        });
        assert!(has(jwks.newer().await, "b"));
        assert!(jwks.newer().await.is_none());
        keeping.abort();
        // What cannot be read changes nothing.
        std::fs::write(&file, "{}").unwrap();
        tokio::time::advance(refresh).await;
        jwks.keep().await;
        assert_eq!(jwks.state.borrow().attempts, 3);
        assert!(has(jwks.keys().await, "b"));
    }

    #[tokio::test(start_paused = true)]
    async fn without_any_keys_it_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.json");
        let refresh = Duration::from_secs(600);
        let jwks = Jwks::new(JwksSource::File(file.clone()), refresh, Arc::default());
        jwks.keep().await;
        assert!(jwks.keys().await.is_none());
        std::fs::write(&file, set(&[ed("a")])).unwrap();
        jwks.keep().await;
        assert!(jwks.keys().await.is_none());
        tokio::time::advance(MIN_PAUSE).await;
        jwks.keep().await;
        assert!(jwks.keys().await.is_some());
    }
}
