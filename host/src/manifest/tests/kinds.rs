//! What keys accept, at the ends of their bounds and beyond them.

use std::fmt::Debug;
use std::time::Duration;

use toml::de::DeValue;

use crate::manifest::kinds::{Bounds, Hundredths, Outcomes, Quantity, Setting, Steps};

/// Reads a value as TOML has it.
fn read<K: Setting>(kind: &K, text: &str) -> Option<K::Value> {
    kind.read(DeValue::parse(text).unwrap().get_ref())
}

fn holds<T: Quantity + Debug>(bounds: &Bounds<T>, within: &[&str], beyond: &[&str]) {
    for text in within {
        assert!(read(bounds, text).is_some(), "{text}");
    }
    for text in beyond {
        assert_eq!(read(bounds, text), None, "{text}");
    }
}

#[test]
fn a_quantity_is_within_its_bounds() {
    let whole = Bounds {
        default: 0,
        range: 0..=u8::MAX,
    };
    holds(&whole, &["0", "255", "0xff"], &["256", "-1", "1.0", "'1'"]);
    let count = Bounds {
        default: 3,
        range: 2..=300_u32,
    };
    holds(&count, &["2", "300", "3_0"], &["1", "301", "5000000000"]);
    let size = Bounds {
        default: 2 << 10,
        range: 1_024..=1_usize << 20,
    };
    holds(
        &size,
        &["1024", "'1KiB'", "'1MiB'"],
        &["1023", "'1023B'", "'1025KiB'", "'1'", "true"],
    );
    let size = Bounds {
        default: 0,
        range: 0..=4_u64 << 30,
    };
    holds(&size, &["0", "'4GiB'"], &["4294967297", "'5GiB'"]);
    let time = Bounds {
        default: Duration::ZERO,
        range: Duration::from_millis(10)..=Duration::from_secs(60),
    };
    holds(&time, &["'10ms'", "'1m'"], &["'9ms'", "'61s'", "10"]);
}

#[test]
fn a_part_has_two_decimal_places_and_is_at_most_one() {
    let part = |text| read(&Hundredths { default: 0 }, text);
    for (text, hundredths) in [
        ("0", 0),
        ("0.0", 0),
        ("0.05", 5),
        ("0.290", 29),
        ("1.0", 100),
    ] {
        assert_eq!(part(text), Some(hundredths), "{text}");
    }
    for text in ["1.01", "2", "0.001", "-0.1", "1e-1", "'0.1'", "inf"] {
        assert_eq!(part(text), None, "{text}");
    }
}

#[test]
fn lists_are_bounded_in_length_and_in_each_item() {
    let steps = |text| {
        let each = Duration::from_millis(1)..=Duration::from_secs(1);
        let (default, most) = (&[][..], 2);
        read(
            &Steps {
                default,
                each,
                most,
            },
            text,
        )
    };
    let millis = Duration::from_millis;
    assert_eq!(steps("['1ms', '1s']"), Some(vec![millis(1), millis(1_000)]));
    for text in [
        "[]",
        "['1ms', '1ms', '1ms']",
        "['0ms']",
        "['2s']",
        "[1]",
        "'1ms'",
    ] {
        assert_eq!(steps(text), None, "{text}");
    }
    assert_eq!(read(&Outcomes, "[]"), Some(vec![]));
    for text in [
        "['err', 'err', 'err', 'err', 'err']",
        "['panic']",
        "[1]",
        "'err'",
    ] {
        assert_eq!(read(&Outcomes, text), None, "{text}");
    }
}

#[test]
fn every_default_is_accepted() {
    use crate::manifest::keys::{gateway, limits, retention, retry, service, wire};
    fn accepted<K: Setting>(kind: &K, default: &K::Value) -> bool {
        let text = kind.write(default).unwrap().to_string();
        read(kind, &text).is_some()
    }
    macro_rules! all {
        ($($table:ident: $($key:ident)*;)*) => {
            $($(
                let kind = &$table::$key.values;
                assert!(accepted(kind, &kind.default()), stringify!($table::$key));
            )*)*
        };
    }
    all! {
        service: REUSE;
        limits: MEMORY TABLES INSTANCES TIMEOUT CONCURRENCY WAIT QUEUE MESSAGE HOPS;
        wire: DURABLE IN_FLIGHT REPLICAS DEDUP;
        retry: ATTEMPTS BACKOFF JITTER ON;
        retention: AGE SIZE;
        gateway: BODY HEADER TIMEOUT CONNECTIONS;
    }
}
