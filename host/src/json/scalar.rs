//! The values of single tokens.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// The value of a JSON number when it is whole, whatever way it is written.
pub(super) fn integral(token: &str) -> Option<i128> {
    // Up to 18 characters always fit, and this is how nearly all of them come.
    if token.len() <= 18
        && let Ok(value) = token.parse::<i64>()
    {
        return Some(value.into());
    }
    let digits = token.strip_prefix('-');
    let negative = digits.is_some();
    let digits = digits.unwrap_or(token);
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    // One that overflows moves the point out of every number that a body can hold.
    let overflow = if exponent.starts_with('-') {
        i32::MIN
    } else {
        i32::MAX
    };
    let exponent = i64::from(exponent.parse::<i32>().unwrap_or(overflow));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let point = i64::try_from(whole.len()).ok()?.saturating_add(exponent);

    let mut value = 0_i128;
    let mut place = 0_i64;
    for digit in whole.bytes().chain(fraction.bytes()) {
        let digit = i128::from(digit.saturating_sub(b'0'));
        if place < point {
            value = value.checked_mul(10)?.checked_add(digit)?;
        } else if digit != 0 {
            return None;
        }
        place += 1;
    }
    while place < point && value != 0 {
        value = value.checked_mul(10)?;
        place += 1;
    }
    Some(if negative { -value } else { value })
}

/// The floats that JSON has no number for.
pub(super) fn special(text: &str) -> Option<f32> {
    match text {
        "NaN" => Some(f32::NAN),
        "Infinity" => Some(f32::INFINITY),
        "-Infinity" => Some(f32::NEG_INFINITY),
        _ => None,
    }
}

pub(super) fn one_char(text: &str) -> Option<char> {
    let mut chars = text.chars();
    let first = chars.next()?;
    chars.next().is_none().then_some(first)
}

/// Base64 in either alphabet, padded or not.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    let data = text
        .strip_suffix("==")
        .or_else(|| text.strip_suffix('='))
        .unwrap_or(text);
    if data.len() != text.len() && !text.len().is_multiple_of(4) {
        return None;
    }
    let standard = STANDARD_NO_PAD.decode(data);
    standard.or_else(|_| URL_SAFE_NO_PAD.decode(data)).ok()
}

/// Whether the key is the snake-case form of the name: `on_hand` for `on-hand`.
pub(super) fn is_snake_case(key: &str, name: &str) -> bool {
    let snake = |b: u8| if b == b'-' { b'_' } else { b };
    key.len() == name.len() && name.bytes().map(snake).eq(key.bytes())
}
