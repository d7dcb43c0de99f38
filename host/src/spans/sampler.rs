//! Which traces are recorded: the samplers of OpenTelemetry's specification, and one for a host whose
//! spans are only looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use opentelemetry::trace::TraceId;

use crate::otlp::OtlpError;

/// The names of the variables.
pub(super) const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
pub(super) const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";

/// Traces that begin in a second and are recorded by [`Sampler::a_few`].
const A_FEW: u32 = 10;

/// Decides by a trace's parent, or by its id, which has the same outcome on every host.
#[derive(Clone, Debug)]
pub(super) struct Sampler {
    /// What the caller decided counts.
    by_parent: bool,
    /// The part of the traces without a parent that counts, from 0 to 1.
    ratio: f64,
    /// Bounds them, instead.
    window: Option<Arc<Window>>,
}

/// Counts what began in a second.
#[derive(Debug)]
struct Window {
    start: Instant,
    /// The second, and the count in the lower half.
    count: AtomicU64,
}

impl Window {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            count: AtomicU64::new(0),
        }
    }

    /// Whether another one may begin in this second.
    fn takes(&self, second: u64) -> bool {
        let next = |state: u64| {
            let state = if state >> 32 == second {
                state
            } else {
                second << 32
            };
            (state & u64::from(u32::MAX) < u64::from(A_FEW)).then_some(state + 1)
        };
        // Full is the common case, and then nothing is written.
        self.count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .is_ok()
    }
}

impl Sampler {
    /// Reads the variables' values.
    ///
    /// # Errors
    ///
    /// One of them is none of the specification's, or no number from 0 to 1.
    pub(super) fn parse(name: Option<&str>, argument: Option<&str>) -> Result<Self, OtlpError> {
        let ratio = || match argument {
            None => Ok(1.0),
            Some(text) => match text.parse() {
                Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
                _ => Err(OtlpError::new(ARGUMENT, text, "a number from 0 to 1")),
            },
        };
        let (by_parent, ratio) = match name.unwrap_or("parentbased_always_on") {
            "always_on" => (false, 1.0),
            "always_off" => (false, 0.0),
            "traceidratio" => (false, ratio()?),
            "parentbased_always_on" => (true, 1.0),
            "parentbased_always_off" => (true, 0.0),
            "parentbased_traceidratio" => (true, ratio()?),
            other => {
                let known = "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or parentbased_traceidratio";
                return Err(OtlpError::new(SAMPLER, other, known));
            }
        };
        Ok(Self {
            by_parent,
            ratio,
            window: None,
        })
    }

    /// Samples ten new traces a second, and what callers have decided to.
    pub(super) fn a_few() -> Self {
        Self {
            by_parent: true,
            ratio: 0.0,
            window: Some(Arc::new(Window::new())),
        }
    }

    /// Whether a trace is recorded, whose caller may have decided.
    pub(super) fn samples(&self, trace: TraceId, parent: Option<bool>) -> bool {
        match parent {
            Some(sampled) if self.by_parent => sampled,
            _ => match &self.window {
                Some(window) => window.takes(window.start.elapsed().as_secs()),
                None => self.counts(trace),
            },
        }
    }

    /// As all SDKs do it: by the lower 63 of the upper bits of the id's last half.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a ratio needs no more than the 52 bits of the mantissa, and is neither negative nor above 1"
    )]
    fn counts(&self, trace: TraceId) -> bool {
        if self.ratio >= 1.0 {
            return true;
        }
        let bytes = trace.to_bytes();
        let mut last = [0; 8];
        last.copy_from_slice(bytes.split_at(8).1);
        let bound = (self.ratio * (1_u64 << 63) as f64) as u64;
        (u64::from_be_bytes(last) >> 1) < bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samplers_are_those_of_the_specification() {
        let sampler = |name, argument| Sampler::parse(Some(name), argument).unwrap();
        let trace = TraceId::from(u128::MAX);
        for (name, alone, sampled, unsampled) in [
            ("always_on", true, true, true),
            ("always_off", false, false, false),
            ("parentbased_always_on", true, true, false),
            ("parentbased_always_off", false, true, false),
        ] {
            let sampler = sampler(name, None);
            let found =
                [None, Some(true), Some(false)].map(|parent| sampler.samples(trace, parent));
            assert_eq!(found, [alone, sampled, unsampled], "{name}");
        }
        assert!(Sampler::parse(None, None).unwrap().samples(trace, None));
        assert!(sampler("traceidratio", None).samples(trace, Some(false)));
    }

    #[test]
    fn a_ratio_samples_that_part_of_all_ids() {
        let sampler = Sampler::parse(Some("parentbased_traceidratio"), Some("0.01")).unwrap();
        let sampled =
            (0..100_000).filter(|_| sampler.samples(TraceId::from(rand::random::<u128>()), None));
        let sampled = sampled.count();
        // Six standard deviations.
        assert!((800..=1_200).contains(&sampled), "{sampled}");
    }

    #[test]
    fn a_few_traces_a_second_are_a_few_whatever_comes() {
        let sampler = Sampler::a_few();
        let trace = TraceId::from(1);
        assert!(sampler.samples(trace, Some(true)) && !sampler.samples(trace, Some(false)));
        let window = Window::new();
        for second in [0, 1, 7, u64::from(u32::MAX)] {
            let taken = (0..1_000).filter(|_| window.takes(second)).count();
            assert_eq!(taken, 10, "second {second}");
        }
    }

    #[test]
    fn what_is_no_sampler_is_refused() {
        for (name, argument) in [
            ("sometimes", None),
            ("traceidratio", Some("2")),
            ("traceidratio", Some("x")),
        ] {
            assert!(
                Sampler::parse(Some(name), argument).is_err(),
                "{name} {argument:?}"
            );
        }
    }
}
