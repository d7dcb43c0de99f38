//! Who a client is by the certificate that it showed when its connection began. That it is valid, and of an authority
//! that is asked, the handshake has found out.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use x509_cert::Certificate as X509;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::{Client, Denied};
use crate::claims::{self, Claims, Proof};
use crate::text::hex;

/// What a connection began with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Certificate {
    /// None, or that of a proxy.
    #[default]
    Missing,
    /// One of this client.
    Of(Arc<Client>),
    /// One that services cannot get to know.
    Unusable(String),
}

impl Certificate {
    /// Reads the client's own certificate of the chain that it showed.
    pub(in crate::gateway) fn read(der: Option<&[u8]>) -> Self {
        match der.map(client) {
            None => Self::Missing,
            Some(Ok(client)) => Self::Of(Arc::new(client)),
            Some(Err(why)) => Self::Unusable(why),
        }
    }

    /// The client of one.
    pub(super) fn client(&self) -> Result<&Client, Denied> {
        match self {
            Self::Missing => Err(Denied::Missing),
            Self::Of(client) => Ok(client),
            Self::Unusable(why) => Err(Denied::Invalid(why.clone())),
        }
    }
}

fn client(der: &[u8]) -> Result<Client, String> {
    let broken = |_| "the certificate has what cannot be read".to_owned();
    let certificate = X509::from_der(der).map_err(broken)?.tbs_certificate;
    let names = certificate.get::<SubjectAltName>().map_err(broken)?;
    let names = names.map(|(_, names)| names.0).unwrap_or_default();
    let names: Vec<_> = names.iter().filter_map(named).collect();
    let mut by_kind: Map<String, Value> = Map::new();
    for (kind, name) in &names {
        let all = by_kind.entry(*kind).or_insert_with(|| json!([]));
        if let Value::Array(all) = all {
            all.push(name.as_str().into());
        }
    }
    let mut claims = Map::new();
    let digits = hex(certificate.serial_number.as_bytes());
    claims.insert("serial".to_owned(), digits.into());
    claims.insert("sha256".to_owned(), hex(&Sha256::digest(der)).into());
    if !by_kind.is_empty() {
        claims.insert("san".to_owned(), by_kind.into());
    }
    // As RFC 4514 writes it. Certificates of workloads often have no name but an alternative one.
    let subject = certificate.subject.to_string();
    let subject = match (subject.is_empty(), names.first()) {
        (false, _) => Some(subject),
        (true, Some((kind, name))) => Some(format!("{kind}:{name}")),
        (true, None) => None,
    };
    let written = Claims {
        auth: Proof::Certificate,
        subject: subject.as_deref().map(Into::into),
        scopes: Vec::new(),
        claims,
    };
    let claims = written.write().ok_or_else(|| {
        let max = claims::MAX;
        format!("the certificate's names have more than {max} bytes")
    })?;
    Ok(Client {
        proof: Proof::Certificate,
        subject: subject.map(Into::into),
        scopes: Vec::new(),
        claims,
    })
}

/// The kind of an alternative name, and its text. Other kinds than these are left out.
fn named(name: &GeneralName) -> Option<(&'static str, String)> {
    Some(match name {
        GeneralName::DnsName(name) => ("dns", name.to_string()),
        GeneralName::UniformResourceIdentifier(uri) => ("uri", uri.to_string()),
        GeneralName::Rfc822Name(address) => ("email", address.to_string()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let address = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            let address = address.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
            ("ip", address.ok()?.to_string())
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    fn read(pem: &[u8]) -> Certificate {
        let der = CertificateDer::from_pem_slice(pem).unwrap();
        Certificate::read(Some(&der))
    }

    macro_rules! file {
        ($name:literal) => {
            include_bytes!(concat!("../../../tests/it/gateway/tls/", $name, ".pem"))
        };
    }

    #[test]
    fn a_certificate_names_its_client() {
        let Certificate::Of(client) = read(file!("named")) else {
            panic!("unusable");
        };
        let claims = Claims::read(&client.claims).unwrap();
        assert_eq!(claims.auth, Proof::Certificate);
        let subject = r"CN=till-7,OU=Stores,O=Shop\, Inc,C=PT";
        assert_eq!(claims.subject.as_deref(), Some(subject));
        assert_eq!(client.subject.as_deref(), Some(subject));
        assert_eq!(claims.claims["serial"], "02");
        assert_eq!(claims.claims["sha256"].as_str().unwrap().len(), 64);
        let names = json!({
            "dns": ["till-7.shop.example"],
            "uri": ["spiffe://shop.example/till/7"],
            "email": ["till@shop.example"],
            "ip": ["10.0.0.7", "2001:db8::7"],
        });
        assert_eq!(claims.claims["san"], names);
        let Certificate::Of(client) = read(file!("nameless")) else {
            panic!("unusable");
        };
        let subject = Some("uri:spiffe://shop.example/nameless");
        assert_eq!(client.subject.as_deref(), subject);
    }

    #[test]
    fn one_that_says_too_much_or_nothing_that_can_be_read_is_unusable() {
        let why = |certificate: Certificate| match certificate {
            Certificate::Unusable(why) => why,
            other => panic!("{other:?}"),
        };
        let large = "the certificate's names have more than 8192 bytes";
        assert_eq!(why(read(file!("huge"))), large);
        let der = CertificateDer::from_pem_slice(file!("named")).unwrap();
        for broken in [&b""[..], b"\x30\x80", &der[..der.len() / 2], &[0x30; 64]] {
            let broken = Certificate::read(Some(broken));
            assert_eq!(why(broken), "the certificate has what cannot be read");
        }
        assert_eq!(Certificate::read(None), Certificate::Missing);
    }
}
