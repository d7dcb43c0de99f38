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

use exports::shop::payment::payments::{
    Card, DeclineReason, Guest, Money, PaymentError, Receipt, RefundError, Refunded,
};
use wasi::config::store;
use wasi::logging::logging::{Level, log};

/// What receipts call this implementation unless the configuration has a `processor`.
const NAME: &str = "rust-pay";

const RECEIPT_PREFIX: &str = "rcpt-";

/// A refund has the number of its receipt.
const REFUND_PREFIX: &str = "rfnd-";

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
        let id = receipt_id(&order_id, &amount);
        record(format_args!("order {order_id} charged, {id}"));
        Ok(Receipt {
            id,
            amount,
            processor: setting("processor")?.unwrap_or_else(|| NAME.to_owned()),
            card: number[number.len() - 4..].to_owned(),
        })
    }

    fn refund(
        order_id: String,
        receipt_id: String,
        amount: Money,
    ) -> Result<Refunded, RefundError> {
        let own = self::receipt_id(&order_id, &amount);
        let number = own.strip_prefix(RECEIPT_PREFIX);
        let (true, Some(number)) = (own == receipt_id, number) else {
            return Err(RefundError::UnknownReceipt(receipt_id));
        };
        let id = format!("{REFUND_PREFIX}{number}");
        record(format_args!("order {order_id} refunded, {id}"));
        Ok(Refunded { id, amount })
    }

    fn cancel_refund(refund_id: String) -> Result<(), RefundError> {
        if !refund_id.starts_with(REFUND_PREFIX) {
            return Err(RefundError::UnknownReceipt(refund_id));
        }
        record(format_args!("refund {refund_id} cancelled"));
        Ok(())
    }
}

fn record(what: std::fmt::Arguments<'_>) {
    log(Level::Info, "payments", &what.to_string());
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
    format!("{RECEIPT_PREFIX}{:016x}", fnv1a(charge.as_bytes()))
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
