//! `[[job.table]]`: what is read of a table, and in which way it is sent.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_host::{ConfigMistake, Spanned};
use towpath_transfer::{
    manifest::{Label, SqlType},
    name::{FileName, InvalidName},
    packed,
};

use super::{csv::CsvConfig, source::At, time};

/// The most tables one job has.
pub const MAX_TABLES: usize = towpath_transfer::manifest::MAX_FILES;
/// The most columns of a key or a watermark.
pub const MAX_KEY_COLUMNS: usize = 16;
/// How often an incremental table's keys are compared unless it says otherwise.
pub const DEFAULT_COMPARE_KEYS: Duration = Duration::from_secs(7 * 24 * 3_600);

/// One table of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableConfig {
    /// The table's name on the wire, and in the ERP where there is no query.
    pub name: Label,
    /// The schema of the ERP's table; the login's own where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// What is read instead of the whole table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The types of columns whose type the database does not say well enough, by column name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub types: BTreeMap<String, SqlType>,
    /// The CSV file's name; `<name>.csv` where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileName>,
    /// Columns that are not read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub omit: Vec<String>,
    /// Columns whose values leave the host as keyed hashes only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pseudonymise: Vec<String>,
    /// The columns whose values no two rows share.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
    /// Only rows that have changed are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incremental: Option<IncrementalConfig>,
    /// What a change of the columns means.
    pub drift: DriftPolicy,
    /// What a NUL character in a text means.
    pub nul: NulPolicy,
    /// Which files of a folder are the table, for a source of kind `files`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<String>,
    /// How a file's rows go into the app's table, for a source of kind `files`.
    #[serde(skip_serializing_if = "is_default")]
    pub each_file: EachFile,
    /// How the files are written, for a source of kind `files`.
    #[serde(skip_serializing_if = "is_default")]
    pub csv: CsvConfig,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// `[job.table.incremental]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Incremental")]
pub struct IncrementalConfig {
    /// The columns that grow with every change of a row; compared in this order.
    pub watermark: Vec<String>,
    /// How far before the last greatest value is read again, for rows that were committed late.
    #[serde(default)]
    #[schemars(with = "OverlapText")]
    pub overlap: Overlap,
    /// How often all keys are sent, so that rows deleted in the ERP are found.
    #[serde(with = "time::duration", default = "default_compare_keys")]
    #[schemars(with = "time::Long")]
    pub compare_keys: Duration,
}

const fn default_compare_keys() -> Duration {
    DEFAULT_COMPARE_KEYS
}

/// How far before the last greatest watermark is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Overlap {
    /// Rows that have exactly the greatest value, and no others.
    #[default]
    Equal,
    /// So much of a column of dates or timestamps.
    Time(#[serde(with = "time::duration")] Duration),
    /// So much of a column of whole numbers.
    Count(u64),
}

/// What an overlap may be in the file.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[expect(dead_code, reason = "only its schema is used; `Overlap` reads it")]
enum OverlapText {
    Time(time::Long),
    Count(u64),
}

/// `[job.table.drift]`: what a change of the columns since the last import means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DriftPolicy {
    /// A column was added.
    pub added: Policy,
    /// A column was removed.
    pub removed: Policy,
    /// A column has another type.
    pub changed: Policy,
}

impl Default for DriftPolicy {
    fn default() -> Self {
        Self { added: Policy::Accept, removed: Policy::Warn, changed: Policy::Warn }
    }
}

/// What follows a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Nothing.
    Accept,
    /// A warning in log and status; the table is sent.
    Warn,
    /// The transfer waits for a person.
    Stop,
}

/// What a NUL character in a text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NulPolicy {
    /// The transfer waits for a person.
    #[default]
    Stop,
    /// It is replaced by U+FFFD, and counted.
    Replace,
}

/// How a dropped file's rows go into the app's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EachFile {
    /// The files of one transfer together are the table.
    #[default]
    Replaces,
    /// They are merged by key into what the app has.
    Merges,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Table")]
