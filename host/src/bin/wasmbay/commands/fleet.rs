//! What the verbs of a fleet share: reaching its store, and writing the next revision of an app.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use wasmbay::fleet::{Break, Kept, Signed, Store, StoreError};
use wasmbay::manifest::{App, Specification};
use wasmbay::nats::{ConnectOptions, Link};
use wasmbay::text::nearest;

use super::{alone, server};
use crate::args::Nats;
use crate::report::{failure, plain};

/// A fleet that was reached.
pub(super) struct Fleet {
    pub(super) store: Store,
    nats: ConnectOptions,
}

impl Fleet {
    /// Reaches the fleet on the NATS system that is named; else that of `wasmbay up` in this folder or one above
    /// it, if what is meant can be its app; else that of a host on this machine.
    pub(super) async fn reach(nats: &Nats, app: Option<&str>) -> anyhow::Result<Self> {
        let here = std::env::current_dir().context("the working directory")?;
        Self::reach_from(nats, app, &here).await
    }

    /// As [`reach`](Self::reach), with another folder.
    pub(super) async fn reach_from(
        nats: &Nats,
        app: Option<&str>,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let options = match nats.options()? {
            Some(options) => options,
            None => match alone::reach(app, folder).await? {
                Some(options) => options,
                None => on_this_machine().ok_or_else(|| {
                    failure(
                        "no host of this user runs a NATS system on this machine",
                        "`wasmbay host` or `wasmbay up` starts one; `--nats nats://HOST:4222` reaches a fleet elsewhere",
                    )
                })?,
            },
        };
        let nats = options.named("wasmbay");
        let context = nats.jetstream(nats.connect().await?);
        let store = Store::open(context).await?;
        Ok(Self { store, nats })
    }

    pub(super) async fn link(&self) -> anyhow::Result<Link> {
        Ok(self.nats.link().await?)
    }

    /// A connection for what a login may do without: what is refused there is no failure of the verb.
    pub(super) async fn optional_link(&self) -> anyhow::Result<Link> {
        Ok(self.nats.with_own_violations().link().await?)
    }

    /// Whether an app still runs what it did. A rollout that has ended since changes that, and no revision.
    ///
    /// # Errors
    ///
    /// It runs something else.
    pub(super) async fn still_runs(&self, app: &str, before: Option<&Kept>) -> anyhow::Result<()> {
        let now = self.find(app).await?;
        let works = |kept: Option<&Kept>| kept.and_then(|kept| kept.revision.works()).cloned();
        if works(now.as_ref()) == works(before) {
            return Ok(());
        }
        let app = app.to_owned();
        Err(StoreError::Conflict { app }.into())
    }

    /// The last revision of an app that is deployed.
    pub(super) async fn deployed(&self, app: &str) -> anyhow::Result<(Kept, Specification)> {
        let kept = self.app(app).await?;
        match kept.revision.specification.clone() {
            Some(specification) => Ok((kept, specification)),
            None => Err(failure(
                format!(
                    "app \"{}\" was undeployed by {}",
                    plain(app),
                    plain(&kept.revision.author)
                ),
                format!("`wasmbay rollback {app}` deploys it again"),
            )),
        }
    }

    /// The last revision of an app, deployed or not.
    pub(super) async fn app(&self, app: &str) -> anyhow::Result<Kept> {
        if let Some(kept) = self.find(app).await? {
            return Ok(kept);
        }
        let apps = self.store.apps().await?;
        let names: Vec<_> = apps.keys().map(|name| format!("`{name}`")).collect();
        let known = if names.is_empty() {
            "there is none yet; `wasmbay deploy` deploys one".to_owned()
        } else {
            format!("there is {}", names.join(", "))
        };
        Err(failure(
            format!("there is no app \"{}\"", plain(app)),
            known,
        ))
    }

    pub(super) async fn find(&self, app: &str) -> anyhow::Result<Option<Kept>> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        // No other text can be a name, and some are no keys.
        if app.is_empty() || !app.chars().all(plain) {
            return Ok(None);
        }
        Ok(self.store.app(app).await?)
    }
}

/// Refuses what breaks something, unless that is forced; returns what is to be written down.
pub(super) fn gate(breaks: &[Break], force: bool) -> anyhow::Result<Vec<String>> {
    let lines: Vec<String> = breaks.iter().map(ToString::to_string).collect();
    if lines.is_empty() || force {
        return Ok(lines);
    }
    Err(failure(
        format!(
            "it is refused, since it breaks what runs:\n  {}",
            lines.join("\n  ")
        ),
        "keep what is there and add to it, give the interface another version, or `--force`",
    ))
}

/// A change, as it is signed here and now.
pub(super) fn signed(message: Option<String>) -> Signed {
    Signed {
        author: author(),
        at: now(),
        message,
        source: None,
    }
}

/// Now, as RFC 3339.
pub(super) fn now() -> String {
    // Formatting fails for years beyond 9999 only.
    OffsetDateTime::now_utc()
        .format(&Rfc3339)
        .unwrap_or_default()
}

/// Who asks, as far as this machine says.
pub(super) fn author() -> String {
    let user = ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok());
    let user = user.filter(|user| !user.is_empty());
    let user = user.unwrap_or_else(|| "someone".to_owned());
    format!("{user}@{}", machine())
}

/// The name of this machine.
pub(super) fn machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost" } else { name }.to_owned()
}

/// The NATS system that a host of this user runs on this machine.
pub(super) fn on_this_machine() -> Option<ConnectOptions> {
    server::running(&data().join(NATS_DATA)).map(ConnectOptions::to)
}

/// Where hosts of this user keep what they need, without a folder of an app.
pub(super) fn data() -> PathBuf {
    let variable = |name: &str| {
        let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
        Some(PathBuf::from(value))
    };
    let state = variable("XDG_STATE_HOME");
    let state = state.or_else(|| Some(variable("HOME")?.join(".local/state")));
    let state = state.unwrap_or_else(|| PathBuf::from(".wasmbay"));
    state.join("wasmbay")
}

/// NATS in that folder.
pub(super) const NATS_DATA: &str = "nats";

/// A service of an app, as it is typed.
#[derive(Clone, Debug)]
pub(super) struct ServiceName {
    pub(super) app: String,
    pub(super) service: String,
}

impl FromStr for ServiceName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((app, service)) if !app.is_empty() && !service.is_empty() => Ok(Self {
                app: app.to_owned(),
                service: service.to_owned(),
            }),
            _ => Err("accepted: APP/SERVICE, such as shop/orders"),
        }
    }
}

/// An app that is deployed has no service of this name.
pub(super) fn no_service(app: &App, service: &str) -> anyhow::Error {
    let names: Vec<_> = app.services.keys().map(String::as_str).collect();
    let meant = nearest(service, names.iter().copied());
    let meant = meant.map(|name| format!("; did you mean `{name}`?"));
    failure(
        format!(
            "app \"{}\" has no service \"{}\"{}",
            app.name,
            plain(service),
            meant.unwrap_or_default()
        ),
        format!("there is {}", names.join(", ")),
    )
}
