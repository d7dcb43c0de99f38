//! Who may follow events, or health: so many clients in all, so many of each peer, and fewer than may connect, so
//! that who follows leaves room for who asks.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::StatusCode;

use super::answer::Refusal;
use super::places::network;
use crate::call::Blame;
use crate::manifest::GatewaySpec;

/// Upper bound of the clients that follow the same kind of thing at a time, however many may connect.
pub const MAX_FOLLOWERS: usize = 1_024;

/// The clients that follow something, in all and of one address.
pub(super) struct Followers {
    /// What they follow.
    what: &'static str,
    total: usize,
    peer: usize,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    all: usize,
    peers: HashMap<IpAddr, usize>,
}

/// The right to follow; dropping it gives it back.
pub(super) struct Follows {
    followers: Arc<Followers>,
    peer: IpAddr,
}

impl Followers {
    /// Room for half of the connections, and of those of one peer.
    pub(super) fn new(what: &'static str, spec: &GatewaySpec) -> Self {
        let half = |connections: u32| (connections as usize / 2).clamp(1, MAX_FOLLOWERS);
        Self {
            what,
            total: half(spec.connections),
            peer: half(spec.peer_connections),
            now: Mutex::default(),
        }
    }

    /// The right to follow for a client of this address.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Follows, Refusal> {
        let peer = network(address);
        let mut now = self.now();
        let of_peer = now.peers.get(&peer).copied().unwrap_or_default();
        let what = self.what;
        let why = match (self.total, self.peer) {
            (total, _) if now.all >= total => format!("{total} clients follow {what} already"),
            (_, own) if of_peer >= own => {
                format!("{own} clients of this address follow {what} already")
            }
            _ => {
                now.all += 1;
                now.peers.insert(peer, of_peer + 1);
                drop(now);
                let followers = Arc::clone(self);
                return Ok(Follows { followers, peer });
            }
        };
        Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            Blame::Host,
            why,
        ))
    }

    /// No code under the lock can panic, so the data of a poisoned one is valid.
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Follows {
    fn drop(&mut self) {
        let mut now = self.followers.now();
        now.all -= 1;
        if let Some(count) = now.peers.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                now.peers.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_connections_may_follow_and_half_of_a_peers() {
        let followers = |connections, peer_connections| {
            let spec = GatewaySpec {
                connections,
                peer_connections,
                ..GatewaySpec::default()
            };
            Arc::new(Followers::new("events", &spec))
        };
        let peer = |last: u8| IpAddr::from([10, 0, 0, last]);
        let few = followers(6, 4);
        let refused = |last| few.enter(peer(last)).err().map(|refusal| refusal.message);
        let mut first = [few.enter(peer(1)).unwrap(), few.enter(peer(1)).unwrap()].into_iter();
        let why = "2 clients of this address follow events already";
        assert_eq!(refused(1).as_deref(), Some(why));
        let other = few.enter(peer(2)).unwrap();
        let why = "3 clients follow events already";
        assert_eq!(refused(3).as_deref(), Some(why));
        drop(first.next());
        assert_eq!(refused(1), None);
        drop((first, other));
        assert!(few.now().peers.is_empty() && few.now().all == 0);
        assert_eq!(followers(1, 1).total, 1);
        assert_eq!(followers(1_024, 512).total, 512);
        assert_eq!(followers(100_000, 50_000).peer, MAX_FOLLOWERS);
    }
}
