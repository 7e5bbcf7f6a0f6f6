//! What somebody who helps from afar needs to know of this agent, in one file, and nothing that may not leave the host: no key, no
//! password, no enrolment code, no row of the ERP.

mod scrub;

use std::io::{Cursor, Write as _};

use serde::Serialize;
use towpath_transfer::{Code, Failure, failure::Result};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

pub use self::scrub::{REMOVED, Scrubber};
use crate::{config::Config, host::Host, small_file};

/// The newest transfers that are listed.
pub const MAX_LISTED: usize = 200;
/// The newest transfers that are told in full.
pub const MAX_TOLD: usize = 20;
/// The last bytes of the log file that go along.
pub const MAX_LOG_BYTES: usize = 1024 * 1024;
/// The largest key file that is read to know what must not be in the bundle.
const MAX_KEY_BYTES: usize = 64 * 1024;

/// Everything that is known here and must not be in a bundle.
#[must_use]
pub fn secrets(host: &Host) -> Vec<String> {
    let settings = host.settings();
    // One that cannot be read cannot be in the bundle by way of this process.
    let referred = settings.secrets().into_iter().filter_map(|(what, secret)| towpath_keys::secrets::read(secret, &what).ok());
    let keys = [host.layout.key(), host.layout.pseudonym_key()];
    let kept = keys.iter().filter_map(|path| small_file::read(&*host.files, path, MAX_KEY_BYTES).ok().flatten());
    referred.chain(kept.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())).collect()
}

/// A bundle under way. Everything that is added is cleaned first.
#[derive(Debug)]
pub struct Bundle {
    zip: ZipWriter<Cursor<Vec<u8>>>,
    scrubber: Scrubber,
    names: Vec<String>,
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::park(Code::Internal, "writing the support bundle").caused_by(error)
}

impl Bundle {
    /// An empty bundle without these secrets.
    ///
    /// # Errors
    /// As [`Scrubber::new`].
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Result<Self> {
        Ok(Self { zip: ZipWriter::new(Cursor::new(Vec::new())), scrubber: Scrubber::new(secrets)?, names: Vec::new() })
    }

    /// Adds a text.
    ///
    /// # Errors
    /// `internal` where the archive cannot be written.
    pub fn text(&mut self, name: &str, text: &str) -> Result<()> {
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        self.zip.start_file(name, options).map_err(failed)?;
        self.zip.write_all(self.scrubber.clean(text).as_bytes()).map_err(failed)?;
        self.names.push(name.to_owned());
        Ok(())
    }

    /// Adds the configuration that is in force, without what programs are given: nobody here knows which of it is a password.
    ///
    /// # Errors
    /// As [`Bundle::text`].
    pub fn configuration(&mut self, config: &Config) -> Result<()> {
        let mut config = toml::Value::try_from(config).map_err(failed)?;
        withhold(&mut config, false);
        let text = toml::to_string(&config).map_err(failed)?;
        self.text("configuration.toml", &text)
    }

    /// Adds a value as JSON; what could not be found out is told in its place.
    ///
    /// # Errors
    /// As [`Bundle::text`].
    pub fn json(&mut self, name: &str, value: &Result<impl Serialize>) -> Result<()> {
        let text = match value {
            Ok(value) => serde_json::to_string_pretty(value).map_err(failed)?,
            Err(failure) => {
                let told = serde_json::json!({ "failed": failure.report(), "code": failure.code() });
                serde_json::to_string_pretty(&told).map_err(failed)?
            }
        };
        self.text(name, &text)
    }

    /// What is in it.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The archive.
    ///
    /// # Errors
    /// As [`Bundle::text`].
    pub fn finish(self) -> Result<Vec<u8>> {
        Ok(self.zip.finish().map_err(failed)?.into_inner())
    }
}

/// Leaves of every list of arguments only how many there are, and those that are a placeholder and nothing else.
fn withhold(value: &mut toml::Value, is_argument: bool) {
    match value {
        toml::Value::Table(table) => table.iter_mut().for_each(|(key, value)| withhold(value, key == "arguments")),
        toml::Value::Array(values) => values.iter_mut().for_each(|value| withhold(value, is_argument)),
        toml::Value::String(text) if is_argument && !is_placeholder(text) => REMOVED.clone_into(text),
        _ => {}
    }
}

fn is_placeholder(argument: &str) -> bool {
    let name = argument.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_is_added_is_cleaned_and_failures_are_told() {
        let mut bundle = Bundle::new(["hunter2".to_owned()]).unwrap();
        bundle.text("a.txt", "it is hunter2").unwrap();
        bundle.json("b.json", &Ok(vec!["hunter2"])).unwrap();
        bundle.json("c.json", &Err::<(), _>(Failure::park(Code::NotEnrolled, "hunter2 is not enrolled"))).unwrap();
        assert_eq!(bundle.names(), ["a.txt", "b.json", "c.json"]);
        let mut archive = zip::ZipArchive::new(Cursor::new(bundle.finish().unwrap())).unwrap();
        let mut read = |name: &str| {
            let mut text = String::new();
            archive.by_name(name).unwrap().read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(read("a.txt"), format!("it is {REMOVED}"));
        assert!(!read("b.json").contains("hunter2"));
        let failed = read("c.json");
        assert!(failed.contains("not-enrolled") && !failed.contains("hunter2"), "{failed}");
    }
}
