//! The time of the world for moments of this process.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Difference from which the system's clock was set, rather than read a little later than the other one.
const SET: Duration = Duration::from_millis(100);

/// Both clocks at one moment. Reading both for each span would put a span a little before the one that it is
/// within, so the difference between them stays until the system's clock is set.
pub(super) struct Clock(Mutex<(Instant, SystemTime)>);

impl Default for Clock {
    fn default() -> Self {
        Self(Mutex::new((Instant::now(), SystemTime::now())))
    }
}

impl Clock {
    /// When that was.
    pub(super) fn at(&self, moment: Instant) -> SystemTime {
        self.read(moment, Instant::now(), SystemTime::now())
    }

    fn read(&self, moment: Instant, now: Instant, real: SystemTime) -> SystemTime {
        let mut both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = shifted(*both, now);
        let off = real
            .duration_since(expected)
            .unwrap_or_else(|early| early.duration());
        if off > SET {
            *both = (now, real);
        }
        shifted(*both, moment)
    }
}

fn shifted((instant, time): (Instant, SystemTime), moment: Instant) -> SystemTime {
    let later = time.checked_add(moment.saturating_duration_since(instant));
    let earlier = instant.saturating_duration_since(moment);
    later
        .and_then(|time| time.checked_sub(earlier))
        .unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_keep_their_order_until_the_clock_is_set() {
        let clock = Clock::default();
        let (instant, time) = *clock.0.lock().unwrap();
        let ms = Duration::from_millis;
        let at = |moment, real| clock.read(instant + ms(moment), instant + ms(10), real);
        // Read later than it was.
        let first = at(1, time + ms(60));
        assert_eq!(first, time + ms(1));
        assert_eq!(at(2, time + ms(10)), time + ms(2));
        let before = clock.read(instant - ms(5), instant, time);
        assert_eq!(before, time - ms(5));
        // An hour ahead.
        let hour = Duration::from_secs(3_600);
        assert_eq!(at(4, time + hour), time + hour - ms(6));
        assert_eq!(at(4, time + hour), time + hour - ms(6));
        assert_eq!(at(4, time + ms(10)), time + ms(4));
    }
}
