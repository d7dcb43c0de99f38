//! Stock levels as text, and whether an order can be filled from them. Knows nothing of WIT.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Units on hand by SKU, written as `keyboard=25, mouse=3`.
#[derive(Debug)]
pub(crate) struct Levels(BTreeMap<String, u32>);

/// A line that cannot be filled.
#[derive(Debug, PartialEq)]
pub(crate) struct Short {
    pub(crate) sku: String,
    pub(crate) wanted: u32,
    pub(crate) on_hand: u32,
}

/// Why an order cannot be filled.
#[derive(Debug, PartialEq)]
pub(crate) enum Refusal {
    UnknownSku(String),
    Short(Vec<Short>),
}

impl Levels {
    pub(crate) fn on_hand(&self, sku: &str) -> Option<u32> {
        self.0.get(sku).copied()
    }

    /// Whether all lines can be filled at once. Lines of one SKU count together.
    pub(crate) fn check<'a>(
        &self,
        lines: impl IntoIterator<Item = (&'a str, u32)>,
    ) -> Result<(), Refusal> {
        let mut total: BTreeMap<&str, u32> = BTreeMap::new();
        for (sku, quantity) in lines {
            let wanted = total.entry(sku).or_default();
            *wanted = wanted.saturating_add(quantity);
        }
        let mut short = Vec::new();
        for (sku, wanted) in total {
            let on_hand = self
                .on_hand(sku)
                .ok_or_else(|| Refusal::UnknownSku(sku.to_owned()))?;
            if wanted > on_hand {
                short.push(Short {
                    sku: sku.to_owned(),
                    wanted,
                    on_hand,
                });
            }
        }
        if short.is_empty() {
            Ok(())
        } else {
            Err(Refusal::Short(short))
        }
    }
}

impl FromStr for Levels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut levels = BTreeMap::new();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let (sku, units) = part
                .split_once('=')
                .ok_or_else(|| format!("`{part}` is not `sku=units`"))?;
            let sku = sku.trim();
            if sku.is_empty() {
                return Err(format!("`{part}` names no SKU"));
            }
            let units = units.trim().parse().map_err(|_| {
                format!(
                    "`{part}`: the units must be a number from 0 to {}",
                    u32::MAX
                )
            })?;
            if levels.insert(sku.to_owned(), units).is_some() {
                return Err(format!("`{part}`: `{sku}` is there twice"));
            }
        }
        Ok(Self(levels))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownSku(sku) => write!(f, "`{sku}` is not stocked"),
            Self::Short(lines) => {
                for (index, line) in lines.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(
                        f,
                        "{comma}{} of {} wanted, {} on hand",
                        line.wanted, line.sku, line.on_hand
                    )?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels() -> Levels {
        "keyboard=25, mouse = 3,cable=0,".parse().unwrap()
    }

    #[test]
    fn levels_are_read() {
        assert_eq!(levels().on_hand("mouse"), Some(3));
        assert_eq!(levels().on_hand("cable"), Some(0));
        assert_eq!(levels().on_hand("lamp"), None);
    }

    #[test]
    fn a_bad_part_is_named() {
        for (text, message) in [
            ("mouse=3,lamp", "`lamp` is not `sku=units`"),
            ("=3", "`=3` names no SKU"),
            (
                "mouse=-1",
                "`mouse=-1`: the units must be a number from 0 to 4294967295",
            ),
            ("mouse=1,mouse=2", "`mouse=2`: `mouse` is there twice"),
        ] {
            assert_eq!(text.parse::<Levels>().unwrap_err(), message);
        }
    }

    #[test]
    fn every_shortage_is_reported_and_equal_skus_count_together() {
        assert_eq!(levels().check([("mouse", 3), ("keyboard", 25)]), Ok(()));
        assert_eq!(
            levels().check([("lamp", 1)]),
            Err(Refusal::UnknownSku("lamp".to_owned()))
        );
        assert_eq!(
            levels().check([("mouse", 2), ("cable", 1), ("mouse", 2)]),
            Err(Refusal::Short(vec![
                Short {
                    sku: "cable".to_owned(),
                    wanted: 1,
                    on_hand: 0
                },
                Short {
                    sku: "mouse".to_owned(),
                    wanted: 4,
                    on_hand: 3
                },
            ]))
        );
        assert!(
            levels()
                .check([("mouse", u32::MAX), ("mouse", u32::MAX)])
                .is_err()
        );
    }
}
