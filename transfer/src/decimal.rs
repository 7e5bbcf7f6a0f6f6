//! Exact decimal numbers: control totals are compared as text between programs, so nothing here ever rounds.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use num_bigint::{BigInt, Sign};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};

/// The most digits, before and after the point together, that one value of a column may have.
pub const MAX_VALUE_DIGITS: usize = 1_000;

/// The most digits of any [`Decimal`]. A sum of 2^64 values within [`MAX_VALUE_DIGITS`] has at most 1,020 digits before
/// the point and 1,000 after it, so every sum can be written and read back.
pub const MAX_DIGITS: usize = 2_100;

/// The most digits that fit an `i128` whatever they are.
const SMALL_DIGITS: usize = 38;

/// The most digits that fit a `u64` whatever they are.
const WORD_DIGITS: usize = 19;

/// Why a text or number was refused as a decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidDecimal {
    /// Not of the form `-?digits[.digits]`.
    #[error("a decimal is written as digits, with an optional minus sign and an optional fraction after a point")]
    Form,
    /// Over [`MAX_VALUE_DIGITS`] or [`MAX_DIGITS`].
    #[error("the decimal has more than {0} digits")]
    TooLong(usize),
}

/// An exact decimal number of up to [`MAX_DIGITS`] digits: an integer and how many of its digits stand after the point.
///
/// Text form: `-?digits[.digits]`, ASCII digits, no exponent, no leading `+`, no spaces. [`fmt::Display`] keeps the
/// scale (`1.50` stays `1.50`), drops leading zeros and never writes a negative zero. Equality, order and hash go by
/// value: `1.5 == 1.50`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Decimal {
    unscaled: BigInt,
    scale: usize,
}

impl Decimal {
    /// `unscaled` × 10^-`scale`.
    ///
    /// # Errors
    /// [`InvalidDecimal::TooLong`] where writing it takes more than [`MAX_DIGITS`] digits.
    pub fn new(unscaled: i128, scale: usize) -> Result<Self, InvalidDecimal> {
        // With a larger scale the digits are the fraction and one zero before the point.
        if scale >= MAX_DIGITS {
            return Err(InvalidDecimal::TooLong(MAX_DIGITS));
        }
        Ok(Self { unscaled: BigInt::from(unscaled), scale })
    }

    /// How many digits stand after the point.
    #[must_use]
    pub fn scale(&self) -> usize {
        self.scale
    }

    /// Whether the value is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.unscaled.sign() == Sign::NoSign
    }

    /// Whether the value is below zero.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.unscaled.sign() == Sign::Minus
    }

    /// The same value without trailing zeros after the point. Equal values have equal normalised texts.
    #[must_use]
    pub fn normalized(&self) -> Self {
        if self.is_zero() {
            return Self { unscaled: BigInt::ZERO, scale: 0 };
        }
        let digits = self.unscaled.magnitude().to_string();
        let zeros = digits.bytes().rev().take(self.scale).take_while(|digit| *digit == b'0').count();
        if zeros == 0 {
            return self.clone();
        }
        Self { unscaled: &self.unscaled / ten_to(zeros), scale: self.scale - zeros }
    }

    fn rescaled(&self, scale: usize) -> BigInt {
        &self.unscaled * ten_to(scale.saturating_sub(self.scale))
    }
}

/// 10^`power`.
fn ten_to(power: usize) -> BigInt {
    // Every caller passes a scale, and a scale is below MAX_DIGITS.
    BigInt::from(10).pow(u32::try_from(power.min(MAX_DIGITS)).unwrap_or(0))
}

impl utoipa::PartialSchema for Decimal {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            // Beside the digits there may be a sign and a point.
            .max_length(Some(MAX_DIGITS + 2))
            .pattern(Some("^-?[0-9]+(\\.[0-9]+)?$"))
            .into()
    }
}

impl utoipa::ToSchema for Decimal {}

impl From<i64> for Decimal {
    fn from(value: i64) -> Self {
        Self { unscaled: BigInt::from(value), scale: 0 }
    }
}

impl FromStr for Decimal {
    type Err = InvalidDecimal;

    fn from_str(text: &str) -> Result<Self, InvalidDecimal> {
        let parts = Parts::split(text, MAX_DIGITS)?;
        Ok(Self { unscaled: parts.large()?, scale: parts.fraction.len() })
    }
}

impl TryFrom<String> for Decimal {
    type Error = InvalidDecimal;

