//! The options of an existing NATS system.

use wasmbay::nats::{ConnectOptions, Nkey};

use crate::args::Nats;

impl Nats {
    /// How to connect, when somebody said where.
    pub(crate) fn options(&self) -> Option<ConnectOptions> {
        let url = self.url.clone().filter(|url| !url.is_empty())?;
        Some(ConnectOptions {
            credentials: self.creds.clone(),
            nkey: self.nkey.clone().map(Nkey::File),
            tls_ca: self.ca.clone(),
            tls_cert: self.cert.clone(),
            tls_key: self.key.clone(),
            js_domain: self.js_domain.clone(),
            ..ConnectOptions::to(url)
        })
    }
}
