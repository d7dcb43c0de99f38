//! The options of an existing NATS system.

use std::path::PathBuf;

use wasmbay::nats::{ConnectOptions, Nkey};

use crate::args::Nats;

impl Nats {
    /// How to connect, if a server was named.
    pub(crate) fn options(&self) -> Option<ConnectOptions> {
        let url = self.url.clone().filter(|url| !url.is_empty())?;
        Some(ConnectOptions {
            credentials: self.creds.clone().or_else(given_creds),
            nkey: self.nkey.clone().map(Nkey::File),
            tls_ca: self.ca.clone(),
            tls_cert: self.cert.clone(),
            tls_key: self.key.clone(),
            js_domain: self.js_domain.clone(),
            inbox_prefix: self.inbox_prefix.clone(),
            tls_first: self.tls_first,
            ..ConnectOptions::to(url)
        })
    }
}

/// The credentials file of the environment. Not an argument's `env`, as the variable may be set while
/// no server is named, and is then without meaning.
fn given_creds() -> Option<PathBuf> {
    let file = std::env::var_os("NATS_CREDS")?;
    (!file.is_empty()).then(|| file.into())
}
