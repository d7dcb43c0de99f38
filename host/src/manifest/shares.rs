//! Parts of a hundred, and multiples: `10%` and `2x`, to two decimal places.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use toml::Value;
use toml::de::DeValue;

use super::kinds::{Form, Kind, Setting};

/// A part of a hundred, in hundredths of a percent: 10% is 1,000 of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u32);

/// A multiple, in hundredths: 2x is 200 of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Times(pub u32);

/// Why a text is no [`Percent`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no percentage; accepted: such as 10% or 0.5%")]
pub struct PercentError(pub String);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hundredths(f, self.0)?;
        f.write_str("%")
    }
}

impl FromStr for Percent {
    type Err = PercentError;

    fn from_str(text: &str) -> Result<Self, PercentError> {
        let number = text.strip_suffix('%').and_then(hundredths);
        number.map(Self).ok_or_else(|| {
            let text = crate::text::shown(text).into_owned();
            PercentError(text)
        })
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hundredths(f, self.0)?;
        f.write_str("x")
    }
}

fn write_hundredths(f: &mut fmt::Formatter<'_>, number: u32) -> fmt::Result {
    let (whole, part) = (number / 100, number % 100);
    match (part, part % 10) {
        (0, _) => write!(f, "{whole}"),
        (_, 0) => write!(f, "{whole}.{}", part / 10),
        _ => write!(f, "{whole}.{part:02}"),
    }
}

/// `10`, `0.5` or `12.25` as hundredths, read from the digits.
fn hundredths(text: &str) -> Option<u32> {
    let (whole, part) = match text.split_once('.') {
        Some((whole, part)) if (1..=2).contains(&part.len()) => (whole, part),
        Some(_) => return None,
        None => (text, "0"),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return None;
    }
    let scale = if part.len() == 1 { 10 } else { 1 };
    let part = part.parse::<u32>().ok()? * scale;
    whole
        .parse::<u32>()
        .ok()?
        .checked_mul(100)?
        .checked_add(part)
}

/// A percentage within bounds.
pub(crate) struct Percents {
    pub(crate) default: Percent,
    pub(super) range: RangeInclusive<Percent>,
}

impl Kind for Percents {
    fn form(&self) -> Form {
        let (min, max) = (self.range.start(), self.range.end());
        Form {
            kind: "percentage",
            default: self.default.to_string(),
            accepted: format!("\"10%\" or \"0.5%\", {min} to {max}"),
        }
    }
}

impl Setting for Percents {
    type Value = Percent;

    fn default(&self) -> Percent {
        self.default
    }

    fn read(&self, value: &DeValue<'_>) -> Option<Percent> {
        let percent = value.as_str()?.parse().ok()?;
        self.range.contains(&percent).then_some(percent)
    }

    fn write(&self, value: &Percent) -> Option<Value> {
        Some(Value::String(value.to_string()))
    }
}

/// A multiple within bounds; none unless given.
pub(crate) struct Multiple {
    pub(super) range: RangeInclusive<Times>,
}

impl Kind for Multiple {
    fn form(&self) -> Form {
        let (min, max) = (self.range.start(), self.range.end());
        Form {
            kind: "multiple",
            default: "none".to_owned(),
            accepted: format!("\"2x\" or \"1.5x\", {min} to {max}"),
        }
    }
}

impl Setting for Multiple {
    type Value = Option<Times>;

    fn default(&self) -> Option<Times> {
        None
    }

    fn read(&self, value: &DeValue<'_>) -> Option<Option<Times>> {
        let times = Times(hundredths(value.as_str()?.strip_suffix('x')?)?);
        self.range.contains(&times).then_some(Some(times))
    }

    fn write(&self, value: &Option<Times>) -> Option<Value> {
        value.map(|times| Value::String(times.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_percentage_is_read_from_its_digits() {
        for (text, hundredths) in [
            ("10%", 1_000),
            ("0.5%", 50),
            ("0.05%", 5),
            ("12.25%", 1_225),
            ("100%", 10_000),
        ] {
            let percent = Percent(hundredths);
            assert_eq!(text.parse(), Ok(percent));
            assert_eq!(percent.to_string(), text);
        }
        for text in [
            "",
            "%",
            "10",
            "1.%",
            ".5%",
            "1.234%",
            "-1%",
            "+1%",
            "1e1%",
            "99999999999%",
        ] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number in 0u32..10_000_000) {
            prop_assert_eq!(Percent(number).to_string().parse(), Ok(Percent(number)));
        }
    }
}
