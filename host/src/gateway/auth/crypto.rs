//! Signatures of tokens, by `ring`: what `jsonwebtoken` asks its crypto provider for. Tokens are only
//! checked here, never signed.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result, new_error};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};
use ring::{error::Unspecified, hmac};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: no_signer,
    verifier_factory: verifier,
    // None of them is called where keys are only read and tokens only checked.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes it the provider of the process, unless that has one.
pub(super) fn install() {
    let _ = PROVIDER.install_default();
}

struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    Err(new_error(ErrorKind::UnsupportedAlgorithm))
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    // A public RSA key is no secret of an HMAC, whatever a token says.
    if algorithm.family() != key.family() {
        return Err(new_error(ErrorKind::InvalidAlgorithm));
    }
    Ok(Box::new(RingVerifier {
        algorithm: *algorithm,
        key: key.clone(),
    }))
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(
        &self,
        message: &[u8],
        signed: &Vec<u8>,
    ) -> std::result::Result<(), signature::Error> {
        let rsa = |parameters| self.rsa(parameters, message, signed);
        let public = |algorithm| self.public(algorithm, message, signed);
        let secret = |algorithm| self.secret(algorithm, message, signed);
        let checked = match self.algorithm {
            Algorithm::RS256 => rsa(&RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => rsa(&RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => rsa(&RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => rsa(&RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => rsa(&RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => rsa(&RSA_PSS_2048_8192_SHA512),
            Algorithm::ES256 => public(&ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => public(&ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDSA => public(&ED25519),
            Algorithm::HS256 => secret(hmac::HMAC_SHA256),
            Algorithm::HS384 => secret(hmac::HMAC_SHA384),
            Algorithm::HS512 => secret(hmac::HMAC_SHA512),
            // One that is new to the library.
            _ => Err(Unspecified),
        };
        checked.map_err(|_| signature::Error::new())
    }
}

type Checked = std::result::Result<(), Unspecified>;

impl RingVerifier {
    fn bytes(&self) -> std::result::Result<&[u8], Unspecified> {
        self.key.try_get_as_bytes().map_err(|_| Unspecified)
    }

    fn rsa(&self, parameters: &'static RsaParameters, message: &[u8], signed: &[u8]) -> Checked {
        match self.key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                let key = RsaPublicKeyComponents { n, e };
                key.verify(parameters, message, signed)
            }
            DecodingKeyKind::SecretOrDer(key) => {
                UnparsedPublicKey::new(parameters, key).verify(message, signed)
            }
        }
    }

    fn public(
        &self,
        algorithm: &'static dyn VerificationAlgorithm,
        message: &[u8],
        signed: &[u8],
    ) -> Checked {
        UnparsedPublicKey::new(algorithm, self.bytes()?).verify(message, signed)
    }

    fn secret(&self, algorithm: hmac::Algorithm, message: &[u8], signed: &[u8]) -> Checked {
        hmac::verify(&hmac::Key::new(algorithm, self.bytes()?), message, signed)
    }
}
