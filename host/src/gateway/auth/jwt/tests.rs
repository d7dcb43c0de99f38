//! Tokens that are taken, and every way in which one is not.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
    RsaPublicKeyComponents,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;

use super::*;
use crate::manifest::JwksSource;

/// Only tests sign with it.
const RSA: &[u8] = include_bytes!("rsa.key");
const SECRET: &[u8] = b"a secret that is as long as RFC 7518 wants it to be";

const ALL: [&str; 12] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "HS256",
    "HS384", "HS512",
];

/// An issuer with a key of each kind, by the name of its first algorithm.
struct Issuer {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    _folder: tempfile::TempDir,
    tokens: Tokens,
}

fn ec(algorithm: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap()
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}

impl Issuer {
    async fn new(algorithms: &[&str]) -> Self {
        let random = SystemRandom::new();
        let rsa = PrivatePkcs8KeyDer::from_pem_slice(RSA).unwrap();
        let rsa = RsaKeyPair::from_pkcs8(rsa.secret_pkcs8_der()).unwrap();
        let (p256, p384) = (
            ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
            ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
        );
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ed = Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap();
        let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(rsa.public());
        let point = |id: &str, curve: &str, key: &EcdsaKeyPair| {
            let both = &key.public_key().as_ref()[1..];
            let (x, y) = both.split_at(both.len() / 2);
            json!({ "kty": "EC", "kid": id, "crv": curve, "x": BASE64.encode(x), "y": BASE64.encode(y) })
        };
        let set = json!({ "keys": [
            { "kty": "RSA", "kid": "rsa", "n": BASE64.encode(n), "e": BASE64.encode(e), "use": "sig" },
            point("p256", "P-256", &p256),
            point("p384", "P-384", &p384),
            { "kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": BASE64.encode(ed.public_key()) },
            { "kty": "oct", "kid": "secret", "k": BASE64.encode(SECRET) },
        ] });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jwks.json");
        std::fs::write(&file, set.to_string()).unwrap();
        let spec = JwtSpec {
            issuer: "https://id.example".to_owned(),
            audience: vec!["shop".to_owned(), "till".to_owned()],
            jwks: JwksSource::File(file),
            algorithms: algorithms.iter().map(|name| (*name).to_owned()).collect(),
            skew: Duration::from_secs(30),
            refresh: Duration::from_secs(600),
            scope_claim: "scope".to_owned(),
        };
        let tokens = Tokens::new(&spec, Arc::default());
        tokens.jwks.keep().await;
        Self {
            rsa,
            p256,
            p384,
            ed,
            _folder: folder,
            tokens,
        }
    }