pub(super) struct RawTable {
    /// The table's name, in the ERP and at the app.
    #[schemars(with = "String", length(min = 1))]
    name: Spanned<Label>,
    /// The schema of the database it lies in.
    schema: Option<String>,
    /// Read this instead of the whole table.
    query: Option<Spanned<String>>,
    /// Types of columns whose type the database does not say well enough, such as DECIMAL(30,10).
    #[schemars(with = "BTreeMap<String, String>")]
    #[serde(default)]
    types: BTreeMap<String, SqlType>,
    /// The CSV file's name; the table's name and .csv where it is not said.
    #[schemars(with = "Option<String>")]
    file: Option<FileName>,
    /// Columns that are never read.
    #[serde(default)]
    omit: Vec<String>,
    /// Columns whose values leave this host as keyed hashes only.
    #[serde(default)]
    pseudonymise: Vec<String>,
    /// The columns whose values no two rows share.
    #[serde(default)]
    key: Vec<String>,
    /// Only rows that have changed are sent, and merged by the key.
    incremental: Option<Spanned<IncrementalConfig>>,
    /// What a change of the columns since the last import means.
    #[serde(default)]
    drift: DriftPolicy,
    /// What a NUL character in a text means.
    #[serde(default)]
    nul: NulPolicy,
    /// For files: which ones; * stands for any characters.
    files: Option<Spanned<String>>,
    /// For files: whether they replace the table or are merged by key.
    #[serde(default)]
    each_file: EachFile,
    /// For files: how they are written.
    csv: Option<Spanned<CsvConfig>>,
}

impl TableConfig {
    /// A table of this name, read whole.
    #[must_use]
    pub fn whole(name: Label) -> Self {
        Self {
            name,
            schema: None,
            query: None,
            types: BTreeMap::new(),
            file: None,
            omit: Vec::new(),
            pseudonymise: Vec::new(),
            key: Vec::new(),
            incremental: None,
            drift: DriftPolicy::default(),
            nul: NulPolicy::default(),
            files: None,
            each_file: EachFile::default(),
            csv: CsvConfig::default(),
        }
    }

    /// The CSV file's name.
    ///
    /// # Errors
    /// [`InvalidName`] where there is no `file` and the table's name cannot be part of a file name. Configuration that
    /// was loaded has been checked for this.
    pub fn csv_name(&self) -> Result<FileName, InvalidName> {
        match &self.file {
            Some(file) => Ok(file.clone()),
            None => format!("{}.csv", self.name).parse(),
        }
    }
}

/// The tables of a job, checked. `of_files` says whether its source is a folder of files.
pub(super) fn tables(raw: Vec<RawTable>, of_files: bool, at: At<'_>) -> Result<Vec<TableConfig>, ConfigMistake> {
    let mut names = HashSet::new();
    let mut files = HashSet::new();
    let mut tables = Vec::new();
    for raw in raw {
        let span = Some(raw.name.span());
        if tables.len() >= MAX_TABLES {
            return Err(at(span, format!("a job has more than {MAX_TABLES} tables")));
        }
        if !names.insert(raw.name.get_ref().as_str().to_lowercase()) {
            return Err(at(span, format!("another table of this job is called {:?}", raw.name.get_ref().as_str())));
        }
        let table = raw.check(of_files, at)?;
        check_file(&table, &mut files).map_err(|problem| at(span, problem))?;
        tables.push(table);
    }
    Ok(tables)
}

/// Whether tables that are checked by themselves can be together in a job.
pub(super) fn check_files(tables: &[TableConfig]) -> Result<(), String> {
    if tables.len() > MAX_TABLES {
        return Err(format!("with the profile's tables the job has more than {MAX_TABLES}"));
    }
    let mut files = HashSet::new();
    tables.iter().try_for_each(|table| check_file(table, &mut files))
}

fn check_file(table: &TableConfig, files: &mut HashSet<String>) -> Result<(), String> {
    let csv = table
        .csv_name()
        .map_err(|error| format!("{error}, so the table's CSV file cannot be called after it: give it a `file`"))?;
    if packed::is_reserved(&csv) || packed::packed_name(&csv).is_err() {
        return Err(format!("a CSV file cannot be called {csv}: the name is reserved or too long"));
    }
    if !files.insert(csv.case_folded()) {
        return Err(format!("another table of this job writes the file {csv}"));
    }
    Ok(())
}

