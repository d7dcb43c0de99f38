//! Time and random for a durable function. Both follow from its run, so that the function takes the same way
//! when it is run again: time stands still between the outcomes of two of its calls, and what is random comes
//! from a seed.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand_core::{Rng as _, TryRng};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::clocks::WasiClocksCtxView;
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock::Host as _;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtxBuilder, WasiView};

use super::CallerView;

/// Nanoseconds of a millisecond, which a journal counts in.
const MILLI: u64 = 1_000_000;

/// Bytes of a seed.
pub(crate) const SEED: usize = 32;

/// What a durable function sees of time and random.
pub(crate) struct Recorded {
    seed: [u8; SEED],
    /// When its run began, in nanoseconds since 1970.
    began: u64,
    /// What time it is for the function, in nanoseconds since 1970.
    now: AtomicU64,
    /// Whether the function does what it did before.
    replaying: AtomicBool,
}

impl Recorded {
    /// Of a run that began so many milliseconds after 1970.
    pub(crate) fn new(seed: [u8; SEED], began: u64) -> Arc<Self> {
        let began = began.saturating_mul(MILLI);
        Arc::new(Self {
            seed,
            began,
            now: AtomicU64::new(began),
            replaying: AtomicBool::new(false),
        })
    }

    /// Notes that a call of the function has ended at this time, in milliseconds since 1970.
    pub(crate) fn ended(&self, time: u64) {
        self.advance(time.saturating_mul(MILLI));
    }

    /// Time does not go back.
    fn advance(&self, time: u64) {
        self.now.fetch_max(time, Ordering::Relaxed);
    }

    /// Says whether the function does what it did before.
    pub(crate) fn replay(&self, replaying: bool) {
        self.replaying.store(replaying, Ordering::Relaxed);
    }

    /// Whether the function does what it did before, so that what it prints was printed.
    pub(crate) fn is_replaying(&self) -> bool {
        self.replaying.load(Ordering::Relaxed)
    }

    fn since_1970(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// What the monotonic clock says. It does not begin with zero, with which the runtime of Go does not start.
    fn monotonic(&self) -> u64 {
        self.since_1970().saturating_sub(self.began) + MILLI
    }
}

/// Gives a new instance the time and the random of a run.
pub(super) fn record(context: &mut WasiCtxBuilder, recorded: &Arc<Recorded>) {
    let random = |label| Stream::new(&recorded.seed, label);
    let seed = u128::from(random(2).next_u64()) << 64 | u128::from(random(3).next_u64());
    context
        .wall_clock(Clock(Arc::clone(recorded)))
        .monotonic_clock(Clock(Arc::clone(recorded)))
        .secure_random(random(0))
        .insecure_random(random(1))
        .insecure_random_seed(seed);
}

struct Clock(Arc<Recorded>);

impl HostWallClock for Clock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(MILLI)
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.since_1970())
    }
}

impl HostMonotonicClock for Clock {
    fn resolution(&self) -> u64 {
        MILLI
    }

    fn now(&self) -> u64 {
        self.0.monotonic()
    }
}

/// Random bytes: SHA-256 of seed, label and the number of the block. Every version of a host has to make the
/// same of a seed, so no generator of a library stands here.
struct Stream {
    key: Sha256,
    block: u64,
    bytes: [u8; 32],
    used: usize,
}

impl Stream {
    fn new(seed: &[u8; SEED], label: u8) -> Self {
        Self {
            key: Sha256::new_with_prefix(seed).chain_update([label]),
            block: 0,
            bytes: [0; 32],
            used: 32,
        }
    }

    fn next(&mut self) -> u8 {
        if self.used >= self.bytes.len() {
            let block = self.key.clone().chain_update(self.block.to_le_bytes());
            (self.bytes, self.used) = (block.finalize().into(), 0);
            self.block = self.block.wrapping_add(1);
        }
        let byte = self.bytes.get(self.used).copied().unwrap_or_default();
        self.used += 1;
        byte
    }
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(std::array::from_fn(|_| self.next())))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(std::array::from_fn(|_| self.next())))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill_with(|| self.next());
        Ok(())
    }
}

