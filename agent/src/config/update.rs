//! `[update]`: whether a new version is taken from the relay, and when.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_host::{ConfigMistake, Spanned};

use super::window::Window;

/// What is done about a version that the relay's operator has approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UpdateMode {
    /// Nothing.
    #[default]
    Off,
    /// It is fetched and verified; a person applies it.
    Download,
    /// It is fetched, verified and applied.
    Install,
}

/// `[update]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct UpdateConfig {
    /// What is done.
    pub mode: UpdateMode,
    /// When, by the clock of this host; always where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Update")]
pub(super) struct RawUpdate {
    /// off; download: fetch and verify what the relay's operator has approved, and leave it to a person; install: apply it as well.
    mode: UpdateMode,
    /// When something is fetched or applied, such as 02:00-04:00 or sat,sun 00:00-24:00; always where it is not said.
    window: Option<Spanned<String>>,
}

impl RawUpdate {
    /// The settings, checked; `at` makes a mistake at a place.
    pub(super) fn check(self, at: impl Fn(Option<Range<usize>>, String) -> ConfigMistake) -> Result<UpdateConfig, ConfigMistake> {
        let window = self.window.map(|text| text.get_ref().parse().map_err(|error| at(Some(text.span()), format!("{error}"))));
        Ok(UpdateConfig { mode: self.mode, window: window.transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    #[test]
    fn nothing_is_taken_unless_it_is_said() {
        let parse = |text: &str| Config::parse(text, Path::new("agent.toml"));
        assert_eq!(parse("").unwrap().update, UpdateConfig::default());
        let night = parse("[update]\nmode = \"install\"\nwindow = \"sat,sun 02:00-04:00\"\n").unwrap().update;
        assert_eq!((night.mode, night.window.unwrap().to_string().as_str()), (UpdateMode::Install, "sat,sun 02:00-04:00"));
        for (text, place) in [("mode = \"always\"\n", "agent.toml:2:8"), ("window = \"at night\"\n", "agent.toml:2:10")] {
            let told = parse(&format!("[update]\n{text}")).unwrap_err().to_string();
            assert!(told.starts_with(place), "{told}");
        }
    }
}
