//! Profiles: the tables of one ERP that bring the planning data contract, ready to be named in a job.
//!
//! The program has the ones of `samples/profiles/` in it, so that `profile = "tryton"` needs no file; a path names any other. A
//! profile's tables have the form of `[[job.table]]`, and what is said of a table in a job counts before the profile.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use towpath_host::{ConfigMistake, Spanned, config};
use towpath_transfer::manifest::Label;

use super::{
    SourceConfig,
    source::At,
    table::{self, RawTable, TableConfig},
};

/// The most characters of a parameter's value; a table's name, in which most of them stand, has no more.
pub const MAX_PARAMETER_CHARS: usize = 128;
/// Characters that end a name or a text in the SQL of one database or another, and so cannot stand in a parameter's value.
const NOT_IN_VALUES: &[char] = &['\'', '"', '`', '[', ']', ';', '\\'];

const BUILT_IN: &[(&str, &str)] = &[
    ("tryton", include_str!("../../../samples/profiles/tryton.toml")),
    ("sap-business-one", include_str!("../../../samples/profiles/sap-business-one.toml")),
    ("business-central", include_str!("../../../samples/profiles/business-central.toml")),
];

/// The tables of one ERP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// The ERP, and the version it was written for.
    pub erp: String,
    /// How it was tested; absent where nobody has run it yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tested: Option<String>,
    /// The kinds of sources that its SQL is written for.
    pub sources: Vec<String>,
    /// What a reader must know of it.
    pub about: String,
    /// What a job must or may say.
    #[serde(rename = "parameter", skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter>,
    /// What it reads of the ERP.
    #[serde(rename = "reads", skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<ErpTable>,
    /// The tables that it brings, with `{parameter}` in queries.
    #[serde(rename = "table")]
    pub tables: Vec<TableConfig>,
}

/// A value that a profile leaves to the job, as `{name}` in queries, schemas and the names of the ERP's tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// What it means.
    pub about: String,
    /// What it may look like.
    pub example: String,
    /// Its value where the job says none; without one the job must.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

/// A table of the ERP, with the columns that a profile reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErpTable {
    /// Its name in the ERP's database.
    pub name: Label,
    /// The schema; the login's own where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// What brings it, where that is not the ERP's core: a module or an extension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// The columns.
    pub columns: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProfile {
    name: Spanned<String>,
    erp: String,
    tested: Option<String>,
    sources: Vec<String>,
    about: String,
    #[serde(default, rename = "parameter")]
    parameters: Vec<Spanned<Parameter>>,
    #[serde(default)]
    reads: Vec<ErpTable>,
    #[serde(rename = "table")]
    tables: Vec<RawTable>,
}

impl Profile {
    /// The profiles that this program has.
    ///
    /// # Errors
    /// Never, while the tests of this module pass.
    pub fn built_in() -> Result<Vec<Self>, ConfigMistake> {
        BUILT_IN.iter().map(|(name, text)| Self::parse(text, Path::new(&format!("{name}.toml")))).collect()
    }

