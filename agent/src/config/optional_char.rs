//! A setting of one character, or `""` for none.

use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

pub(super) fn serialize<S: Serializer>(value: &Option<char>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&value.map_or_else(String::new, String::from))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<char>, D::Error> {
    let text = String::deserialize(from)?;
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (one, None) => Ok(one),
        _ => Err(D::Error::custom("one character, or \"\" for none")),
    }
}
