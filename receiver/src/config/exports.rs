//! `[[export]]`: the folders that are watched for return files.

use std::{collections::HashSet, path::Path, time::Duration};

use serde::Deserialize;
use towpath_host::Spanned;
use towpath_host::{ConfigMistake, Pause};
use towpath_transfer::{AgentName, FileName, JobName, ReturnKind, id::InvalidSlug};

use super::Check;
use crate::downlink::{
    take::DEFAULT_JOB,
    watch::{Complete, ExportFolder},
};

/// The most folders that may be watched.
pub(super) const MAX_EXPORT_FOLDERS: usize = 100;
/// The shortest time after which a file may count as whole.
pub(super) const LEAST_STABLE: Duration = Duration::from_millis(100);
/// For how long a file must have stayed the same, unless it is said.
pub(super) const DEFAULT_STABLE: Duration = Duration::from_secs(10);
/// What a marker's name ends with, unless it is said.
pub(super) const DEFAULT_MARKER: &str = ".ready";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExport {
    folder: Spanned<String>,
    kind: ReturnKind,
    agent: Option<AgentName>,
    job: Option<JobName>,
    #[serde(default)]
    complete: RawComplete,
    stable_for: Option<Spanned<Pause>>,
    marker_suffix: Option<Spanned<String>>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawComplete {
    #[default]
    Stable,
    Marker,
}

impl Check<'_> {
    pub(super) fn exports(&self, raw: Vec<Spanned<RawExport>>, folder: &Path) -> Result<Vec<ExportFolder>, ConfigMistake> {
        if let Some(over) = raw.get(MAX_EXPORT_FOLDERS) {
            return Err(self.at(over, format!("there are more than {MAX_EXPORT_FOLDERS} export folders")));
        }
        let mut known = HashSet::new();
        let mut exports = Vec::new();
        for export in raw {
            let export = export.into_inner();
            if export.folder.get_ref().is_empty() {
                return Err(self.at(&export.folder, "say which folder is watched"));
            }
            let path = folder.join(export.folder.get_ref());
            if !known.insert(path.clone()) {
                return Err(self.at(&export.folder, "this folder is watched already"));
            }
            let job = match export.job {
                Some(job) => job,
                None => DEFAULT_JOB.parse().map_err(|e: InvalidSlug| self.at(&export.folder, e.to_string()))?,
            };
            exports.push(ExportFolder {
                folder: path,
                kind: export.kind,
                agent: export.agent,
                job,
                complete: self.complete(export.complete, export.stable_for, export.marker_suffix)?,
            });
        }
        Ok(exports)
    }

    fn complete(
        &self,
        how: RawComplete,
        stable_for: Option<Spanned<Pause>>,
        suffix: Option<Spanned<String>>,
    ) -> Result<Complete, ConfigMistake> {
        match (how, stable_for, suffix) {
            (RawComplete::Stable, _, Some(suffix)) => Err(self.at(&suffix, "this belongs to complete = \"marker\"")),
            (RawComplete::Marker, Some(stable), _) => Err(self.at(&stable, "this belongs to complete = \"stable\"")),
            (RawComplete::Stable, None, None) => Ok(Complete::Stable(DEFAULT_STABLE)),
            (RawComplete::Stable, Some(value), None) if value.get_ref().0 >= LEAST_STABLE => {
                Ok(Complete::Stable(value.into_inner().0))
            }
            (RawComplete::Stable, Some(value), None) => Err(self.at(&value, "stable_for must be at least 100ms")),
            (RawComplete::Marker, None, None) => Ok(Complete::Marker(DEFAULT_MARKER.to_owned())),
            // A suffix is good where it makes a good name of one.
            (RawComplete::Marker, None, Some(value)) if format!("a{}", value.get_ref()).parse::<FileName>().is_ok() => {
                if value.get_ref().is_empty() {
                    return Err(self.at(&value, "a file is no marker of its own"));
                }
                Ok(Complete::Marker(value.into_inner()))
            }
            (RawComplete::Marker, None, Some(value)) => Err(self.at(&value, "no file\'s name can end with this")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::Config;

    fn parse(text: &str) -> Result<Vec<ExportFolder>, String> {
        let parsed = Config::parse(text, Path::new("/etc/towpath/receiver.toml"));
        parsed.map(|config| config.exports).map_err(|mistake| mistake.to_string())
    }

    const HEAD: &str = "[[export]]\nfolder = \"out\"\nkind = \"orders\"\n";

    #[test]
    fn a_folder_counts_from_the_file_and_has_defaults() {
        let folders = parse(HEAD).unwrap();
        assert_eq!(folders[0].folder, PathBuf::from("/etc/towpath/out"));
        assert_eq!((folders[0].job.as_str(), &folders[0].agent), ("main", &None));
        assert_eq!(folders[0].complete, Complete::Stable(DEFAULT_STABLE));
        let marked = parse(&format!("{HEAD}complete = \"marker\"\n")).unwrap();
        assert_eq!(marked[0].complete, Complete::Marker(DEFAULT_MARKER.to_owned()));
        let other =
            parse(&format!("{HEAD}complete = \"marker\"\nmarker_suffix = \".done\"\nagent = \"erp\"\njob = \"two\"\n")).unwrap();
        assert_eq!(other[0].complete, Complete::Marker(".done".to_owned()));
        assert_eq!((other[0].job.as_str(), other[0].agent.as_ref().unwrap().as_str()), ("two", "erp"));
    }

    #[test]
    fn mistakes_have_their_place() {
        for (more, place) in [
            ("stable_for = \"1ms\"\n", ":4:14: "),
            ("marker_suffix = \".done\"\n", ":4:17: "),
            ("complete = \"marker\"\nstable_for = \"10s\"\n", ":5:14: "),
            ("complete = \"marker\"\nmarker_suffix = \"\"\n", ":5:17: "),
            ("complete = \"marker\"\nmarker_suffix = \"a/b\"\n", ":5:17: "),
            ("complete = \"sometime\"\n", ":4:12: "),
            ("[[export]]\nfolder = \"out\"\nkind = \"orders\"\n", ":5:10: "),
            ("[[export]]\nfolder = \"\"\nkind = \"orders\"\n", ":5:10: "),
            ("[[export]]\nfolder = \"b\"\nkind = \"NOT\"\n", ":6:8: "),
        ] {
            let said = parse(&format!("{HEAD}{more}")).unwrap_err();
            assert!(said.contains(place), "{more}: {said}");
        }
        let many: String = (0..=MAX_EXPORT_FOLDERS).map(|n| format!("[[export]]\nfolder = \"f{n}\"\nkind = \"k\"\n")).collect();
        assert!(parse(&many).unwrap_err().contains("more than 100 export folders"));
    }
}