/// A sleep. When it is over it is as late for the function as it wanted: a guest that looks at the clock
/// after it would else sleep again, and forever.
struct Sleep {
    recorded: Arc<Recorded>,
    until: Instant,
    /// Since 1970, for the function.
    wanted: u64,
}

#[wasmtime_wasi::async_trait]
impl Pollable for Sleep {
    async fn ready(&mut self) {
        tokio::time::sleep_until(self.until).await;
        self.recorded.advance(self.wanted);
    }
}

/// `wasi:clocks/monotonic-clock` for a service with durable functions, in the place of wasmtime's: sleeping
/// moves the time of a run on.
pub(crate) fn add_to_linker<T: CallerView + WasiView>(
    linker: &mut Linker<T>,
) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut clock = linker.instance("wasi:clocks/monotonic-clock@0.2.12")?;
    clock.func_wrap(
        "subscribe-duration",
        |mut store: StoreContextMut<'_, T>, (duration,): (u64,)| {
            let state = store.data_mut();
            Ok((match state.caller().recorded.clone() {
                Some(recorded) => sleep(state, recorded, duration)?,
                None => clocks(state).subscribe_duration(duration)?,
            },))
        },
    )?;
    clock.func_wrap(
        "subscribe-instant",
        |mut store: StoreContextMut<'_, T>, (when,): (u64,)| {
            let state = store.data_mut();
            Ok((match state.caller().recorded.clone() {
                Some(recorded) => {
                    let duration = when.saturating_sub(recorded.monotonic());
                    sleep(state, recorded, duration)?
                }
                None => clocks(state).subscribe_instant(when)?,
            },))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

fn clocks<T: WasiView>(state: &mut T) -> WasiClocksCtxView<'_> {
    let view = state.ctx();
    WasiClocksCtxView {
        ctx: view.ctx.clocks(),
        table: view.table,
    }
}

fn sleep<T: WasiView>(
    state: &mut T,
    recorded: Arc<Recorded>,
    nanos: u64,
) -> wasmtime::Result<Resource<DynPollable>> {
    let wanted = recorded.since_1970().saturating_add(nanos);
    // No call takes that long.
    let most = Duration::from_secs(366 * 86_400);
    let until = Instant::now() + Duration::from_nanos(nanos).min(most);
    let table = state.ctx().table;
    let sleep = table.push(Sleep {
        recorded,
        until,
        wanted,
    })?;
    subscribe(table, sleep)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_random_follows_from_the_seed() {
        let bytes = |seed: u8, label| {
            let mut bytes = [0_u8; 100];
            Stream::new(&[seed; SEED], label).fill_bytes(&mut bytes);
            bytes
        };
        assert_eq!(bytes(1, 0), bytes(1, 0));
        assert_ne!(bytes(1, 0), bytes(2, 0));
        assert_ne!(bytes(1, 0), bytes(1, 1));
        // However it is asked for; and fixed, since a run may be begun by one version of a host and ended by another.
        let mut stream = Stream::new(&[1; SEED], 0);
        let (one, two) = (stream.next_u32(), stream.next_u64());
        let all = bytes(1, 0);
        assert_eq!(one.to_le_bytes(), all[..4]);
        assert_eq!(two.to_le_bytes(), all[4..12]);
        let block = Sha256::new().chain_update([1; SEED]).chain_update([0]);
        let block = block.chain_update(1_u64.to_le_bytes()).finalize();
        assert_eq!(block[..], all[32..64]);
    }

    #[test]
    fn time_moves_on_with_the_outcomes_of_calls() {
        let recorded = Recorded::new([0; SEED], 5_000);
        let clock = Clock(Arc::clone(&recorded));
        let wall = || HostWallClock::now(&clock);
        assert_eq!(
            (wall(), HostMonotonicClock::now(&clock)),
            (Duration::from_secs(5), MILLI)
        );
        recorded.ended(5_020);
        assert_eq!(wall(), Duration::from_millis(5_020));
        assert_eq!(HostMonotonicClock::now(&clock), 21 * MILLI);
        recorded.ended(4_000);
        assert_eq!(wall(), Duration::from_millis(5_020));
    }
}
