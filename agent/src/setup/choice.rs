//! What of an ERP is read.

use towpath_transfer::{Code, Failure, failure::Result};

use crate::{
    config::{Profile, SourceConfig, TableConfig},
    extract::ListedTable,
};

/// The profiles whose ERP this database seems to be: it has every table that they read of the ERP's core, and those names do not
/// depend on a parameter.
///
/// # Errors
/// As [`Profile::built_in`].
pub fn fitting_profiles(source: &SourceConfig, tables: &[ListedTable]) -> Result<Vec<Profile>> {
    let has = |name: &str| tables.iter().any(|table| table.name.eq_ignore_ascii_case(name));
    let fits = |profile: &Profile| {
        let mut core = profile.reads.iter().filter(|table| table.of.is_none()).map(|table| table.name.as_str()).peekable();
        profile.fits(source).is_ok() && core.peek().is_some() && core.all(has)
    };
    Ok(Profile::built_in()?.into_iter().filter(fits).collect())
}

/// The configuration of a table that a person has named as a source lists it: `name`, or `schema.name`.
///
/// # Errors
/// `config-invalid` where no table can be called so.
pub fn table_config(named: &str, listed: &[ListedTable]) -> Result<TableConfig> {
    let table = listed.iter().find(|table| table.to_string() == named).cloned();
    let table = table.unwrap_or_else(|| match named.split_once('.') {
        Some((schema, name)) => ListedTable { schema: Some(schema.to_owned()), name: name.to_owned() },
        None => ListedTable { schema: None, name: named.to_owned() },
    });
    let name = table.name.parse();
    let name = name.map_err(|error| Failure::park(Code::ConfigInvalid, format!("the table {named:?}")).caused_by(error))?;
    Ok(TableConfig { schema: table.schema, ..TableConfig::whole(name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(names: &[&str]) -> Vec<ListedTable> {
        names.iter().map(|name| ListedTable { schema: None, name: (*name).to_owned() }).collect()
    }

    #[test]
    fn an_erp_is_known_by_its_tables() {
        let source = SourceConfig::Sqlite { path: "x".into(), busy_timeout: None };
        let tryton = Profile::built_in().unwrap().into_iter().find(|profile| profile.name == "tryton").unwrap();
        let core: Vec<&str> = tryton.reads.iter().map(|table| table.name.as_str()).collect();
        let text = "[[job]]\nname = \"m\"\nsource = { kind = \"postgresql\", database = \"d\", user = \"u\" }\n[[job.table]]\nname = \"x\"\n";
        let config = crate::config::Config::parse(text, std::path::Path::new("f")).unwrap();
        let postgres = &config.jobs[0].source;
        let names = |source: &SourceConfig, tables: &[&str]| -> Vec<String> {
            fitting_profiles(source, &listed(tables)).unwrap().into_iter().map(|profile| profile.name).collect()
        };
        assert_eq!(names(postgres, &core), ["tryton"]);
        assert!(names(postgres, &["items", "sales"]).is_empty());
        // Its SQL is not for every database.
        assert_eq!(names(&source, &core).is_empty(), tryton.fits(&source).is_err());
    }

    #[test]
    fn tables_are_named_as_they_are_listed() {
        let tables = [
            ListedTable { schema: Some("dbo".into()), name: "Items".into() },
            ListedTable { schema: None, name: "odd.name".into() },
        ];
        let of = |named: &str| {
            let table = table_config(named, &tables).unwrap();
            (table.schema, table.name.to_string())
        };
        assert_eq!(of("dbo.Items"), (Some("dbo".to_owned()), "Items".to_owned()));
        assert_eq!(of("odd.name"), (None, "odd.name".to_owned()));
        assert_eq!(of("new.sales"), (Some("new".to_owned()), "sales".to_owned()));
        assert_eq!(table_config("", &tables).unwrap_err().code(), Code::ConfigInvalid);
    }
}
