//! `wasi:sockets`, for the endpoints that the manifest grants: connections to them and datagrams, and looking up
//! their names. Nothing listens.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, Linker, Resource};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{Host as _, ResolveAddressStream};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, Host as _, Network};
use wasmtime_wasi::p3::bindings::sockets::ip_name_lookup::{self as p3, HostWithStore as _};
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSockets, WasiSocketsView};

use super::{CallerView, Output};
use crate::manifest::{Endpoint, EndpointHost, ServiceSpec};
use crate::text::shown;

/// Time for which the addresses of a name are remembered.
const FRESH: Duration = Duration::from_secs(60);

/// Upper bound of the time for looking up a name.
const LOOKUP: Duration = Duration::from_secs(5);

/// Addresses of one name that are remembered.
const MAX_ADDRESSES: usize = 256;

/// What a service may reach.
pub(crate) struct Sockets {
    spec: Arc<ServiceSpec>,
    output: Arc<Output>,
    /// The addresses that granted names had lately: who looks one up may get others than the next does.
    addresses: Mutex<HashMap<String, HashMap<IpAddr, Instant>>>,
}

impl Sockets {
    pub(crate) fn new(spec: Arc<ServiceSpec>, output: Arc<Output>) -> Self {
        Self {
            spec,
            output,
            addresses: Mutex::default(),
        }
    }

    /// Gives a new instance what is granted; `used` becomes true when it uses that.
    pub(super) fn grant(self: &Arc<Self>, context: &mut WasiCtxBuilder, used: &Arc<AtomicBool>) {
        let grants = &self.spec.grants;
        context
            .allow_tcp(!grants.tcp.is_empty())
            .allow_udp(!grants.udp.is_empty());
        if grants.tcp.is_empty() && grants.udp.is_empty() {
            return;
        }
        let (sockets, used) = (Arc::clone(self), Arc::clone(used));
        context.allow_ip_name_lookup(true);
        context.socket_addr_check(move |address, purpose| {
            let (sockets, used) = (Arc::clone(&sockets), Arc::clone(&used));
            Box::pin(async move {
                let allowed = sockets.allows(address, purpose).await;
                if allowed {
                    used.store(true, Ordering::Relaxed);
                }
                allowed
            })
        });
    }

    async fn allows(&self, address: SocketAddr, purpose: SocketAddrUse) -> bool {
        let (granted, key) = match purpose {
            // What is about to connect or to send is bound to whatever port is free.
            SocketAddrUse::TcpBind | SocketAddrUse::UdpBind => {
                return address.port() == 0 && address.ip().is_unspecified();
            }
            SocketAddrUse::TcpListen | SocketAddrUse::TcpAccept => {
                self.refuse(format_args!(
                    "listening is for nobody; export a function, or `wasi:http/incoming-handler`"
                ));
                return false;
            }
            SocketAddrUse::TcpConnect => (&self.spec.grants.tcp, "tcp"),
            // Anybody can send here: only who was sent to is heard.
            SocketAddrUse::UdpReceive => return self.is_peer(address),
            SocketAddrUse::UdpSend => (&self.spec.grants.udp, "udp"),
        };
        let ip = address.ip().to_canonical();
        for endpoint in granted.iter().filter(|one| one.port == address.port()) {
            if self.is(endpoint, ip).await {
                return true;
            }
        }
        self.refuse(format_args!(
            "`grants = {{ {key} = [\"{address}\"] }}` would allow it"
        ));
        false
    }

    /// Whether a granted endpoint has this address.
    async fn is(&self, endpoint: &Endpoint, ip: IpAddr) -> bool {
        let name = match &endpoint.host {
            EndpointHost::Address(own) => return own.to_canonical() == ip,
            EndpointHost::Name(name) => name,
        };
        // Whoever answers for a name could else have the guest reach what is for this machine alone.
        if is_near(ip) && name != "localhost" {
            return false;
        }
        if self.is_known(name, ip) {
            return true;
        }
        let found = tokio::net::lookup_host((name.clone(), 0));
        let Ok(Ok(found)) = tokio::time::timeout(LOOKUP, found).await else {
            return false;
        };
        let found: Vec<_> = found.map(|found| found.ip().to_canonical()).collect();
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = addresses.entry(name.clone()).or_default();
        let now = Instant::now();
        known.retain(|_, since| now.duration_since(*since) < FRESH);
        let room = MAX_ADDRESSES.saturating_sub(known.len());
        known.extend(found.iter().take(room).map(|ip| (*ip, now)));
        found.contains(&ip)
    }

