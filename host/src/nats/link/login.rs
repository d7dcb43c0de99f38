//! How a connection says who it is: `CONNECT` with a login, and TLS.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};

use crate::nats::address::Login;
use crate::nats::connect::{ConnectError, ConnectOptions, credentials};
use crate::nats::nkey::seed;

/// A server's description of itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Info {
    pub(super) server_id: String,
    pub(super) max_payload: usize,
    pub(super) tls_required: bool,
    pub(super) nonce: String,
    /// Other servers of the system.
    pub(super) connect_urls: Vec<String>,
    /// Whether it is about to shut down.
    #[serde(rename = "ldm")]
    pub(super) is_lame_duck: bool,
}

/// The arguments of `CONNECT`.
#[derive(Serialize)]
struct Connect<'a> {
    verbose: bool,
    pedantic: bool,
    tls_required: bool,
    name: &'a str,
    lang: &'a str,
    version: &'a str,
    protocol: u8,
    echo: bool,
    headers: bool,
    no_responders: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nkey: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sig: Option<String>,
}

/// The lines that log in on a connection whose server described itself so, with a PING whose PONG says
/// that it was accepted. Files are read anew: a renewed one holds from the next connection on.
///
/// # Errors
///
/// A file cannot be read, or has no login.
pub(super) fn connect(
    options: &ConnectOptions,
    login: Option<&Login>,
    info: &Info,
    has_tls: bool,
) -> Result<Vec<u8>, ConnectError> {
    let mut connect = Connect {
        verbose: false,
        pedantic: false,
        tls_required: has_tls,
        name: options.name.as_deref().unwrap_or("wasmbay"),
        lang: "rust",
        version: env!("CARGO_PKG_VERSION"),
        protocol: 1,
        echo: true,
        headers: true,
        no_responders: true,
        user: None,
        pass: None,
        auth_token: None,
        jwt: None,
        nkey: None,
        sig: None,
    };
    match login {
        Some(Login::User { user, password }) => {
            connect.user = Some(user);
            connect.pass = Some(password);
        }
        Some(Login::Token(token)) => connect.auth_token = Some(token),
        None => {}
    }
    let nonce = info.nonce.as_bytes();
    if let Some(path) = &options.credentials {
        let text = read("credentials file", path)?;
        let bad = |source| ConnectError::BadCredentials {
            path: path.clone(),
            source,
        };
        let auth = credentials(&text, nonce).map_err(bad)?;
        connect.jwt = auth.jwt;
        connect.sig = auth.signature.map(|sig| BASE64_URL_SAFE_NO_PAD.encode(sig));
    } else if let Some(nkey) = &options.nkey {
        let bad = || ConnectError::BadNkey {
            from: nkey.origin(),
        };
        let pair = nkeys::KeyPair::from_seed(&seed(nkey)?).map_err(|_| bad())?;
        let signature = pair.sign(nonce).map_err(|_| bad())?;
        connect.nkey = Some(pair.public_key());
        connect.sig = Some(BASE64_URL_SAFE_NO_PAD.encode(signature));
    }
    let mut lines = b"CONNECT ".to_vec();
    // A struct of strings always serializes.
    lines.extend(serde_json::to_vec(&connect).unwrap_or_default());
    lines.extend_from_slice(b"\r\nPING\r\n");
    Ok(lines)
}

/// The certificates that are trusted and, if there is one, the client's own.
///
/// # Errors
///
/// A file cannot be read, or has none.
pub(super) fn tls(options: &ConnectOptions) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    match &options.tls_ca {
        Some(path) => {
            for certificate in certificates("TLS certificate authority", path)? {
                roots.add(certificate)?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match (&options.tls_cert, &options.tls_key) {
        (Some(certificate), Some(key)) => {
            let chain = certificates("TLS client certificate", certificate)?;
            let text = read("TLS client key", key)?;
            let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
                .map_err(|error| unreadable(key, &error))?;
            config.with_client_auth_cert(chain, key)?
        }
        _ => config.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error(transparent)]
    Options(#[from] ConnectError),
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    #[error(transparent)]
    File(#[from] io::Error),
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(what, path)?;
    let all = CertificateDer::pem_slice_iter(text.as_bytes());
    let all: Result<Vec<_>, _> = all.collect();
    Ok(all.map_err(|error| unreadable(path, &error))?)
}

fn unreadable(path: &Path, error: &dyn std::error::Error) -> io::Error {
    let why = format!("{}: {error}", path.display());
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The files are small, and a connection is not opened often.
fn read(what: &'static str, path: &Path) -> Result<String, ConnectError> {
    fs::read_to_string(path).map_err(|source| ConnectError::ReadFile {
        what,
        path: PathBuf::from(path),
        source,
    })
}
