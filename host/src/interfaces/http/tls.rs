//! The certificate authorities that outgoing HTTPS trusts: those of browsers, and what the operator
//! names in `SSL_CERT_FILE` and `SSL_CERT_DIR`, as OpenSSL has them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use wasmtime_wasi_http::Error;

/// The configuration of all TLS connections, read when the first is made.
pub(crate) fn config() -> Result<Arc<ClientConfig>, Error> {
    static CONFIG: OnceLock<Option<Arc<ClientConfig>>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let path = |name| std::env::var_os(name).map(PathBuf::from);
        let roots = roots(path("SSL_CERT_FILE"), path("SSL_CERT_DIR"));
        configure(roots)
            .map_err(|error| tracing::error!(%error, "outgoing HTTPS cannot be set up"))
            .ok()
    });
    config.clone().ok_or(Error::ConfigurationError)
}

fn configure(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn roots(file: Option<PathBuf>, dir: Option<PathBuf>) -> RootCertStore {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.into(),
    };
    if let Some(file) = file {
        add(&mut roots, &file);
    }
    let entries = dir.map(|dir| (std::fs::read_dir(&dir), dir));
    match entries {
        None => {}
        Some((Ok(entries), _)) => {
            // Folders of other programs' certificates stand there as well.
            for path in entries.flatten().map(|entry| entry.path()) {
                if path.is_file() {
                    add(&mut roots, &path);
                }
            }
        }
        Some((Err(error), dir)) => {
            tracing::warn!(dir = %dir.display(), %error, "SSL_CERT_DIR cannot be read");
        }
    }
    roots
}

/// Adds the certificates of a file. One that cannot be used makes connections fail that need it,
/// which then say so; the others go on.
fn add(roots: &mut RootCertStore, file: &Path) {
    let certificates = match CertificateDer::pem_file_iter(file) {
        Ok(certificates) => certificates,
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "certificates cannot be read");
            return;
        }
    };
    let (added, ignored) = roots.add_parsable_certificates(certificates.flatten());
    if added == 0 || ignored > 0 {
        tracing::warn!(file = %file.display(), added, ignored, "not all of a file are certificates that can be used");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A self-signed certificate, made with `openssl req -x509 -newkey ec -pkeyopt
    /// ec_paramgen_curve:P-256 -nodes -subj /CN=test -days 36500`.
    const CERTIFICATE: &str = include_str!("test-ca.pem");

    #[test]
    fn certificates_of_a_file_and_of_a_folder_are_trusted_besides() {
        let own = roots(None, None).len();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, CERTIFICATE).unwrap();
        assert_eq!(roots(Some(file), None).len(), own + 1);
        assert_eq!(roots(None, Some(dir.path().into())).len(), own + 1);
    }

    #[test]
    fn what_cannot_be_read_leaves_the_others() {
        let own = roots(None, None).len();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, "no certificate").unwrap();
        assert_eq!(roots(Some(file), None).len(), own);
        let nowhere = dir.path().join("nowhere");
        assert_eq!(roots(Some(nowhere.clone()), Some(nowhere)).len(), own);
        configure(roots(None, None)).unwrap();
    }
}
