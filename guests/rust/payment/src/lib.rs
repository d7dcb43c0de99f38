//! The shop's payment service in Rust, the twin of the one in Go: same checks, same receipts.
//!
//! It moves no money: [`card`] has the outcomes of the test cards.

mod card;

use card::{Outcome, Reason};

wit_bindgen::generate!({
    path: "../../../wit",
    world: "payment",
    generate_all,
});

use exports::shop::payment::payments::{Card, DeclineReason, Guest, Money, PaymentError, Receipt};
use wasi::config::store;

/// What receipts call this implementation unless the configuration has a `processor`.
const NAME: &str = "rust-pay";

struct Payments;

export!(Payments);

impl Guest for Payments {
    fn charge(order_id: String, amount: Money, card: Card) -> Result<Receipt, PaymentError> {
        let number = card::check(&card.number, &card.holder, &card.expires)
            .map_err(|reason| PaymentError::InvalidCard(reason.to_string()))?;
        match card::outcome(&number) {
            Outcome::Accepted => {}
            Outcome::Declined(reason) => return Err(PaymentError::Declined(reason.into())),
            Outcome::NoAnswer => {
                return Err(PaymentError::Unavailable(
                    "the bank of this card does not answer".to_owned(),
                ));
            }
        }
        if limit()?.is_some_and(|limit| amount.minor > limit) {
            return Err(PaymentError::Declined(DeclineReason::LimitExceeded));
        }
        Ok(Receipt {
            id: receipt_id(&order_id, &amount),
            amount,
            processor: setting("processor")?.unwrap_or_else(|| NAME.to_owned()),
            card: number[number.len() - 4..].to_owned(),
        })
    }
}

/// The highest amount taken, in minor units, whatever the currency.
fn limit() -> Result<Option<u64>, PaymentError> {
    let Some(text) = setting("limit")? else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        PaymentError::Unavailable(format!(
            "config key `limit`: `{text}` is no whole number of minor units"
        ))
    })
}

fn setting(key: &str) -> Result<Option<String>, PaymentError> {
    store::get(key).map_err(|error| {
        let (store::Error::Upstream(why) | store::Error::Io(why)) = error;
        PaymentError::Unavailable(format!("config key `{key}`: {why}"))
    })
}

/// The same for the same order and amount, so that a charge that is sent again shows as one.
fn receipt_id(order_id: &str, amount: &Money) -> String {
    let charge = format!("{order_id}/{}/{}", amount.minor, amount.currency);
    format!("rcpt-{:016x}", fnv1a(charge.as_bytes()))
}

/// FNV-1a with 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl From<Reason> for DeclineReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::InsufficientFunds => Self::InsufficientFunds,
            Reason::LimitExceeded => Self::LimitExceeded,
            Reason::LostOrStolen => Self::LostOrStolen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The twin in Go has the same test, so the two return the same receipts.
    #[test]
    fn a_receipt_follows_from_order_and_amount() {
        let amount = Money {
            minor: 8990,
            currency: "EUR".to_owned(),
        };
        assert_eq!(receipt_id("ord-1", &amount), "rcpt-7625738ac195be52");
    }
}