    fn try_from(text: String) -> Result<Self, InvalidDecimal> {
        text.parse()
    }
}

impl From<Decimal> for String {
    fn from(value: Decimal) -> Self {
        value.to_string()
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:0>width$}", self.unscaled.magnitude().to_string(), width = self.scale + 1);
        if self.is_negative() {
            f.write_str("-")?;
        }
        match digits.split_at_checked(digits.len().saturating_sub(self.scale)) {
            Some((integer, fraction)) if !fraction.is_empty() => write!(f, "{integer}.{fraction}"),
            _ => f.write_str(&digits),
        }
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decimal {}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        match self.scale.cmp(&other.scale) {
            Ordering::Equal => self.unscaled.cmp(&other.unscaled),
            Ordering::Less => self.rescaled(other.scale).cmp(&other.unscaled),
            Ordering::Greater => self.unscaled.cmp(&other.rescaled(self.scale)),
        }
    }
}

impl Hash for Decimal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let normal = self.normalized();
        normal.unscaled.hash(state);
        normal.scale.hash(state);
    }
}

/// The checked parts of a decimal's text.
struct Parts<'a> {
    negative: bool,
    integer: &'a str,
    fraction: &'a str,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str, max_digits: usize) -> Result<Self, InvalidDecimal> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        // The length is checked first, so that a huge text costs nothing. One byte more may be the point.
        if unsigned.len() > max_digits + 1 {
            return Err(InvalidDecimal::TooLong(max_digits));
        }
        let (integer, fraction) = match unsigned.bytes().position(|byte| byte == b'.') {
            Some(at) => match (unsigned.get(..at), unsigned.get(at + 1..)) {
                (Some(integer), Some(fraction)) if !fraction.is_empty() => (integer, fraction),
                _ => return Err(InvalidDecimal::Form),
            },
            None => (unsigned, ""),
        };
        if integer.is_empty() || !integer.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidDecimal::Form);
        }
        if integer.len() + fraction.len() > max_digits {
            return Err(InvalidDecimal::TooLong(max_digits));
        }
        Ok(Self { negative, integer, fraction })
    }

    /// The unscaled value, where it surely fits.
    fn small(&self) -> Option<i128> {
        let digits = || self.integer.bytes().chain(self.fraction.bytes()).map(|byte| byte.wrapping_sub(b'0'));
        let count = self.integer.len() + self.fraction.len();
        let magnitude = if count <= WORD_DIGITS {
            i128::from(digits().fold(0u64, |value, digit| value.wrapping_mul(10).wrapping_add(u64::from(digit))))
        } else if count <= SMALL_DIGITS {
            digits().fold(0i128, |value, digit| value.wrapping_mul(10).wrapping_add(i128::from(digit)))
        } else {
            return None;
        };
        Some(if self.negative { -magnitude } else { magnitude })
    }

    /// The unscaled value, of any size.
    fn large(&self) -> Result<BigInt, InvalidDecimal> {
        if let Some(small) = self.small() {
            return Ok(BigInt::from(small));
        }
        let digits = [self.integer.as_bytes(), self.fraction.as_bytes()].concat();
        let magnitude = BigInt::parse_bytes(&digits, 10).ok_or(InvalidDecimal::Form)?;
        Ok(if self.negative { -magnitude } else { magnitude })
    }
}

/// Adds decimals of any scale exactly, in any order, with the same result.
///
/// Values of up to 38 digits are added without allocation: one 128-bit sum per scale, carried into a big integer only
/// when it overflows. Memory is bounded by [`MAX_VALUE_DIGITS`], not by the number of values.
#[derive(Debug, Clone, Default)]
pub struct DecimalSum {
    count: u64,
    /// The sum of the values with that scale, by scale.
    by_scale: Vec<i128>,
    /// What did not fit, with `large_scale` digits after the point.
    large: BigInt,
    large_scale: usize,
}

