//! The JSON Schema of a configuration file, for editors that complete and check it.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::Value;
use towpath_transfer::{Code, Failure};

use crate::{Bytes, Pause, SecretText};

/// The schema of what `T` reads, as text with a line end. Draft 7, which every editor for TOML takes; newer ones say the same.
///
/// # Errors
/// `internal`, never while the tests pass.
pub fn text_of<T: JsonSchema>() -> Result<String, Failure> {
    let mut schema = SchemaSettings::draft07().for_deserialize().into_generator().into_root_schema_for::<T>().to_value();
    plain(&mut schema);
    let text = serde_json::to_string_pretty(&schema);
    let mut text = text.map_err(|error| Failure::park(Code::Internal, "writing the schema").caused_by(error))?;
    text.push('\n');
    Ok(text)
}

/// TOML has no null, so a setting that may be left out is not one that may be null; and people read no links to code.
fn plain(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|one| one != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    map.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(options)) = map.get_mut("anyOf") {
                options.retain(|one| one.get("type").is_none_or(|kind| kind != "null"));
                if let [Value::Object(only)] = options.as_slice() {
                    let only = only.clone();
                    map.remove("anyOf");
                    // Beside a reference draft 7 heeds nothing else, so that it stands alone in a list.
                    if only.contains_key("$ref") {
                        map.insert("allOf".to_owned(), Value::Array(vec![Value::Object(only)]));
                    } else {
                        map.extend(only);
                    }
                }
            }
            if map.get("default").is_some_and(Value::is_null) {
                map.remove("default");
            }
            if let Some(Value::String(text)) = map.get_mut("description") {
                *text = text.replace("[`", "`").replace("`]", "`").replace('\n', " ");
            }
            map.values_mut().for_each(plain);
        }
        Value::Array(values) => values.iter_mut().for_each(plain),
        _ => {}
    }
}

macro_rules! text_schema {
    ($type:ty, $pattern:literal, $about:literal) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $about })
            }
        }
    };
}

text_schema!(Pause, "^\\s*[0-9]+\\s*(ms|s|m|h|d)\\s*$", "A length of time: 500ms, 30s, 15m, 24h or 7d.");
text_schema!(Bytes, "^\\s*[0-9]+\\s*(B|KiB|MiB|GiB|TiB)\\s*$", "An amount of data: 512MiB, 20GiB or 2TiB.");
text_schema!(
    SecretText,
    "^(file|env|systemd|dpapi|clear):.+$",
    "Where a password is: file:PATH, env:NAME, systemd:NAME, dpapi:BASE64; clear:TEXT puts it here."
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Spanned;

    /// A sample, as [`Value`] is one.
    #[derive(serde::Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Sample {
        /// How long.
        long: Option<Spanned<Pause>>,
        inner: Option<Spanned<Inner>>,
        list: Vec<Spanned<u16>>,
    }

    #[derive(serde::Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Inner {
        secret: Option<SecretText>,
    }

    #[test]
    fn optional_settings_are_left_out_and_never_null() {
        let text = text_of::<Sample>().unwrap();
        let schema: Value = serde_json::from_str(&text).unwrap();
        assert!(!text.contains("null"), "{text}");
        assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
        assert_eq!(schema["description"], "A sample, as `Value` is one.");
        assert_eq!(schema["properties"]["long"]["description"], "How long.");
        assert_eq!(schema["properties"]["list"]["items"]["maximum"], 65535);
        assert!(schema["properties"]["inner"].to_string().contains("#/definitions/Inner"), "{text}");
        assert_eq!(schema["required"], serde_json::json!(["list"]));
    }
}
