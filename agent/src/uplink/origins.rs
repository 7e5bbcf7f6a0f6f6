//! Where the rows of incremental tables come from, noted beside each manifest.
//!
//! A watermark means something in the table that it was read from, and nothing in that of another database or another query. So the
//! changes of a table are only sent while its rows come from where those of the last import came from.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use towpath_transfer::{Code, Failure, TransferId, digest::Sha256Digest, manifest::Label};
use towpath_transport::files::FileStore;

use super::folder;
use crate::{
    config::{JobConfig, SourceConfig, TableConfig},
    layout::Layout,
};

/// The largest note, in bytes: more than [`crate::config::MAX_TABLES`] names and digests have.
const MAX_ORIGINS_BYTES: usize = 4 << 20;

/// The digest of where each incremental table of a job is read from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Origins(BTreeMap<String, Sha256Digest>);

/// What tells one table from another: the database and what is read of it, not how it is reached or how long that may take.
#[derive(Serialize)]
struct Origin<'a> {
    source: Vec<&'a str>,
    port: Option<u16>,
    path: Option<&'a std::path::Path>,
    table: &'a Label,
    schema: Option<&'a str>,
    query: Option<&'a str>,
}

impl Origins {
    /// Those of a job as it is configured now.
    ///
    /// # Errors
    /// `internal` where one cannot be written down.
    pub(super) fn of(job: &JobConfig) -> Result<Self, Failure> {
        let incremental = job.tables.iter().filter(|table| table.incremental.is_some());
        incremental.map(|table| Ok((table.name.to_string(), origin(&job.source, table)?))).collect::<Result<_, _>>().map(Self)
    }

    /// Those that were noted beside a manifest; `None` where there is no note, as beside one of an earlier version.
    ///
    /// # Errors
    /// As the disk reports.
    pub(super) fn noted(files: &dyn FileStore, layout: &Layout, id: TransferId) -> Result<Option<Self>, Failure> {
        Ok(folder::noted(files, &layout.origins(id), MAX_ORIGINS_BYTES)?.map(Self))
    }

    /// Notes them beside a manifest that is to be written.
    ///
    /// # Errors
    /// As the disk reports.
    pub(super) fn note(&self, files: &dyn FileStore, layout: &Layout, id: TransferId) -> Result<(), Failure> {
        if self.0.is_empty() { Ok(()) } else { folder::note(files, &layout.origins(id), &self.0) }
    }

    /// The tables whose rows came from somewhere else `before`.
    #[must_use]
    pub(super) fn elsewhere(&self, before: &Self) -> BTreeSet<String> {
        let moved = |(table, origin): &(&String, &Sha256Digest)| before.0.get(*table).is_some_and(|before| before != *origin);
        self.0.iter().filter(moved).map(|(table, _)| table.clone()).collect()
    }
}

fn origin(source: &SourceConfig, table: &TableConfig) -> Result<Sha256Digest, Failure> {
    let (mut names, mut port, mut path) = (vec![source.kind()], None, None);
    match source {
        SourceConfig::Sqlite { path: file, .. } => path = Some(&**file),
        SourceConfig::Files(files) => path = Some(&*files.folder),
        SourceConfig::PostgreSql(server) | SourceConfig::MariaDb(server) => {
            // The login has its own schema, or sees other rows.
            names.extend([&*server.host, &server.database, &server.user]);
            port = Some(server.port);
        }
        SourceConfig::Odbc(odbc) => names.extend([&*odbc.connection, odbc.user.as_deref().unwrap_or_default()]),
    }
    let (schema, query) = (table.schema.as_deref(), table.query.as_deref());
    let origin = Origin { source: names, port, path, table: &table.name, schema, query };
    let bytes = serde_json::to_vec(&origin)
        .map_err(|error| Failure::park(Code::Internal, "writing where a table comes from as JSON").caused_by(error))?;
    Ok(Sha256Digest::of(&bytes))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn job(source: &str, table: &str) -> JobConfig {
        let text = format!(
            "[[job]]\nname = \"main\"\n[job.source]\n{source}\n[[job.table]]\nname = \"items\"\n{table}\nkey = [\"id\"]\n\
             incremental = {{ watermark = [\"changed\"] }}\n[[job.table]]\nname = \"sales\"\n"
        );
        Config::parse(&text, Path::new("/etc/agent.toml")).unwrap().jobs.remove(0)
    }

    const SERVER: &str = "kind = \"postgresql\"\ndatabase = \"erp\"\nuser = \"reader\"";

    #[test]
    fn another_database_schema_or_query_is_elsewhere() {
        let here = Origins::of(&job(SERVER, "")).unwrap();
        let moved = |source: &str, table: &str| Origins::of(&job(source, table)).unwrap().elsewhere(&here);
        let items = BTreeSet::from(["items".to_owned()]);
        for (source, table) in [
            ("kind = \"postgresql\"\ndatabase = \"test\"\nuser = \"reader\"", ""),
            ("kind = \"postgresql\"\ndatabase = \"erp\"\nuser = \"other\"", ""),
            (&*format!("{SERVER}\nhost = \"db\""), ""),
            (&*format!("{SERVER}\nport = 6432"), ""),
            ("kind = \"mariadb\"\ndatabase = \"erp\"\nuser = \"reader\"\nport = 5432", ""),
            ("kind = \"sqlite\"\npath = \"erp.sqlite\"", ""),
            ("kind = \"odbc\"\nconnection = \"DSN=erp\"", ""),
            (SERVER, "schema = \"company2\""),
            (SERVER, "query = \"SELECT * FROM items WHERE company = 2\""),
        ] {
            assert_eq!(moved(source, table), items, "{source} {table}");
        }
        assert!(moved(SERVER, "").is_empty());
        let reached = format!("{SERVER}\npassword = \"file:pw\"\ntls = \"off\"\nstatement_timeout = \"5m\"");
        assert!(moved(&reached, "drift = { added = \"accept\" }").is_empty(), "it is the same database");
        // A table that was not incremental before, or not there, has no watermark that could mislead.
        assert!(here.elsewhere(&Origins::default()).is_empty());
    }
}
