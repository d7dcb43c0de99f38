//! Who may have a connection: so many in all, so many for each peer, and a few more that are for
//! health checks alone.
//!
//! A connection that waits for nothing costs its client next to nothing, so idle ones must not keep
//! others out: where a bound is reached, the longest idle makes room. Only where all are busy with
//! requests is a new one taken in reserve. Everything else than a health check is turned away
//! there, and so it is free again at once.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::connection::Activity;

/// Connections beyond the bound. Those without a request make room for the next here as well, so
/// what counts is how many clients connect within a health check's round trip.
pub const RESERVE: usize = 64;

/// Pause between two warnings that all connections are busy.
const WARN_PAUSE: Duration = Duration::from_secs(10);

/// The connections of one address, for all workers that serve it.
pub(crate) struct Places {
    total: usize,
    peer: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Connection>,
    /// How many of each peer are not in reserve.
    peers: HashMap<IpAddr, usize>,
    reserve: usize,
    warned: Option<Instant>,
}

struct Connection {
    peer: IpAddr,
    activity: Arc<Activity>,
    evict: oneshot::Sender<()>,
}

/// The right to have a connection; dropping it gives it back.
pub(crate) struct Place {
    places: Arc<Places>,
    id: u64,
    pub(super) activity: Arc<Activity>,
    /// Resolves when the connection is to make room for another.
    pub(super) evicted: oneshot::Receiver<()>,
}

impl Places {
    /// Room for `total` connections, no more than `peer` of them for one peer.
    pub(crate) fn new(total: usize, peer: usize) -> Self {
        Self {
            total,
            peer,
            open: Mutex::default(),
        }
    }

    /// A place for a connection of this peer. `None` if even the reserve is busy.
    ///
    /// # Cost
    ///
    /// Looks at all open connections where a bound is reached.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let (now, peer) = (Instant::now(), network(address));
        let mut open = self.open();
        let of_peer = open.peers.get(&peer).copied().unwrap_or_default();
        let ordinary = open.connections.len() - open.reserve;
        let fits = if of_peer >= self.peer {
            open.evict(|other| !other.activity.in_reserve() && other.peer == peer)
        } else {
            ordinary < self.total || open.evict(|other| !other.activity.in_reserve())
        };
        if !fits {
            if open.warned.is_none_or(|at| now - at >= WARN_PAUSE) {
                open.warned = Some(now);
                tracing::warn!(
                    peer = %address, open = ordinary, of_peer,
                    "all connections are busy; further ones are for health checks only"
                );
            }
            if open.reserve >= RESERVE && !open.evict(|other| other.activity.in_reserve()) {
                return None;
            }
        }
        let activity = Arc::new(Activity::new(address, now, !fits));
        let (evict, evicted) = oneshot::channel();
        let id = open.insert(Connection {
            peer,
            activity: Arc::clone(&activity),
            evict,
        });
        drop(open);
        Some(Place {
            places: Arc::clone(self),
            id,
            activity,
            evicted,
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn insert(&mut self, connection: Connection) -> u64 {
        let id = self.next;
        self.next += 1;
        if connection.activity.in_reserve() {
            self.reserve += 1;
        } else {
            *self.peers.entry(connection.peer).or_default() += 1;
        }
        self.connections.insert(id, connection);
        id
    }

    fn remove(&mut self, id: u64) -> Option<Connection> {
        let connection = self.connections.remove(&id)?;
        if connection.activity.in_reserve() {
            self.reserve -= 1;
        } else if let Some(count) = self.peers.get_mut(&connection.peer) {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&connection.peer);
            }
        }
        Some(connection)
    }

    /// Closes the longest idle of those that are meant. False if all of them are busy.
    fn evict(&mut self, meant: impl Fn(&Connection) -> bool) -> bool {
        let candidates = self.connections.iter().filter(|(_, other)| meant(other));
        let idle = candidates.filter_map(|(id, other)| Some((other.activity.idle_since()?, *id)));
        let Some((_, id)) = idle.min() else {
            return false;
        };
        if let Some(connection) = self.remove(id) {
            // One that has ended since needs no telling.
            let _ = connection.evict.send(());
        }
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.open().remove(self.id);
    }
}

/// What counts as one peer: an IPv4 address, or the /64 of an IPv6 address, which is what one
/// client has at least.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & (u128::MAX << 64);
            Ipv6Addr::from_bits(prefix).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn is_evicted(place: &mut Place) -> bool {
        place.evicted.try_recv().is_ok()
    }

    /// Whether it is of the reserve, and whether it was evicted.
    fn state(place: &mut Place) -> (bool, bool) {
        (place.activity.in_reserve(), is_evicted(place))
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_makes_room() {
        let places = Arc::new(Places::new(3, 3));
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(places.enter(peer(1)).unwrap());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        // The first was used since, and the second is being used.
        drop(all[0].activity.begin(Instant::now()));
        let running = all[1].activity.begin(Instant::now());
        let mut new = places.enter(peer(2)).unwrap();
        assert_eq!(state(&mut new), (false, false));
        let evicted: Vec<_> = all.iter_mut().map(is_evicted).collect();
        assert_eq!(evicted, [false, false, true]);
        drop(running);
    }

    #[test]
    fn a_peer_makes_room_for_itself_only() {
        let places = Arc::new(Places::new(10, 2));
        let mut other = places.enter(peer(2)).unwrap();
        let mut first = places.enter(peer(1)).unwrap();
        let mut second = places.enter(peer(1)).unwrap();
        let third = places.enter(peer(1)).unwrap();
        assert!(!third.activity.in_reserve());
        let evicted = [&mut other, &mut first, &mut second].map(is_evicted);
        assert_eq!(evicted, [false, true, false]);
        // A place that is given back is free.
        drop((second, third));
        let again = places.enter(peer(1)).unwrap();
        assert!(!again.activity.in_reserve());
        assert_eq!(places.open().peers.len(), 2);
        drop((other, first, again));
        assert!(places.open().peers.is_empty());
        assert!(places.open().connections.is_empty());
    }

    #[test]
    fn where_all_are_busy_there_is_a_reserve() {
        let places = Arc::new(Places::new(2, 1));
        let busy = |of| {
            let place = places.enter(peer(of)).unwrap();
            let running = place.activity.begin(Instant::now());
            (place, running)
        };
        let _ordinary = [busy(1), busy(2)];
        for of in [1, 3] {
            assert!(places.enter(peer(of)).unwrap().activity.in_reserve());
        }
        let mut idle = places.enter(peer(3)).unwrap();
        let mut reserve: Vec<_> = (1..RESERVE).map(|_| busy(3)).collect();
        assert!(!is_evicted(&mut idle));
        reserve.push(busy(3));
        assert!(is_evicted(&mut idle));
        // All of it is busy now.
        assert!(places.enter(peer(3)).is_none());
        reserve.clear();
        assert!(places.enter(peer(3)).unwrap().activity.in_reserve());
        assert_eq!(places.open().reserve, 0);
    }

    #[test]
    fn a_peer_is_an_address_or_a_network() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("10.0.0.7"), "10.0.0.7");
        assert_eq!(network("::ffff:10.0.0.7"), "10.0.0.7");
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
