//! Signatures of components: ed25519, by nkeys, over the digest of the bytes.
//!
//! What is signed is a line of text that nothing else signs, so that a signature for a component is none
//! for anything else: `wasmbay component sha256:` and the 64 digits of the digest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nkeys::{KeyPair, KeyPairType};

use crate::manifest::Digest;
use crate::text::shown;

/// Signatures of one component that are kept and looked at.
pub const MAX_SIGNATURES: usize = 32;

/// A key that signs components.
pub struct SigningKey(KeyPair);

/// The public part of a key that signs components, as nkeys writes it: 56 letters and digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey(String);

/// The signatures of one component by their public keys, in base64. Nothing in it is checked.
pub type Signatures = BTreeMap<String, String>;

/// A text is no key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is no seed.
    #[error("it is no seed of an nkey; `wasmbay sign --generate FILE` makes one")]
    Seed,
    /// It is no public key.
    #[error(
        "\"{0}\" is no public key; one has 56 letters and digits, and `wasmbay sign` prints it"
    )]
    Public(String),
}

/// A file is no file of signatures.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A line is no signature.
    #[error("line {0} is no signature: a public key, a space, and 88 characters of base64")]
    Line(usize),
    /// A signature is not by its key, or of something else.
    #[error("the signature by {0} is not of this component; sign it again")]
    Wrong(String),
    /// There are more than are looked at.
    #[error("there are more than {MAX_SIGNATURES} signatures")]
    TooMany,
}

impl SigningKey {
    /// A new key.
    #[must_use]
    pub fn generate() -> Self {
        Self(KeyPair::new_account())
    }