    fn rsa(&self, encoding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.rsa.public().modulus_len()];
        let random = SystemRandom::new();
        let signed = self.rsa.sign(encoding, &random, message, &mut signature);
        signed.unwrap();
        signature
    }

    /// The id of the key that an algorithm takes, and what it signs.
    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let secret = |algorithm| hmac::sign(&hmac::Key::new(algorithm, SECRET), message);
        match algorithm {
            "RS256" => self.rsa(&RSA_PKCS1_SHA256, message),
            "RS384" => self.rsa(&RSA_PKCS1_SHA384, message),
            "RS512" => self.rsa(&RSA_PKCS1_SHA512, message),
            "PS256" => self.rsa(&RSA_PSS_SHA256, message),
            "PS384" => self.rsa(&RSA_PSS_SHA384, message),
            "PS512" => self.rsa(&RSA_PSS_SHA512, message),
            "ES256" => self.p256.sign(&random, message).unwrap().as_ref().to_vec(),
            "ES384" => self.p384.sign(&random, message).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed.sign(message).as_ref().to_vec(),
            "HS256" => secret(hmac::HMAC_SHA256).as_ref().to_vec(),
            "HS384" => secret(hmac::HMAC_SHA384).as_ref().to_vec(),
            "HS512" => secret(hmac::HMAC_SHA512).as_ref().to_vec(),
            other => panic!("{other}"),
        }
    }

    fn token_with(&self, header: Value, algorithm: &str, claims: &Value) -> String {
        let part = |value: &Value| BASE64.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(claims));
        let signature = self.sign(algorithm, message.as_bytes());
        format!("{message}.{}", BASE64.encode(signature))
    }

    fn token(&self, algorithm: &str, claims: &Value) -> String {
        let header = json!({ "alg": algorithm, "kid": id_of(algorithm), "typ": "JWT" });
        self.token_with(header, algorithm, claims)
    }

    /// Why a token is not taken.
    async fn refused(&self, token: &str) -> String {
        match self.tokens.check(token).await {
            Err(Denied::Invalid(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    async fn refused_with(&self, change: &[(&str, Value)]) -> String {
        self.refused(&self.token("ES256", &with(change))).await
    }
}

fn id_of(algorithm: &str) -> &'static str {
    match algorithm {
        "ES256" => "p256",
        "ES384" => "p384",
        "EdDSA" => "ed",
        hmac if hmac.starts_with("HS") => "secret",
        _ => "rsa",
    }
}

/// Good claims with some of them changed; null takes one away.
fn with(change: &[(&str, Value)]) -> Value {
    let mut claims = json!({
        "iss": "https://id.example",
        "aud": "shop",
        "sub": "u-7",
        "exp": now() + 60,
        "scope": "orders:read orders:write",
        "name": "Zoë\u{2028}",
    });
    let map = claims.as_object_mut().unwrap();
    for (name, value) in change {
        map.insert((*name).to_owned(), value.clone());
    }
    map.retain(|_, value| !value.is_null());
    claims
}

#[tokio::test]
async fn a_good_token_is_taken_whatever_signs_it() {
    let issuer = Issuer::new(&ALL).await;
    for algorithm in ALL {
        let client = issuer
            .tokens
            .check(&issuer.token(algorithm, &with(&[])))
            .await;
        let client = client.unwrap_or_else(|why| panic!("{algorithm}: {why:?}"));
        assert_eq!(client.subject.as_deref(), Some("u-7"));
        assert_eq!(client.scopes, ["orders:read", "orders:write"]);
        let claims = Claims::read(&client.claims).unwrap();
        assert_eq!(claims.claims["name"], "Zoë\u{2028}");
        assert!(client.claims.is_ascii());
    }
    // Without a key's name there is one that fits.
    let header = json!({ "alg": "ES384" });
    let token = issuer.token_with(header, "ES384", &with(&[]));
    issuer.tokens.check(&token).await.unwrap();
    for (scopes, read) in [
        (json!(["a", "b", 7]), vec!["a", "b"]),
        (json!(""), vec![]),
        (json!(7), vec![]),
    ] {
        let token = issuer.token("EdDSA", &with(&[("scope", scopes)]));
        assert_eq!(issuer.tokens.check(&token).await.unwrap().scopes, read);
    }
    for audience in [json!(["other", "till"]), json!("till")] {
        let token = issuer.token("EdDSA", &with(&[("aud", audience)]));
        issuer.tokens.check(&token).await.unwrap();
    }
}

#[tokio::test]
async fn what_nobody_signed_is_refused() {
    let issuer = Issuer::new(&ALL).await;
    let good = issuer.token("ES256", &with(&[]));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (_, claims) = message.split_once('.').unwrap();
    for algorithm in ["none", "None", "NONE", "nOnE", ""] {
        let header = BASE64.encode(json!({ "alg": algorithm, "kid": "p256" }).to_string());
        for signature in ["", signature] {
            let why = issuer
                .refused(&format!("{header}.{claims}.{signature}"))
                .await;
            assert_eq!(why, "this is no JSON Web Token that can be checked");
        }
    }
    for broken in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "x",
        message,
        &format!("{good}.x"),
        &good[1..],
    ] {
        issuer.refused(broken).await;
    }
    let unsigned = "the token's signature is not that of the issuer's key";
    assert_eq!(issuer.refused(&format!("{message}.")).await, unsigned);
    let other = issuer.token("ES256", &with(&[("sub", json!("root"))]));
    let (forged, _) = other.rsplit_once('.').unwrap();
    assert_eq!(
        issuer.refused(&format!("{forged}.{signature}")).await,
        unsigned
    );
    // Another key of the same kind.
    let stranger = Issuer::new(&ALL).await;
    for algorithm in ["ES256", "ES384", "EdDSA"] {
        let token = stranger.token(algorithm, &with(&[]));
        assert_eq!(issuer.refused(&token).await, unsigned, "{algorithm}");
    }
}

#[tokio::test]
async fn a_public_key_is_no_secret() {
    let issuer = Issuer::new(&ALL).await;
    let RsaPublicKeyComponents { n, .. } =
        RsaPublicKeyComponents::<Vec<u8>>::from(issuer.rsa.public());
    let der = issuer.rsa.public().as_ref();
    let pem = format!(
        "-----BEGIN RSA PUBLIC KEY-----\n{}\n-----END RSA PUBLIC KEY-----\n",
        base64::engine::general_purpose::STANDARD.encode(der)
    );
    for secret in [&*n, der, pem.as_bytes()] {
        let header = json!({ "alg": "HS256", "kid": "rsa" });
        let part = |value: &Value| BASE64.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(&with(&[])));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let signature = BASE64.encode(hmac::sign(&key, message.as_bytes()));
        let why = issuer.refused(&format!("{message}.{signature}")).await;
        assert_eq!(why, "the token is signed by no key of the issuer");
    }
    // Nor is a token of one kind one of another.
    let header = json!({ "alg": "ES256", "kid": "p384" });
    let token = issuer.token_with(header, "ES384", &with(&[]));
    let none = "the token is signed by no key of the issuer";
    assert_eq!(issuer.refused(&token).await, none);
}

