use proptest::prelude::*;
use towpath_transfer::value::fits;

use super::*;

fn wire(value: Value<'_>, to: SqlType) -> Result<Option<String>, Refused> {
    let mut scratch = String::from("left over");
    let text = to_wire(value, to, &mut scratch)?.map(str::to_owned);
    if let Some(text) = &text {
        assert!(fits(to, text), "{text:?} is no {to}");
    }
    Ok(text)
}

fn good(value: Value<'_>, to: SqlType) -> String {
    wire(value, to).unwrap().unwrap()
}

const fn decimal(precision: u16, scale: u16) -> SqlType {
    SqlType::Decimal { precision, scale }
}

#[test]
fn decimals_are_exact_whatever_holds_them() {
    let to = decimal(12, 2);
    for (value, expected) in [
        (Value::Integer(12), "12"),
        (Value::Integer(0), "0"),
        (Value::Integer(-9_999_999_999), "-9999999999"),
        (Value::Real(12.5), "12.5"),
        (Value::Real(0.1), "0.1"),
        (Value::Real(-0.0), "0"),
        (Value::Real(1e3), "1000"),
        (Value::Real(9_999_999_999.99), "9999999999.99"),
        (Value::Text(b"12.50"), "12.50"),
        (Value::Text(b" +007.5000 "), "7.50"),
        (Value::Text(b".5"), "0.5"),
        (Value::Text(b"-5."), "-5"),
        (Value::Text(b"-0.00"), "0.00"),
        (Value::Text(b"0"), "0"),
    ] {
        assert_eq!(good(value, to), expected, "{value:?}");
    }
    // The digits that 2^60 has, not the shortest text that reads back as it.
    assert_eq!(good(Value::Real(1_152_921_504_606_846_976.0), decimal(30, 2)), "1152921504606846976");
    assert_eq!(good(Value::Text(b"12345678901234567890.0123456789"), decimal(30, 10)), "12345678901234567890.0123456789");
}

#[test]
fn what_would_be_rounded_is_refused() {
    let to = decimal(5, 2);
    for value in [Value::Real(0.125), Value::Real(0.1 + 0.2), Value::Text(b"1.234"), Value::Text(b"-0.001")] {
        assert!(matches!(wire(value, to), Err(Refused::TooFine(..))), "{value:?}");
    }
    for value in [Value::Integer(1_000), Value::Real(1000.5), Value::Text(b"1000"), Value::Text(b"-1000.00")] {
        assert!(matches!(wire(value, to), Err(Refused::TooLarge(..))), "{value:?}");
    }
    for value in [
        Value::Real(f64::NAN),
        Value::Real(f64::INFINITY),
        Value::Text(b""),
        Value::Text(b"1e2"),
        Value::Text(b"1,5"),
        Value::Text(b"."),
        Value::Text(b"--1"),
        Value::Text(b"1 000"),
        Value::Text("١".as_bytes()),
        Value::Bytes(b"1"),
    ] {
        assert!(matches!(wire(value, to), Err(Refused::Form(..))), "{value:?}");
    }
    assert!(matches!(wire(Value::Real(1e19), decimal(38, 2)), Err(Refused::Inexact(_))));
}

#[test]
fn whole_numbers() {
    assert_eq!(good(Value::Integer(i64::MIN), SqlType::BigInt), "-9223372036854775808");
    assert_eq!(good(Value::Real(-7.0), SqlType::BigInt), "-7");
    assert_eq!(good(Value::Text(b" 0042.0 "), SqlType::BigInt), "42");
    assert_eq!(good(Value::Boolean(true), SqlType::BigInt), "1");
    assert!(matches!(wire(Value::Real(0.5), SqlType::BigInt), Err(Refused::TooFine(..))));
    assert!(matches!(wire(Value::Text(b"9223372036854775808"), SqlType::BigInt), Err(Refused::TooLarge(..))));
    assert!(matches!(wire(Value::Text(b"x"), SqlType::BigInt), Err(Refused::Form(..))));
}

#[test]
fn doubles_truth_values_and_bytes() {
    for (value, expected) in [
        (Value::Real(0.1), "0.1"),
        (Value::Real(-0.0), "-0"),
        (Value::Real(1e300), "1e300"),
        (Value::Real(f64::MIN_POSITIVE), "2.2250738585072014e-308"),
        (Value::Real(f64::NEG_INFINITY), "-Infinity"),
        (Value::Integer(3), "3"),
        (Value::Text(b"1e3"), "1000"),
    ] {
        assert_eq!(good(value, SqlType::Double), expected);
    }
    assert!(wire(Value::Text(b"inf"), SqlType::Double).is_err());
    for (value, expected) in [
        (Value::Integer(1), "true"),
        (Value::Real(0.0), "false"),
        (Value::Text(b"TRUE"), "true"),
        (Value::Text(b"f"), "false"),
        (Value::Boolean(false), "false"),
    ] {
        assert_eq!(good(value, SqlType::Boolean), expected);
    }
    assert!(wire(Value::Integer(2), SqlType::Boolean).is_err());
    assert!(wire(Value::Text(b""), SqlType::Boolean).is_err());
    assert_eq!(good(Value::Bytes(&[0, 255]), SqlType::Binary), "AP8=");
    assert_eq!(good(Value::Bytes(&[]), SqlType::Binary), "");
    assert_eq!(good(Value::Text(b"a\0"), SqlType::Binary), "YQA=");
    assert!(wire(Value::Integer(1), SqlType::Binary).is_err());
}