impl RawTable {
    fn check(self, of_files: bool, at: At<'_>) -> Result<TableConfig, ConfigMistake> {
        let span = self.name.span();
        let wrong = |problem: String| at(Some(span.clone()), problem);
        if let Some(query) = self.query.as_ref().filter(|query| query.get_ref().trim().is_empty()) {
            return Err(at(Some(query.span()), "the query is empty: leave it out to read the whole table".to_owned()));
        }
        if self.schema.is_some() && self.query.is_some() {
            return Err(wrong("a `schema` has no effect beside a `query`".to_owned()));
        }
        let foreign = [("files", self.files.as_ref().map(Spanned::span)), ("csv", self.csv.as_ref().map(Spanned::span))];
        if let Some((name, place)) = foreign.into_iter().find(|(_, place)| place.is_some()).filter(|_| !of_files) {
            return Err(at(place, format!("`{name}` belongs to a source of kind \"files\"")));
        }
        if of_files && (self.query.is_some() || self.schema.is_some() || self.incremental.is_some()) {
            return Err(wrong("files have no `query`, no `schema` and no `incremental`".to_owned()));
        }
        if let Some((csv, problem)) = self.csv.as_ref().and_then(|csv| Some((csv, csv.get_ref().problem()?))) {
            return Err(at(Some(csv.span()), problem));
        }
        if let Some(files) = self.files.as_ref().filter(|files| !is_pattern(files.get_ref())) {
            let told = "`files` must be the name of files in the folder, in which * stands for any characters";
            return Err(at(Some(files.span()), told.to_owned()));
        }
        if of_files && self.each_file == EachFile::Merges && self.key.is_empty() {
            return Err(wrong("files that are merged need a `key`".to_owned()));
        }
        if let Some(both) = self.omit.iter().find(|name| self.pseudonymise.contains(name) || self.key.contains(name)) {
            return Err(wrong(format!("column {both} is left out and used all the same")));
        }
        if self.key.len() > MAX_KEY_COLUMNS {
            return Err(wrong(format!("a key has at most {MAX_KEY_COLUMNS} columns")));
        }
        let incremental = match self.incremental {
            Some(raw) => Some(incremental(raw, &self.key, &self.omit, &self.pseudonymise, at)?),
            None => None,
        };
        Ok(TableConfig {
            name: self.name.into_inner(),
            schema: self.schema,
            query: self.query.map(Spanned::into_inner),
            types: self.types,
            file: self.file,
            omit: self.omit,
            pseudonymise: self.pseudonymise,
            key: self.key,
            incremental,
            drift: self.drift,
            nul: self.nul,
            files: self.files.map(Spanned::into_inner),
            each_file: self.each_file,
            csv: self.csv.map(Spanned::into_inner).unwrap_or_default(),
        })
    }
}

/// Whether a text is a pattern of names in one folder.
fn is_pattern(text: &str) -> bool {
    !text.is_empty() && !text.contains(['/', '\\']) && glob::Pattern::new(text).is_ok()
}