#[tokio::test]
async fn only_the_algorithms_that_are_named_are_taken() {
    let issuer = Issuer::new(&["RS256"]).await;
    let good = issuer.token("RS256", &with(&[]));
    issuer.tokens.check(&good).await.unwrap();
    for algorithm in &ALL[1..] {
        let why = issuer.refused(&issuer.token(algorithm, &with(&[]))).await;
        assert_eq!(why, format!("tokens signed by {algorithm} are not taken"));
    }
}

#[tokio::test]
async fn time_issuer_and_audience_are_looked_at() {
    let issuer = Issuer::new(&ALL).await;
    let expired = "the token has expired";
    let early = "the token is not valid yet";
    let other_issuer = "the token is of another issuer";
    let other_audience = "the token is for another audience";
    for (claim, value, why) in [
        ("exp", json!(now() - 60), expired),
        ("exp", json!(0), expired),
        ("exp", Value::Null, "the token has no `exp`"),
        ("exp", json!("tomorrow"), "the token has no `exp`"),
        ("exp", json!(-1), "the token has no `exp`"),
        ("nbf", json!(now() + 90), early),
        ("nbf", json!(1e18), early),
        ("nbf", json!("now"), "the token's `nbf` is of another type"),
        ("iss", json!("https://evil.example"), other_issuer),
        ("iss", json!("https://id.example/"), other_issuer),
        ("iss", Value::Null, "the token has no `iss`"),
        ("aud", json!("https://id.example"), other_audience),
        ("aud", json!(["a", "b"]), other_audience),
        ("aud", json!([]), other_audience),
        ("aud", Value::Null, "the token has no `aud`"),
        ("aud", json!(7), "the token has no `aud`"),
    ] {
        let shown = format!("{claim}: {value}");
        assert_eq!(issuer.refused_with(&[(claim, value)]).await, why, "{shown}");
    }
    let swapped = [("iss", json!("shop")), ("aud", json!("https://id.example"))];
    assert_eq!(issuer.refused_with(&swapped).await, other_issuer);
    // Clocks may differ by 30 s.
    for (claim, value) in [("exp", now() - 20), ("nbf", now() + 20)] {
        let token = issuer.token("ES256", &with(&[(claim, json!(value))]));
        issuer.tokens.check(&token).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_huge_or_odd_is_refused() {
    let issuer = Issuer::new(&ALL).await;
    let long = |bytes: usize| [("note", json!("x".repeat(bytes)))];
    issuer
        .tokens
        .check(&issuer.token("ES256", &with(&long(5_000))))
        .await
        .unwrap();
    let why = issuer.refused_with(&long(8_000)).await;
    assert_eq!(why, "the token has more than 8192 bytes");
    let why = issuer.refused(&"x".repeat(1 << 20)).await;
    assert_eq!(why, "the token has more than 8192 bytes");
    // Escaped for a header it is longer.
    let why = issuer
        .refused_with(&[("note", json!("é".repeat(2_000)))])
        .await;
    assert_eq!(why, "the token's claims have more than 8192 bytes");
    // What the header says has to be understood has to be.
    for header in [
        json!({ "alg": "ES256", "kid": "p256", "crit": ["exp"] }),
        json!({ "alg": "ES256", "kid": "p256", "b64": false, "crit": ["b64"] }),
    ] {
        let token = issuer.token_with(header, "ES256", &with(&[]));
        let why = issuer.refused(&token).await;
        assert_eq!(why, "this is no JSON Web Token that can be checked");
    }
    // A key in the token itself is none of the issuer's, and no address in it is asked.
    let stranger = Issuer::new(&ALL).await;
    let both = &stranger.p256.public_key().as_ref()[1..];
    let (x, y) = both.split_at(32);
    let jwk = json!({ "kty": "EC", "crv": "P-256", "x": BASE64.encode(x), "y": BASE64.encode(y) });
    for header in [
        json!({ "alg": "ES256", "kid": "p256", "jwk": jwk }),
        json!({ "alg": "ES256", "kid": "p256", "jku": "https://evil.example/jwks.json" }),
    ] {
        let token = stranger.token_with(header, "ES256", &with(&[]));
        let why = issuer.refused(&token).await;
        assert_eq!(why, "the token's signature is not that of the issuer's key");
    }
    for claims in [json!([]), json!("text"), json!(null)] {
        issuer.refused(&issuer.token("ES256", &claims)).await;
    }
}