    /// The names of the profiles that this program has.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// The text of a profile that this program has.
    #[must_use]
    pub fn text(name: &str) -> Option<&'static str> {
        BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
    }

    /// Where a profile's file lies that is named by its path; `None` for one that this program has. A path has a slash in it or
    /// ends with `.toml`; a relative one counts from `folder`.
    pub(super) fn path(reference: &str, folder: &Path) -> Option<PathBuf> {
        (reference.contains(['/', '\\']) || reference.ends_with(".toml")).then(|| folder.join(reference))
    }

    /// The profile that is named, or lies at a path.
    ///
    /// # Errors
    /// `unusable` where there is none; a mistake with its place in the profile's own file.
    pub fn find<E: From<ConfigMistake>>(reference: &str, folder: &Path, unusable: impl FnOnce(String) -> E) -> Result<Self, E> {
        if let Some(path) = Self::path(reference, folder) {
            return match config::read_text(&path) {
                Ok(text) => Ok(Self::parse(&text, &path)?),
                Err(failure) => Err(unusable(format!("the profile cannot be read: {}", failure.report()))),
            };
        }
        match Self::text(reference) {
            Some(text) => Ok(Self::parse(text, Path::new(&format!("{reference}.toml")))?),
            None => {
                let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
                let known = names.join(", ");
                Err(unusable(format!("there is no profile {reference:?}: use one of {known}, or the path of a file")))
            }
        }
    }

    /// Reads a profile.
    ///
    /// # Errors
    /// The first [`ConfigMistake`].
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigMistake> {
        let raw: RawProfile = config::parse(text, file)?;
        let at: At<'_> = &|span, problem| ConfigMistake::at(file, text, span, problem);
        let span = Some(raw.name.span());
        let name = raw.name.into_inner();
        if !is_name(&name, '-') {
            return Err(at(span, "a profile's name is lower-case letters, digits and hyphens".to_owned()));
        }
        let mut parameters: Vec<Parameter> = Vec::new();
        for parameter in raw.parameters {
            let span = Some(parameter.span());
            let parameter = parameter.into_inner();
            let told = |problem: String| at(span.clone(), format!("parameter {:?}: {problem}", parameter.name));
            if !is_name(&parameter.name, '_') {
                return Err(told("its name is lower-case letters, digits and underscores".to_owned()));
            }
            if parameters.iter().any(|other| other.name == parameter.name) {
                return Err(told("another one has this name".to_owned()));
            }
            if let Some(Err(problem)) = parameter.default.as_deref().map(check_value) {
                return Err(told(problem));
            }
            parameters.push(parameter);
        }
        let tables = table::tables(raw.tables, false, at)?;
        let profile = Self {
            name,
            erp: raw.erp,
            tested: raw.tested,
            sources: raw.sources,
            about: raw.about,
            parameters,
            reads: raw.reads,
            tables,
        };
        for (place, text) in profile.templates() {
            if let Some(unknown) = placeholders(text).find(|name| profile.parameters.iter().all(|one| one.name != *name)) {
                let told = format!("{place}: {{{unknown}}} is no parameter of this profile");
                return Err(at(span, told));
            }
        }
        Ok(profile)
    }

    /// Every text in which parameters may stand, and whose it is.
    fn templates(&self) -> impl Iterator<Item = (&str, &str)> {
        let tables = self.tables.iter().flat_map(|table| {
            [&table.query, &table.schema].into_iter().flatten().map(|text| (table.name.as_str(), text.as_str()))
        });
        let reads = self.reads.iter().flat_map(|table| {
            [Some(table.name.as_str()), table.schema.as_deref()].into_iter().flatten().map(|text| (table.name.as_str(), text))
        });
        tables.chain(reads)
    }

    /// The profile with `given` in the places of its parameters.
    ///
    /// # Errors
    /// Says which parameter is missing, unknown, or has a value that cannot stand in SQL.
    pub fn filled(mut self, given: &BTreeMap<String, String>) -> Result<Self, String> {
        if let Some(unknown) = given.keys().find(|name| self.parameters.iter().all(|one| one.name != **name)) {
            let known: Vec<&str> = self.parameters.iter().map(|one| one.name.as_str()).collect();
            let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
            return Err(format!("the profile {} has no parameter {unknown:?}; {known}", self.name));
        }
        let mut values = BTreeMap::new();
        for parameter in &self.parameters {
            let Some(value) = given.get(&parameter.name).or(parameter.default.as_ref()) else {
                let Parameter { name, about, example, .. } = parameter;
                return Err(format!("the profile {} needs the parameter {name}, such as {example:?}: {about}", self.name));
            };
            check_value(value).map_err(|problem| format!("the parameter {}: {problem}", parameter.name))?;
            values.insert(parameter.name.clone(), value.clone());
        }
        let fill = |text: &mut String| *text = filled(text, &values);
        for table in &mut self.tables {
            table.query.iter_mut().chain(&mut table.schema).for_each(fill);
        }
        for table in &mut self.reads {
            table.schema.iter_mut().for_each(fill);
            table.name = filled(table.name.as_str(), &values)
                .parse()
                .map_err(|error| format!("the name of the ERP's table {}: {error}", table.name))?;
        }
        Ok(self)
    }

    /// Whether its SQL is for sources of this kind.
    ///
    /// # Errors
    /// Says for which it is.
    pub fn fits(&self, source: &SourceConfig) -> Result<(), String> {
        if self.sources.iter().any(|kind| kind == source.kind()) {
            return Ok(());
        }
        let kinds = self.sources.join(", ");
        Err(format!("the profile {} is for sources of kind {kinds}, and this job's is of kind {}", self.name, source.kind()))
    }
}

/// A profile's tables and a job's own: what the job says of a table of the same name counts, and its other tables follow.
pub(super) fn merged(profile: Vec<TableConfig>, mut own: Vec<TableConfig>) -> Vec<TableConfig> {
    let is_same = |one: &TableConfig, other: &TableConfig| one.name.as_str().eq_ignore_ascii_case(other.name.as_str());
    let mut tables: Vec<TableConfig> = Vec::new();
    for table in profile {
        match own.iter().position(|one| is_same(one, &table)) {
            Some(place) => tables.push(own.remove(place)),
            None => tables.push(table),
        }
    }
    tables.extend(own);
    tables
}