fn incremental(
    raw: Spanned<IncrementalConfig>,
    key: &[String],
    omit: &[String],
    pseudonymise: &[String],
    at: At<'_>,
) -> Result<IncrementalConfig, ConfigMistake> {
    let span = raw.span();
    let incremental = raw.into_inner();
    let wrong = |problem: String| at(Some(span.clone()), problem);
    if key.is_empty() {
        return Err(wrong("an incremental table needs a `key`, by which changed rows replace the old ones".to_owned()));
    }
    if incremental.watermark.is_empty() || incremental.watermark.len() > MAX_KEY_COLUMNS {
        return Err(wrong(format!("`watermark` names 1 to {MAX_KEY_COLUMNS} columns")));
    }
    if let Some(name) = incremental.watermark.iter().find(|name| omit.contains(name) || pseudonymise.contains(name)) {
        return Err(wrong(format!("the watermark column {name} is needed as it is")));
    }
    Ok(incremental)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Encoding};

    const SQLITE: &str = "kind = \"sqlite\"\npath = \"x\"";
    const FILES: &str = "kind = \"files\"\nfolder = \"x\"";

    fn text(source: &str, table: &str) -> String {
        format!("[[job]]\nname = \"main\"\n[job.source]\n{source}\n[[job.table]]\nname = \"items\"\n{table}")
    }

    fn table(source: &str, settings: &str) -> TableConfig {
        Config::parse(&text(source, settings), Path::new("agent.toml")).unwrap().jobs.remove(0).tables.remove(0)
    }

    fn mistake(source: &str, settings: &str) -> String {
        Config::parse(&text(source, settings), Path::new("agent.toml")).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_said_is_as_safe_as_it_can_be() {
        let table = table(SQLITE, "");
        assert_eq!(table, TableConfig::whole("items".parse().unwrap()));
        assert_eq!((table.nul, table.drift.added), (NulPolicy::Stop, Policy::Accept));
    }

    #[test]
    fn an_incremental_table_has_key_watermark_and_overlap() {
        let settings = "key = [\"id\"]\n[job.table.incremental]\nwatermark = [\"changed\"]\noverlap = \"10m\"\n";
        let incremental = table(SQLITE, settings).incremental.unwrap();
        assert_eq!(incremental.overlap, Overlap::Time(Duration::from_secs(600)));
        assert_eq!(incremental.compare_keys, DEFAULT_COMPARE_KEYS);
        let counted = table(SQLITE, &settings.replace("\"10m\"", "1000")).incremental.unwrap();
        assert_eq!(counted.overlap, Overlap::Count(1_000));
        let equal = table(SQLITE, &settings.replace("overlap = \"10m\"\n", "")).incremental.unwrap();
        assert_eq!(equal.overlap, Overlap::Equal);
        for (settings, said) in [
            (settings.replace("key = [\"id\"]\n", ""), "needs a `key`"),
            (settings.replace("[\"changed\"]", "[]"), "1 to 16 columns"),
            (format!("omit = [\"changed\"]\n{settings}"), "needed as it is"),
            (format!("omit = [\"id\"]\n{settings}"), "used all the same"),
        ] {
            assert!(mistake(SQLITE, &settings).contains(said), "{}", mistake(SQLITE, &settings));
        }
    }

    #[test]
    fn files_have_a_dialect() {
        let settings = "files = \"items*.csv\"\nkey = [\"no\"]\neach_file = \"merges\"\n[job.table.csv]\ndelimiter = \";\"\n\
                        quote = \"\"\nencoding = \"cp850\"\nheader = false\ncolumns = [\"no\", \"name\"]\ndecimal = \",\"\n\
                        thousands = \".\"\ndate = \"%d.%m.%Y\"\n";
        let csv = table(FILES, settings).csv;
        assert_eq!((csv.delimiter, csv.quote, csv.encoding), (';', None, Encoding::Cp850));
        assert_eq!((csv.decimal, csv.thousands, csv.date.as_str()), (',', Some('.'), "%d.%m.%Y"));
        for (source, settings, said) in [
            (SQLITE, "files = \"*.csv\"\n", "belongs to a source of kind \"files\""),
            (SQLITE, "[job.table.csv]\n", "belongs to a source of kind \"files\""),
            (FILES, "query = \"SELECT 1\"\n", "files have no `query`"),
            (FILES, "each_file = \"merges\"\n", "need a `key`"),
            (FILES, "[job.table.csv]\nquote = \"ab\"\n", "one character"),
            (FILES, "[job.table.csv]\ndelimiter = \"\\\"\"\n", "are the same"),
            (FILES, "files = \"in/*.csv\"\n", "name of files in the folder"),
            (FILES, "files = \"a[.csv\"\n", "name of files in the folder"),
            (SQLITE, "schema = \"dbo\"\nquery = \"SELECT 1\"\n", "no effect beside a `query`"),
        ] {
            assert!(mistake(source, settings).contains(said), "{}", mistake(source, settings));
        }
    }
}
