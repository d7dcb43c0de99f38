//! `trusted-proxies` of the gateway: who may say for whom a request is.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::file::Section;
use super::keys::gateway;
use crate::text::shown;

/// Upper bound of the networks of one gateway: each request of a proxy is compared with all of them.
const MAX_NETWORKS: usize = 256;

/// Addresses of proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether an address is one of these. One of IPv4 in the form of IPv6 is not known as such.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Reads `trusted-proxies` of the gateway's part.
pub(super) fn read(section: &Section<'_>) -> Option<Networks> {
    let key = &gateway::TRUSTED_PROXIES;
    let given = section.texts(key);
    if given.len() > MAX_NETWORKS {
        let why = format!(
            "`{}` has {} networks; accepted: {MAX_NETWORKS}",
            key.name,
            given.len()
        );
        section.report_key(key.name, why);
    }
    let mut networks = Vec::new();
    for text in given {
        match network(text.value) {
            Ok(network) => networks.push(network),
            Err(why) => {
                let why = format!("`{}`: `{}` {why}", key.name, shown(text.value));
                section.report(text.at, why);
            }
        }
    }
    (!networks.is_empty()).then_some(Networks(networks))
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    let network = address.or_else(|_| text.parse::<IpNet>());
    let network = network.map_err(|_| {
        "is no network; accepted: `10.0.0.0/8`, `2001:db8::/32`, or one address".to_owned()
    })?;
    let whole = network.trunc();
    if whole != network {
        return Err(format!(
            "has bits beyond its prefix; the network is `{whole}`"
        ));
    }
    match network.addr() {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            Err("is IPv4 in the form of IPv6; accepted: `10.0.0.0/8`".to_owned())
        }
        _ => Ok(network),
    }
}