impl DecimalSum {
    /// A sum of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many values were added.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds a value from its text form.
    ///
    /// # Errors
    /// [`InvalidDecimal`], also for more than [`MAX_VALUE_DIGITS`] digits; the sum stays as it was.
    pub fn add_str(&mut self, text: &str) -> Result<(), InvalidDecimal> {
        let parts = Parts::split(text, MAX_VALUE_DIGITS)?;
        match parts.small() {
            Some(unscaled) => self.add_small(unscaled, parts.fraction.len()),
            None => self.add_large(&parts.large()?, parts.fraction.len()),
        }
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// Adds an integer.
    pub fn add_i64(&mut self, value: i64) {
        self.add_small(i128::from(value), 0);
        self.count = self.count.saturating_add(1);
    }

    /// Adds a value.
    ///
    /// # Errors
    /// [`InvalidDecimal::TooLong`] for more than [`MAX_VALUE_DIGITS`] digits; the sum stays as it was.
    pub fn add(&mut self, value: &Decimal) -> Result<(), InvalidDecimal> {
        match i128::try_from(&value.unscaled) {
            Ok(unscaled) if value.scale < MAX_VALUE_DIGITS => {
                self.add_small(unscaled, value.scale);
                self.count = self.count.saturating_add(1);
                Ok(())
            }
            _ => self.add_str(&value.to_string()),
        }
    }

    /// The sum, normalised: no zeros at the end of the fraction, no negative zero. Equal sums have equal texts.
    #[must_use]
    pub fn finish(mut self) -> Decimal {
        for (scale, sum) in std::mem::take(&mut self.by_scale).into_iter().enumerate() {
            if sum != 0 {
                self.add_large(&BigInt::from(sum), scale);
            }
        }
        Decimal { unscaled: self.large, scale: self.large_scale }.normalized()
    }

    fn add_small(&mut self, unscaled: i128, scale: usize) {
        if scale >= self.by_scale.len() {
            self.by_scale.resize(scale + 1, 0);
        }
        let Some(sum) = self.by_scale.get_mut(scale) else { return };
        if let Some(next) = sum.checked_add(unscaled) {
            *sum = next;
        } else {
            let full = std::mem::replace(sum, unscaled);
            self.add_large(&BigInt::from(full), scale);
        }
    }

    fn add_large(&mut self, unscaled: &BigInt, scale: usize) {
        if scale > self.large_scale {
            self.large *= ten_to(scale - self.large_scale);
            self.large_scale = scale;
        }
        if scale == self.large_scale {
            self.large += unscaled;
        } else {
            self.large += unscaled * ten_to(self.large_scale - scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn sum(values: &[&str]) -> String {
        let mut sum = DecimalSum::new();
        for value in values {
            sum.add_str(value).unwrap();
        }
        assert_eq!(sum.count(), values.len() as u64);
        sum.finish().to_string()
    }

    #[test]
    fn text_form_is_strict_and_canonical() {
        for (given, shown) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.00", "0.00"),
            ("007", "7"),
            ("1.50", "1.50"),
            ("-0.05", "-0.05"),
            ("12345678901234567890123456789012345678901234567890.1", "12345678901234567890123456789012345678901234567890.1"),
            ("18446744073709551615", "18446744073709551615"),
            ("9999999999999999999", "9999999999999999999"),
            ("-99999999999999999999999999999999999999", "-99999999999999999999999999999999999999"),
        ] {
            assert_eq!(decimal(given).to_string(), shown);
        }
        for bad in
            ["", "-", "+1", " 1", "1 ", "1.", ".5", "1e3", "1,5", "--1", "1.2.3", "1.-2", "NaN", "inf", "١", "0x1", "1_000"]
        {
            assert_eq!(bad.parse::<Decimal>(), Err(InvalidDecimal::Form), "{bad:?}");
            assert_eq!(DecimalSum::new().add_str(bad), Err(InvalidDecimal::Form), "{bad:?}");
        }
    }

    #[test]
    fn equality_order_and_hash_go_by_value() {
        assert_eq!(decimal("1.5"), decimal("1.500"));
        assert_ne!(decimal("1.5"), decimal("1.05"));
        assert!(decimal("-2") < decimal("-1.99"));
        assert!(decimal("0.1") > decimal("0.09"));
        let set: std::collections::HashSet<Decimal> = ["1", "1.0", "-0", "0.000"].map(decimal).into();
        assert_eq!(set.len(), 2);
        assert_eq!(decimal("100.00").normalized().to_string(), "100");
        assert_eq!(decimal("0.00").normalized().to_string(), "0");
        assert_eq!(Decimal::new(-5, 3).unwrap().to_string(), "-0.005");
        assert_eq!(Decimal::from(7), decimal("7.0"));
    }

    #[test]
    fn json_is_a_string_that_keeps_the_scale() {
        assert_eq!(serde_json::to_string(&decimal("1.50")).unwrap(), "\"1.50\"");
        assert_eq!(serde_json::from_str::<Decimal>("\"1.50\"").unwrap().scale(), 2);
        for bad in ["1.50", "\"1.5e3\"", "null"] {
            assert!(serde_json::from_str::<Decimal>(bad).is_err());
        }
    }

    #[test]
    fn the_schema_is_a_string() {
        let schema = serde_json::to_value(<Decimal as utoipa::PartialSchema>::schema()).unwrap();
        assert_eq!(schema["type"], "string");
        assert_eq!(schema["maxLength"], 2102);
    }

    #[test]
    fn digits_are_limited() {
        let most = "9".repeat(MAX_DIGITS);
        assert_eq!(decimal(&most).to_string(), most);
        for over in ["9".repeat(MAX_DIGITS + 1), format!("0.{}", "0".repeat(MAX_DIGITS)), "1".repeat(10_000_000)] {
            assert_eq!(over.parse::<Decimal>(), Err(InvalidDecimal::TooLong(MAX_DIGITS)));
        }
        assert_eq!(Decimal::new(1, MAX_DIGITS), Err(InvalidDecimal::TooLong(MAX_DIGITS)));
        assert!(Decimal::new(1, MAX_DIGITS - 1).unwrap().to_string().parse::<Decimal>().is_ok());

        let over = "9".repeat(MAX_VALUE_DIGITS + 1);
        let mut sum = DecimalSum::new();
        assert_eq!(sum.add_str(&over), Err(InvalidDecimal::TooLong(MAX_VALUE_DIGITS)));
        assert_eq!(sum.add(&decimal(&over)), Err(InvalidDecimal::TooLong(MAX_VALUE_DIGITS)));
        assert_eq!(sum.add(&Decimal::new(1, MAX_VALUE_DIGITS).unwrap()), Err(InvalidDecimal::TooLong(MAX_VALUE_DIGITS)));
        assert_eq!((sum.count(), sum.finish().to_string()), (0, "0".to_owned()));
    }

    #[test]
    fn the_widest_sum_can_be_written_and_read() {
        let tall = "9".repeat(MAX_VALUE_DIGITS);
        let fine = format!("0.{}1", "0".repeat(MAX_VALUE_DIGITS - 2));
        let text = sum(&[&tall, &fine, &tall]);
        assert_eq!(text.parse::<Decimal>().unwrap().to_string(), text);
    }

    #[test]
    fn sums_are_exact_and_normalised() {
        assert_eq!(sum(&[]), "0");
        assert_eq!(sum(&["0.1", "0.2"]), "0.3");
        assert_eq!(sum(&["0.5", "0.50", "1"]), "2");
        assert_eq!(sum(&["-1", "1.00"]), "0");
        assert_eq!(sum(&["10", "90"]), "100");
        let largest = i128::MAX.to_string();
        assert_eq!(sum(&[largest.as_str(); 3]), (BigInt::from(i128::MAX) * 3u8).to_string());
        let full = "9".repeat(SMALL_DIGITS);
        assert_eq!(sum(&[full.as_str(); 4]), format!("3{}6", "9".repeat(SMALL_DIGITS - 1)));
        assert_eq!(sum(&[&full, &full, &format!("-{full}"), &format!("-{full}"), "0.01"]), "0.01");
    }

    fn any_decimal() -> impl Strategy<Value = String> {
        "-?[0-9]{1,60}(\\.[0-9]{1,50})?"
    }

    proptest! {
        #[test]
        fn text_round_trips(text in any_decimal()) {
            let value = decimal(&text);
            prop_assert_eq!(decimal(&value.to_string()).to_string(), value.to_string());
            prop_assert_eq!(&value.normalized(), &value);
            prop_assert_eq!(value.to_string().trim_start_matches('-').trim_start_matches('0').len() <= text.len(), true);
        }

        #[test]
        fn any_order_gives_the_same_text(mut values in proptest::collection::vec(any_decimal(), 0..40)) {
            let mut forward = DecimalSum::new();
            let mut plain = BigInt::ZERO;
            for value in &values {
                forward.add_str(value).unwrap();
                plain += decimal(value).rescaled(50);
            }
            values.reverse();
            let mut backward = DecimalSum::new();
            for value in &values {
                backward.add(&decimal(value)).unwrap();
            }
            let found = forward.finish();
            prop_assert_eq!(found.to_string(), backward.finish().to_string());
            prop_assert_eq!(found, Decimal { unscaled: plain, scale: 50 });
        }
    }
}
