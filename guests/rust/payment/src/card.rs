//! The checks of a card, and the outcomes of the test cards. Knows nothing of WIT.
//!
//! The expiry date is checked for its form only: without a clock the same card gets the same
//! answer every day. A message never repeats any part of a number.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reason {
    InsufficientFunds,
    LimitExceeded,
    LostOrStolen,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    Accepted,
    Declined(Reason),
    NoAnswer,
}

/// The outcome for a card. Every other valid number is accepted, such as 4242 4242 4242 4242.
pub(crate) fn outcome(number: &str) -> Outcome {
    match number {
        "4000000000000002" | "4000000000009995" => Outcome::Declined(Reason::InsufficientFunds),
        "4000000000006975" => Outcome::Declined(Reason::LimitExceeded),
        "4000000000009979" | "4000000000009987" => Outcome::Declined(Reason::LostOrStolen),
        "4000000000000119" => Outcome::NoAnswer,
        _ => Outcome::Accepted,
    }
}

#[derive(Debug, PartialEq)]
pub(crate) enum Invalid {
    NotDigits,
    Length(usize),
    CheckDigit,
    NoHolder,
    Expiry,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDigits => f.write_str("number: only digits and spaces are allowed"),
            Self::Length(digits) => write!(f, "number: 12 to 19 digits are needed, not {digits}"),
            Self::CheckDigit => f.write_str("number: the check digit is wrong"),
            Self::NoHolder => f.write_str("holder: a name is needed"),
            Self::Expiry => f.write_str("expires: MM/YY is needed"),
        }
    }
}

/// The card's number without its spaces, when all of the card is well formed.
pub(crate) fn check(number: &str, holder: &str, expires: &str) -> Result<String, Invalid> {
    let digits: String = number.chars().filter(|c| *c != ' ').collect();
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Invalid::NotDigits);
    }
    if !(12..=19).contains(&digits.len()) {
        return Err(Invalid::Length(digits.len()));
    }
    if !luhn(&digits) {
        return Err(Invalid::CheckDigit);
    }
    if holder.trim().is_empty() {
        return Err(Invalid::NoHolder);
    }
    if !is_month_and_year(expires) {
        return Err(Invalid::Expiry);
    }
    Ok(digits)
}

/// Whether the last digit is the check digit of the others: every second digit from the right
/// is doubled, and the digits of all of them add up to a multiple of ten.
fn luhn(digits: &str) -> bool {
    let sum: u32 = digits
        .bytes()
        .rev()
        .map(|byte| u32::from(byte - b'0'))
        .enumerate()
        .map(|(place, digit)| match (place % 2, digit * 2) {
            (0, _) => digit,
            (_, doubled) => doubled / 10 + doubled % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}

fn is_month_and_year(text: &str) -> bool {
    let [m1, m2, b'/', y1, y2] = text.as_bytes() else {
        return false;
    };
    let digits = [m1, m2, y1, y2];
    digits.iter().all(|byte| byte.is_ascii_digit())
        && (1..=12).contains(&((m1 - b'0') * 10 + (m2 - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_card_returns_its_number() {
        let digits = check("4242 4242 4242 4242", "Ada", "12/30");
        assert_eq!(digits.as_deref(), Ok("4242424242424242"));
        assert_eq!(outcome("4242424242424242"), Outcome::Accepted);
    }

    #[test]
    fn every_part_is_checked() {
        for (number, holder, expires, why) in [
            ("4242-4242-4242-4242", "Ada", "12/30", Invalid::NotDigits),
            ("", "Ada", "12/30", Invalid::Length(0)),
            ("42424242424242424242", "Ada", "12/30", Invalid::Length(20)),
            ("4242424242424243", "Ada", "12/30", Invalid::CheckDigit),
            ("4242424242424242", " ", "12/30", Invalid::NoHolder),
            ("4242424242424242", "Ada", "13/30", Invalid::Expiry),
            ("4242424242424242", "Ada", "00/30", Invalid::Expiry),
            ("4242424242424242", "Ada", "1/2030", Invalid::Expiry),
        ] {
            assert_eq!(
                check(number, holder, expires),
                Err(why),
                "{number} {expires}"
            );
        }
    }

    #[test]
    fn the_test_cards_are_valid() {
        for number in [
            "4000000000000002",
            "4000000000009995",
            "4000000000006975",
            "4000000000009979",
            "4000000000009987",
            "4000000000000119",
        ] {
            assert!(luhn(number), "{number}");
            assert_ne!(outcome(number), Outcome::Accepted, "{number}");
        }
    }
}