#[test]
fn texts_are_left_alone_or_refused() {
    assert_eq!(good(Value::Text("ä\r\n\"".as_bytes()), SqlType::Text), "ä\r\n\"");
    assert_eq!(good(Value::Text(b""), SqlType::Text), "");
    assert_eq!(wire(Value::Null, SqlType::Text), Ok(None));
    assert_eq!(good(Value::Integer(5), SqlType::Text), "5");
    assert_eq!(good(Value::Real(0.5), SqlType::Text), "0.5");
    assert_eq!(wire(Value::Text(b"a\0b"), SqlType::Text), Err(Refused::Nul));
    assert_eq!(wire(Value::Text(b"a\xff"), SqlType::Text), Err(Refused::NotUtf8));
    assert!(matches!(wire(Value::Bytes(b"a"), SqlType::Text), Err(Refused::Form(..))));
    let long = "ö".repeat(1_000);
    let said = wire(Value::Text(long.as_bytes()), SqlType::Date).unwrap_err().to_string();
    assert!(said.chars().count() < 100 && said.ends_with("…\" is not a DATE"), "{said}");
}

#[test]
fn dates_and_times() {
    for (to, given, expected) in [
        (SqlType::Date, "2024-02-29", "2024-02-29"),
        (SqlType::Date, "9999-12-31", "9999-12-31"),
        (SqlType::Date, "1753-01-01", "1753-01-01"),
        (SqlType::Date, "2024-02-29 00:00:00.000", "2024-02-29"),
        (SqlType::Time, "07:30", "07:30:00"),
        (SqlType::Time, "23:59:59.123456", "23:59:59.123456"),
        (SqlType::Timestamp, "2024-02-29 23:59:59.5", "2024-02-29T23:59:59.5"),
        (SqlType::Timestamp, "1899-12-30T00:00:00", "1899-12-30T00:00:00"),
        (SqlType::Timestamp, "2024-02-29", "2024-02-29T00:00:00"),
        (SqlType::Timestamp, "2024-02-29 12:30", "2024-02-29T12:30:00"),
        (SqlType::TimestampTz, "2024-02-29 12:30:00Z", "2024-02-29T12:30:00+00:00"),
        (SqlType::TimestampTz, "2024-02-29T12:30:00.25+0530", "2024-02-29T12:30:00.25+05:30"),
        (SqlType::TimestampTz, "2024-02-29 12:30 -02", "2024-02-29T12:30:00-02:00"),
    ] {
        assert_eq!(good(Value::Text(given.as_bytes()), to), expected);
    }
    for (to, given) in [
        (SqlType::Date, ""),
        (SqlType::Date, "2023-02-29"),
        (SqlType::Date, "2024-02-29 00:00:01"),
        (SqlType::Date, "2024-02-29 "),
        (SqlType::Date, "2024-02-29 :"),
        (SqlType::Date, "29.02.2024"),
        (SqlType::Time, "24:00"),
        (SqlType::Timestamp, "2024-02-29 12:30:00Z"),
        (SqlType::Timestamp, "2024-02-29 25:00:00"),
        (SqlType::TimestampTz, "2024-02-29 12:30:00"),
        (SqlType::TimestampTz, "2024-02-29"),
    ] {
        // Trailing spaces alone are no mistake.
        if given.trim() != given {
            assert!(wire(Value::Text(given.as_bytes()), to).is_ok());
            continue;
        }
        assert!(wire(Value::Text(given.as_bytes()), to).is_err(), "{to} {given:?}");
    }
    assert!(wire(Value::Integer(20_240_229), SqlType::Date).is_err());
}

proptest! {
    #[test]
    fn a_decimal_held_as_a_double_of_fifteen_digits_comes_back(unscaled in -999_999_999_999_999i64..=999_999_999_999_999, scale in 0u16..=10) {
        let exact = towpath_transfer::decimal::Decimal::new(unscaled.into(), scale.into()).unwrap();
        let held: f64 = exact.to_string().parse().unwrap();
        let back: towpath_transfer::decimal::Decimal = good(Value::Real(held), decimal(30, scale)).parse().unwrap();
        prop_assert_eq!(back, exact);
    }

    #[test]
    fn whatever_is_written_fits(text in "[-+ 0-9.T:eZ]{0,30}", integer: i64, real: f64) {
        for to in [SqlType::BigInt, decimal(9, 4), SqlType::Double, SqlType::Boolean, SqlType::Date, SqlType::Time, SqlType::Timestamp, SqlType::TimestampTz, SqlType::Binary, SqlType::Text] {
            for value in [Value::Text(text.as_bytes()), Value::Integer(integer), Value::Real(real), Value::Bytes(text.as_bytes())] {
                drop(wire(value, to));
            }
        }
    }
}
