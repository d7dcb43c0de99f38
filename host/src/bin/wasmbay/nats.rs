//! The options of an existing NATS system.

mod context;

use std::path::PathBuf;

use wasmbay::nats::{ConnectOptions, Nkey};

use crate::args::Nats;

impl Nats {
    /// How to connect, if a server or a context was named. What is given beside a context takes the place
    /// of what the context says.
    ///
    /// # Errors
    ///
    /// The context cannot be read.
    pub(crate) fn options(&self) -> anyhow::Result<Option<ConnectOptions>> {
        let url = self.url.clone().filter(|url| !url.is_empty());
        let context = self.context.as_deref().filter(|name| !name.is_empty());
        let context = context.map(context::read).transpose()?;
        let mut options = match (context, url) {
            (None, None) => return Ok(None),
            (None, Some(url)) => ConnectOptions::to(url),
            (Some(context), None) => context,
            (Some(context), Some(url)) => ConnectOptions {
                urls: vec![url],
                ..context
            },
        };
        let place = |option: &mut Option<PathBuf>, given: Option<PathBuf>| {
            *option = given.or_else(|| option.take());
        };
        place(&mut options.credentials, self.creds.clone());
        place(&mut options.tls_ca, self.ca.clone());
        place(&mut options.tls_cert, self.cert.clone());
        place(&mut options.tls_key, self.key.clone());
        if self.context.is_none() {
            options.credentials = options.credentials.or_else(given_creds);
        }
        options.nkey = self.nkey.clone().map(Nkey::File).or(options.nkey);
        options.js_domain = self.js_domain.clone().or(options.js_domain);
        options.inbox_prefix = self.inbox_prefix.clone().or(options.inbox_prefix);
        options.tls_first |= self.tls_first;
        Ok(Some(options))
    }
}

/// The credentials file of the environment. Not an argument's `env`, as the variable may be set while
/// no server is named, and is then without meaning.
fn given_creds() -> Option<PathBuf> {
    let file = std::env::var_os("NATS_CREDS")?;
    (!file.is_empty()).then(|| file.into())
}
