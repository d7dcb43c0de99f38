//! `[gateway.tls]`: certificates of the gateway, and those that it asks of its clients.

use std::path::PathBuf;

use serde::Serialize;

use super::file::Section;
use super::gateway::{Files, Finding, put_file};
use super::keys::{gateway, tls};

/// Where certificates are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TlsSpec {
    /// The certificate and those between it and its authority, as PEM.
    pub certificate: PathBuf,
    /// Its private key, as PEM.
    pub key: PathBuf,
    /// The authorities of clients' certificates, as PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// Whether clients need one.
    pub client: ClientCertificate,
}

/// Whether a client needs a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    /// None is asked for.
    #[default]
    None,
    /// One that is given has to be valid.
    Optional,
    /// It needs one.
    Required,
}

/// Reads `tls` of the gateway's part.
pub(super) fn read(top: &Section<'_>) -> Option<TlsSpec> {
    if !top.has(gateway::TLS.name) {
        return None;
    }
    let section = top.section(&gateway::TLS, &tls::TABLE);
    section.require(&tls::CERTIFICATE);
    section.require(&tls::KEY);
    let path = |key| section.text(key).map(|path| PathBuf::from(path.value));
    let client_ca = path(&tls::CLIENT_CA);
    let client = section
        .one_of(&tls::CLIENT)
        .map(|client| match client.value {
            "optional" => ClientCertificate::Optional,
            "required" => ClientCertificate::Required,
            _ => ClientCertificate::None,
        });
    let client = client.unwrap_or(match client_ca {
        Some(_) => ClientCertificate::Required,
        None => ClientCertificate::None,
    });
    if client != ClientCertificate::None && !section.has(tls::CLIENT_CA.name) {
        let why = "`client` needs `client-ca`, which says whose certificates are taken";
        section.report_key(tls::CLIENT.name, why);
    }
    Some(TlsSpec {
        certificate: path(&tls::CERTIFICATE).unwrap_or_default(),
        key: path(&tls::KEY).unwrap_or_default(),
        client_ca,
        client,
    })
}

/// The files that `tls` names.
pub(super) fn find_files(top: &Section<'_>, finding: &Finding<'_>, files: &mut Files) {
    let section = top.section(&gateway::TLS, &tls::TABLE);
    for key in [&tls::CERTIFICATE, &tls::KEY, &tls::CLIENT_CA] {
        finding.file(&section, key, files);
    }
}

impl TlsSpec {
    pub(super) fn put_files(&mut self, files: &Files) {
        let own = [&mut self.certificate, &mut self.key].into_iter();
        for path in own.chain(&mut self.client_ca) {
            put_file(path, files);
        }
    }
}
