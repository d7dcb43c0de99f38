//! `rate`: how many requests a client may make, of the gateway and of a route.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::file::Section;
use super::keys::rate;
use super::kinds::{Key, Other};
use super::values::serialize_duration;

/// How many requests a client may make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RateSpec {
    /// So many within the window.
    pub requests: u32,
    /// The window.
    #[serde(serialize_with = "serialize_duration")]
    pub window: Duration,
    /// So many of them at once.
    pub burst: u32,
    /// What one client is.
    pub by: RateBy,
}

/// What one client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateBy {
    /// An address.
    Address,
    /// Who its token or key is for; an address without.
    Client,
    /// What its token says of it; who that is for without.
    Claim(String),
}

impl Serialize for RateBy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Address => serializer.serialize_str("address"),
            Self::Client => serializer.serialize_str("client"),
            Self::Claim(name) => serializer.collect_str(&format_args!("claim:{name}")),
        }
    }
}

fn read_by(text: &str) -> Option<RateBy> {
    match text {
        "address" => Some(RateBy::Address),
        "client" => Some(RateBy::Client),
        other => {
            let name = other
                .strip_prefix("claim:")
                .filter(|name| !name.is_empty())?;
            Some(RateBy::Claim(name.to_owned()))
        }
    }
}

/// Reads a limit.
pub(super) fn read(top: &Section<'_>, key: &Key<Other>) -> Option<RateSpec> {
    if !top.has(key.name) {
        return None;
    }
    let section = top.section(key, &rate::TABLE);
    section.require(&rate::REQUESTS);
    let requests = section.read_or_default(&rate::REQUESTS);
    let burst = section.read(&rate::BURST, &requests);
    if burst > requests {
        let why = format!("`burst` is more than the {requests} of `requests`");
        section.report_key(rate::BURST.name, why);
    }
    let by = section.value(&rate::BY, |value| read_by(value.as_str()?));
    Some(RateSpec {
        requests,
        window: section.read_or_default(&rate::WINDOW),
        burst,
        by: by.map_or(RateBy::Address, |by| by.value),
    })
}