    /// Whether datagrams of this address are of a granted endpoint, as far as is known.
    fn is_peer(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let granted = self.spec.grants.udp.iter();
        let mut granted = granted.filter(|endpoint| endpoint.port == address.port());
        granted.any(|endpoint| match &endpoint.host {
            EndpointHost::Address(own) => own.to_canonical() == ip,
            EndpointHost::Name(name) => addresses
                .get(name)
                .is_some_and(|known| known.contains_key(&ip)),
        })
    }

    fn is_known(&self, name: &str, ip: IpAddr) -> bool {
        let addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = addresses.get(name).and_then(|known| known.get(&ip));
        known.is_some_and(|since| since.elapsed() < FRESH)
    }

    /// Whether the name is one of an endpoint.
    fn may_look_up(&self, name: &str) -> bool {
        let grants = &self.spec.grants;
        let mut endpoints = grants.tcp.iter().chain(&grants.udp);
        let is_granted = endpoints.any(|endpoint| endpoint.host.is_named(name));
        if !is_granted {
            self.refuse(format_args!(
                "the name `{}` is of no endpoint in `grants`",
                shown(name)
            ));
        }
        is_granted
    }

    fn refuse(&self, why: std::fmt::Arguments<'_>) {
        if self.output.admits(0) {
            let service = &*self.spec.name;
            tracing::warn!(service, "a socket was refused; {why}");
        }
    }
}

/// Loopback, link-local, or no address of a machine at all.
fn is_near(ip: IpAddr) -> bool {
    let near = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    near || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast()
}

/// Gives the linker access to what a service may reach.
pub(crate) trait SocketsView: CallerView + WasiSocketsView + 'static {
    fn granted(&self) -> &Arc<Sockets>;
}

/// Looking up names, of granted endpoints alone, in the place of wasmtime's own, which has all names or none.
pub(crate) fn add_to_linker<T: SocketsView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut lookup = linker.instance("wasi:sockets/ip-name-lookup@0.2.12")?;
    lookup.func_wrap("resolve-addresses", resolve::<T>)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The same of WASI 0.3.
pub(crate) fn add_concurrent_to_linker<T: SocketsView>(
    linker: &mut Linker<T>,
) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut lookup = linker.instance("wasi:sockets/ip-name-lookup@0.3.0")?;
    lookup.func_wrap_concurrent(
        "resolve-addresses",
        |store: &Accessor<T>, (name,): (String,)| {
            Box::pin(async move {
                let granted = store.with(|mut store| Arc::clone(store.data_mut().granted()));
                if !granted.may_look_up(&name) {
                    return Ok((Err(p3::ErrorCode::AccessDenied),));
                }
                let store = store.with_getter::<WasiSockets>(T::sockets);
                Ok((WasiSockets::resolve_addresses(&store, name).await?,))
            })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

type Resolved = Result<Resource<ResolveAddressStream>, ErrorCode>;

fn resolve<T: SocketsView>(
    mut store: StoreContextMut<'_, T>,
    (network, name): (Resource<Network>, String),
) -> wasmtime::Result<(Resolved,)> {
    if !store.data().granted().may_look_up(&name) {
        return Ok((Err(ErrorCode::AccessDenied),));
    }
    let mut view = store.data_mut().sockets();
    let resolved = match view.resolve_addresses(network, name) {
        Ok(stream) => Ok(stream),
        Err(error) => Err(view.convert_error_code(error)?),
    };
    Ok((resolved,))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_known() {
        for near in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "255.255.255.255",
        ] {
            assert!(is_near(near.parse().unwrap()), "{near}");
        }
        for far in [
            "10.0.0.1",
            "192.168.1.1",
            "8.8.8.8",
            "fd00::1",
            "2001:db8::1",
        ] {
            assert!(!is_near(far.parse().unwrap()), "{far}");
        }
    }
}
