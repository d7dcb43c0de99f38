//! The options of an existing NATS system.

mod context;

use std::path::PathBuf;
use std::sync::LazyLock;

use wasmbay::nats::{ConnectOptions, Nkey, Violations};

use crate::args::Nats;

/// What servers refuse to the connections of this process, but for those that note it apart.
static REFUSED: LazyLock<Violations> = LazyLock::new(Violations::default);

/// Does what a verb does, and fails at once when a server refuses something of it: what waits for an
/// answer to that would wait in vain.
///
/// # Errors
///
/// That of the verb, or what was refused.
pub(crate) async fn allowed<T>(verb: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    REFUSED.guard(|_| true, verb).await?
}

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
        options.violations = REFUSED.clone();
        Ok(Some(options))
    }
}

/// The credentials file of the environment. Not an argument's `env`, as the variable may be set while
/// no server is named, and is then without meaning.
fn given_creds() -> Option<PathBuf> {
    let file = std::env::var_os("NATS_CREDS")?;
    (!file.is_empty()).then(|| file.into())
}