/// A parameter's value in a configuration file: a text, or a whole number.
///
/// # Errors
/// Says that it is something else.
pub(super) fn value(value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        _ => Err("a parameter is a text or a whole number".to_owned()),
    }
}

fn is_name(text: &str, joint: char) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == joint;
    (1..=MAX_PARAMETER_CHARS).contains(&text.len()) && text.chars().all(good)
}

fn check_value(value: &str) -> Result<(), String> {
    if value.is_empty() || value.chars().count() > MAX_PARAMETER_CHARS {
        return Err(format!("its value has 1 to {MAX_PARAMETER_CHARS} characters"));
    }
    match value.chars().find(|c| NOT_IN_VALUES.contains(c) || c.is_control()) {
        Some(found) => Err(format!("its value cannot hold {found:?}, because it stands within names and texts of SQL")),
        None => Ok(()),
    }
}

/// The names in `{name}`; other braces are SQL's own.
fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name).filter(|name| is_name(name, '_'))
}

fn filled(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let found = after.split_once('}').and_then(|(name, after)| Some((values.get(name)?, after)));
        match found {
            Some((value, after)) => {
                filled.push_str(value);
                rest = after;
            }
            None => {
                filled.push('{');
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, planning::Contract};

    const OWN: &str = "name = \"own\"\nerp = \"Own\"\nsources = [\"sqlite\"]\nabout = \"x\"\n\
        [[parameter]]\nname = \"company\"\nabout = \"the company\"\nexample = \"ACME\"\n\
        [[parameter]]\nname = \"app\"\nabout = \"the app\"\nexample = \"1\"\ndefault = \"7\"\n\
        [[table]]\nname = \"items\"\nquery = \"SELECT '{1,2}' AS x, {app} FROM [{company}$Item]\"\n\
        [[table]]\nname = \"locations\"\nquery = \"SELECT 1\"\n\
        [[reads]]\nname = \"{company}$Item\"\ncolumns = [\"No_\"]\n";

    fn own(text: &str) -> Result<Profile, ConfigMistake> {
        Profile::parse(text, Path::new("own.toml"))
    }

    fn given(values: &[(&str, &str)]) -> BTreeMap<String, String> {
        values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_profile_brings_the_contract() {
        let contract = Contract::get().unwrap();
        let profiles = Profile::built_in().unwrap();
        assert!(profiles.iter().map(|one| one.name.as_str()).eq(BUILT_IN.iter().map(|(name, _)| *name)));
        for profile in profiles {
            for wanted in contract.tables.iter().filter(|table| table.required) {
                assert!(profile.tables.iter().any(|table| table.name == wanted.name), "{}: {}", profile.name, wanted.name);
            }
            for table in &profile.tables {
                let place = format!("{}: {}", profile.name, table.name);
                let wanted = contract.table(&table.name).unwrap_or_else(|| panic!("{place}"));
                assert_eq!(table.key, wanted.key, "{place}");
                let query = table.query.as_ref().unwrap_or_else(|| panic!("{place} has no query"));
                let brings = |name: &str| {
                    let after = format!("AS {name}");
                    let is_end = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
                    query.match_indices(&after).any(|(at, found)| is_end(&query[at + found.len()..]))
                };
                for column in wanted.columns.iter().filter(|column| column.required) {
                    assert!(brings(&column.name), "{place}.{}", column.name);
                }
                // A name in lower case with an underscore is the contract's way to name a column.
                for (at, _) in query.match_indices(" AS ") {
                    let name: String = query[at + 4..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                    let known = wanted.columns.iter().any(|column| column.name == name);
                    assert!(known || !name.contains('_'), "{place}: {name} is none of the contract's columns");
                }
            }
            let sql: String = profile.tables.iter().filter_map(|table| table.query.clone()).collect();
            for table in &profile.reads {
                assert!(sql.contains(table.name.as_str()), "{}: nothing reads {}", profile.name, table.name);
                for column in &table.columns {
                    assert!(sql.contains(column), "{}: nothing reads {}.{column}", profile.name, table.name);
                }
            }
        }
    }

    #[test]
    fn parameters_stand_in_queries_and_names() {
        let filled = own(OWN).unwrap().filled(&given(&[("company", "CRONUS AG")])).unwrap();
        assert_eq!(filled.tables[0].query.as_deref(), Some("SELECT '{1,2}' AS x, 7 FROM [CRONUS AG$Item]"));
        assert_eq!(filled.reads[0].name.as_str(), "CRONUS AG$Item");
        for (values, said) in [
            (&[][..], "needs the parameter company, such as \"ACME\": the company"),
            (&[("company", "x"), ("compnay", "y")][..], "has no parameter \"compnay\"; it has company, app"),
            (&[("company", "x]; DROP")][..], "cannot hold ']'"),
            (&[("company", "")][..], "1 to 128 characters"),
        ] {
            let told = own(OWN).unwrap().filled(&given(values)).unwrap_err();
            assert!(told.contains(said), "{told}");
        }
        let long = "x".repeat(MAX_PARAMETER_CHARS + 1);
        assert!(own(OWN).unwrap().filled(&given(&[("company", &long)])).unwrap_err().contains("1 to 128"));
        // Each value may be as long as that; the name that it is put into has a limit of its own.
        assert!(own(OWN).unwrap().filled(&given(&[("company", &long[1..])])).unwrap_err().contains("$Item"));
    }

    #[test]
    fn a_profile_that_contradicts_itself_is_refused_in_its_own_file() {
        for (text, said) in [
            (OWN.replace("{app}", "{ap}"), "own.toml:1:8: items: {ap} is no parameter"),
            (OWN.replace("\"app\"", "\"company\""), "another one has this name"),
            (OWN.replace("\"7\"", "\"'\""), "cannot hold"),
            (OWN.replace("\"own\"", "\"Own!\""), "lower-case letters"),
            (OWN.replace("\"company\"", "\"Company\""), "lower-case letters"),
            (OWN.replace("query = \"SELECT 1\"", "qurey = \"\""), "did you mean `query`?"),
            (OWN.replace("\"locations\"", "\"Items\""), "another table of this job"),
        ] {
            let told = own(&text).unwrap_err().to_string();
            assert!(told.contains(said), "{told}");
        }
    }

    #[test]
    fn a_job_names_a_profile_and_may_say_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("own.toml"), OWN).unwrap();
        let file = folder.path().join("agent.toml");
        let job = "[[job]]\nname = \"main\"\nprofile = \"own.toml\"\n[job.profile_parameters]\ncompany = 5\n\
            [job.source]\nkind = \"sqlite\"\npath = \"x\"\n";
        let parse = |text: &str| Config::parse(text, &file);
        let plain = parse(job).unwrap().jobs.remove(0);
        assert_eq!(plain.tables.len(), 2);
        assert!(plain.tables[0].query.as_ref().unwrap().contains("[5$Item]"));
        let shown = toml::to_string(&parse(job).unwrap()).unwrap();
        assert!(shown.contains("own.toml") && shown.contains("company = \"5\"") && shown.contains("[5$Item]"), "{shown}");
        let more = format!("{job}[[job.table]]\nname = \"Locations\"\nquery = \"SELECT 2\"\n[[job.table]]\nname = \"more\"\n");
        let tables = parse(&more).unwrap().jobs.remove(0).tables;
        let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        assert_eq!(names, ["items", "Locations", "more"]);
        let again = plain.with_profile("own.toml", given(&[("app", "9")]), folder.path()).unwrap();
        assert!(again.tables[0].query.as_ref().unwrap().contains("9 FROM [5$Item]"));
        for (text, said) in [
            (job.replace("\"own.toml\"", "\"none.toml\""), ":3:11: the profile cannot be read"),
            (job.replace("\"own.toml\"", "\"tryto\""), "there is no profile \"tryto\": use one of tryton, "),
            (job.replace("\"own.toml\"", "\"tryton\""), "for sources of kind postgresql, and this job's is of kind sqlite"),
            (job.replace("company = 5", "company = 5.5"), "a text or a whole number"),
            (job.replace("company = 5", ""), "needs the parameter company"),
            (job.replace("profile = \"own.toml\"", ""), "no [[job.table]] and no `profile`"),
            (format!("{job}[[job.table]]\nname = \"more\"\nfile = \"items.csv\"\n"), "another table of this job writes the file"),
        ] {
            let told = parse(&text).unwrap_err().to_string();
            assert!(told.contains(said), "{told}");
        }
        let belong = format!("{}[[job.table]]\nname = \"more\"\n", job.replace("profile = \"own.toml\"", ""));
        assert!(parse(&belong).unwrap_err().to_string().contains("belong to a `profile`"));
    }
}