    /// Reads a seed, alone or with lines around it as `nsc` and `nk` write them.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn read(text: &str) -> Result<Self, KeyError> {
        let mut lines = text.lines().map(str::trim);
        let seed = lines.rfind(|line| line.starts_with('S'));
        let key = KeyPair::from_seed(seed.ok_or(KeyError::Seed)?);
        key.map(Self).map_err(|_| KeyError::Seed)
    }

    /// The text to keep: whoever has it can sign.
    ///
    /// # Errors
    ///
    /// Never for keys that are made or read here.
    pub fn seed(&self) -> Result<String, KeyError> {
        self.0.seed().map_err(|_| KeyError::Seed)
    }

    /// Its public part.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key())
    }

    /// Signs a component.
    ///
    /// # Errors
    ///
    /// Never for keys that are made or read here.
    pub fn sign(&self, digest: &Digest) -> Result<(String, String), KeyError> {
        let signature = self.0.sign(statement(digest).as_bytes());
        let signature = signature.map_err(|_| KeyError::Seed)?;
        Ok((self.0.public_key(), STANDARD.encode(signature)))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public()).finish()
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        match KeyPair::from_public_key(text) {
            Ok(key) if key.key_pair_type() != KeyPairType::Curve => Ok(Self(key.public_key())),
            _ => Err(KeyError::Public(shown(text).into_owned())),
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose components a host runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust(BTreeSet<PublicKey>);

/// Why a host does not run a component.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("component {} {why}; this host runs what {} signed", digest.short(), any_of(trusted))]
pub struct Untrusted {
    digest: Digest,
    why: String,
    trusted: BTreeSet<PublicKey>,
}

impl Trust {
    /// Runs everything.
    #[must_use]
    pub fn anyone() -> Self {
        Self::default()
    }

    /// Whether everything is run.
    #[must_use]
    pub fn is_anyone(&self) -> bool {
        self.0.is_empty()
    }

    /// Passes what one of the keys has signed.
    ///
    /// # Errors
    ///
    /// None has; it says who did.
    pub fn check(&self, digest: &Digest, signatures: &Signatures) -> Result<(), Untrusted> {
        if self.is_anyone() {
            return Ok(());
        }
        let trusted = |key: &String| self.0.contains(&PublicKey(key.clone()));
        let (ours, others): (Vec<_>, Vec<_>) = signatures.iter().partition(|(key, _)| trusted(key));
        if ours.iter().any(|(key, text)| is_by(key, text, digest)) {
            return Ok(());
        }
        let keys = |some: &[(&String, &String)]| -> Vec<String> {
            some.iter()
                .take(MAX_SIGNATURES)
                .map(|(key, _)| shown(key).into_owned())
                .collect()
        };
        let why = match (ours.is_empty(), others.is_empty()) {
            (true, true) => "is not signed".to_owned(),
            (false, _) => format!("has a wrong signature by {}", keys(&ours).join(", ")),
            (true, false) => format!("is signed by {}", keys(&others).join(", ")),
        };
        Err(Untrusted {
            digest: digest.clone(),
            why,
            trusted: self.0.clone(),
        })
    }
}

impl FromIterator<PublicKey> for Trust {
    fn from_iter<I: IntoIterator<Item = PublicKey>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

fn any_of(keys: &BTreeSet<PublicKey>) -> String {
    let keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
    keys.join(" or ")
}

/// Reads the signatures of a component: a line for each, with the public key and the signature.
///
/// # Errors
///
/// A line is none, or is not of this component.
pub fn read_signatures(text: &str, digest: &Digest) -> Result<Signatures, SignatureError> {
    let mut signatures = Signatures::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let wrong = SignatureError::Line(at + 1);
        let Some((key, signature)) = line.trim().split_once(' ') else {
            return Err(wrong);
        };
        if key.parse::<PublicKey>().is_err() {
            return Err(wrong);
        }
        if !is_by(key, signature, digest) {
            return Err(SignatureError::Wrong(key.to_owned()));
        }
        signatures.insert(key.to_owned(), signature.to_owned());
    }
    if signatures.len() > MAX_SIGNATURES {
        return Err(SignatureError::TooMany);
    }
    Ok(signatures)
}

/// The text of signatures, as [`read_signatures`] reads it.
#[must_use]
pub fn write_signatures(signatures: &Signatures) -> String {
    let lines = signatures.iter();
    lines
        .map(|(key, signature)| format!("{key} {signature}\n"))
        .collect()
}

fn statement(digest: &Digest) -> String {
    format!("wasmbay component sha256:{digest}")
}

fn is_by(key: &str, signature: &str, digest: &Digest) -> bool {
    let (Ok(key), Ok(signature)) = (KeyPair::from_public_key(key), STANDARD.decode(signature))
    else {
        return false;
    };
    key.verify(statement(digest).as_bytes(), &signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(key: &SigningKey, bytes: &[u8]) -> Signatures {
        Signatures::from([key.sign(&Digest::of(bytes)).unwrap()])
    }

    #[test]
    fn only_what_a_trusted_key_has_signed_passes() {
        let [ours, other] = [(); 2].map(|()| SigningKey::generate());
        let trust = Trust::from_iter([ours.public()]);
        let digest = Digest::of(b"a");
        assert_eq!(trust.check(&digest, &signed(&ours, b"a")), Ok(()));
        let mut both = signed(&ours, b"a");
        both.extend(signed(&other, b"b"));
        assert_eq!(trust.check(&digest, &both), Ok(()));

        let said = |signatures: &Signatures| trust.check(&digest, signatures).unwrap_err();
        let end = format!("; this host runs what {} signed", ours.public());
        let begin = "component ca978112ca1b";
        let unsigned = said(&Signatures::new()).to_string();
        assert_eq!(unsigned, format!("{begin} is not signed{end}"));
        let others = said(&signed(&other, b"a")).to_string();
        assert_eq!(
            others,
            format!("{begin} is signed by {}{end}", other.public())
        );
        let wrong = said(&signed(&ours, b"b")).to_string();
        let why = format!("has a wrong signature by {}", ours.public());
        assert_eq!(wrong, format!("{begin} {why}{end}"));
        assert_eq!(Trust::anyone().check(&digest, &Signatures::new()), Ok(()));
    }

    #[test]
    fn a_signature_under_another_key_s_name_is_wrong() {
        let [ours, other] = [(); 2].map(|()| SigningKey::generate());
        let trust = Trust::from_iter([ours.public()]);
        let (_, signature) = other.sign(&Digest::of(b"a")).unwrap();
        for signature in [&*signature, "", "AAAA", "é", &signature.repeat(2)] {
            let forged = Signatures::from([(ours.public().to_string(), signature.to_owned())]);
            assert!(
                trust.check(&Digest::of(b"a"), &forged).is_err(),
                "{signature}"
            );
        }
    }

    #[test]
    fn what_is_signed_is_no_other_statement() {
        let key = SigningKey::generate();
        let digest = Digest::of(b"a");
        let bare = key.0.sign(digest.as_str().as_bytes()).unwrap();
        assert!(!is_by(&key.public().0, &STANDARD.encode(bare), &digest));
        assert_eq!(
            statement(&digest),
            format!("wasmbay component sha256:{}", digest.as_str())
        );
    }

    #[test]
    fn a_file_of_signatures_is_read_as_it_is_written() {
        let [a, b] = [(); 2].map(|()| SigningKey::generate());
        let digest = Digest::of(b"x");
        let mut signatures = signed(&a, b"x");
        signatures.extend(signed(&b, b"x"));
        let text = write_signatures(&signatures);
        assert_eq!(read_signatures(&text, &digest), Ok(signatures));
        let other = read_signatures(&text, &Digest::of(b"y")).unwrap_err();
        assert!(matches!(other, SignatureError::Wrong(_)), "{other}");
        for text in ["x", "x y", &format!("{} ", "A".repeat(56))] {
            let error = read_signatures(text, &digest).unwrap_err();
            assert_eq!(error, SignatureError::Line(1), "{text}");
        }
        assert_eq!(read_signatures("\n", &digest), Ok(Signatures::new()));
    }

    #[test]
    fn a_seed_is_read_with_what_is_around_it() {
        let key = SigningKey::generate();
        let seed = key.seed().unwrap();
        let around = format!("-----BEGIN ACCOUNT NKEY SEED-----\n{seed}\n-----END-----\n");
        for text in [&*seed, &around] {
            assert_eq!(SigningKey::read(text).unwrap().public(), key.public());
        }
        for text in ["", "S", &key.public().0, &seed[..57]] {
            assert_eq!(
                SigningKey::read(text).unwrap_err(),
                KeyError::Seed,
                "{text}"
            );
        }
        assert!("AX".parse::<PublicKey>().is_err());
        assert!(!format!("{key:?}").contains(&seed));
    }
}
