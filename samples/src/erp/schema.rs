//! The tables of the sample ERP, as `samples/erp/schema.sql` declares them, and the extract profile for them.

use std::path::Path;

use sqlx::{Row, SqliteConnection};
use towpath_transfer::{Code, Failure, failure::Result};

/// Every table of the sample ERP, in the order in which the profile extracts them.
pub const TABLES: &[&str] = &[
    "company",
    "items",
    "item_prices",
    "warehouses",
    "stock",
    "suppliers",
    "supplier_items",
    "customers",
    "sales",
    "sales_orders",
    "purchase_orders",
    "bill_of_material",
    "serial_numbers",
    "erp_notes",
];

/// The table that the sample ERP takes proposals from; nothing of it is extracted.
pub const IMPORT_TABLE: &str = "recommended_orders";
/// The column of [`IMPORT_TABLE`] that tells which transfer a row came with.
pub const IMPORT_TRANSFER_COLUMN: &str = "towpath_transfer";

/// Table, column and type of every column whose type the database does not tell.
pub const DECLARED_TYPES: &[(&str, &str, &str)] =
    &[("bill_of_material", "exact_factor", "DECIMAL(30,10)"), ("erp_notes", "order", "TEXT")];

pub(super) const SCHEMA: &str = include_str!("../../erp/schema.sql");
pub(super) const INDEXES: &str = include_str!("../../erp/indexes.sql");

/// A job of the agent's configuration that extracts every table of the sample ERP, as TOML. `job` names the ERP company.
#[must_use]
pub fn job_toml(job: &str, database: &Path) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut text = format!(
        "[[job]]\nname = {}\n# Daily, local time.\nschedule = \"02:00\"\n\n[job.source]\nkind = \"sqlite\"\npath = {}\n",
        quoted(job),
        quoted(&database.to_string_lossy()),
    );
    for table in TABLES {
        text.push_str(&format!("\n[[job.table]]\nname = {}\n", quoted(table)));
        let mut types = DECLARED_TYPES.iter().filter(|(of, _, _)| of == table).peekable();
        if types.peek().is_some() {
            text.push_str("\n# Types that the database does not tell.\n[job.table.types]\n");
        }
        for (_, column, sql_type) in types {
            text.push_str(&format!("{} = {}\n", quoted(column), quoted(sql_type)));
        }
    }
    text
}

/// How a column's values are written and whether they are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Integer,
    /// With this many digits after the point, kept as a number.
    Decimal(u32),
    /// With this many digits after the point, kept as text.
    ExactText(u32),
    /// Text, date and time.
    Text,
    Double,
    Boolean,
    Blob,
}

/// A column, as the database declares it or else the profile.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// Asks the database for the columns of `table`, so that the schema stands in one place only.
pub(super) async fn columns(conn: &mut SqliteConnection, table: &str) -> Result<Vec<Column>> {
    let failed = || format!("cannot read the columns of table {table} of the sample ERP");
    let rows = sqlx::query("SELECT name, type FROM pragma_table_info(?) ORDER BY cid")
        .bind(table)
        .fetch_all(conn)
        .await
        .map_err(|e| Failure::park(Code::ErpQuery, failed()).caused_by(e))?;
    let mut columns = Vec::with_capacity(rows.len());
    for row in rows {
        let (name, declared): (String, String) = (row.get(0), row.get(1));
        let kind = kind(table, &name, &declared).ok_or_else(|| {
            Failure::park(Code::Internal, format!("column {name} of table {table} is declared {declared:?}, an unknown type"))
        })?;
        columns.push(Column { name, kind });
    }
    if columns.is_empty() {
        return Err(Failure::park(Code::ErpQuery, failed()));
    }
    Ok(columns)
}

fn kind(table: &str, column: &str, declared: &str) -> Option<Kind> {
    let by_profile = DECLARED_TYPES.iter().find(|(of, name, _)| *of == table && *name == column);
    let sql_type = by_profile.map_or(declared, |(_, _, sql_type)| *sql_type);
    let (base, arguments) = sql_type.split_once('(').unwrap_or((sql_type, ""));
    Some(match base.trim() {
        "INTEGER" | "BIGINT" | "SMALLINT" => Kind::Integer,
        "DECIMAL" | "NUMERIC" => {
            let scale = arguments.trim_end_matches(')').split_once(',')?.1.trim().parse().ok()?;
            if by_profile.is_some() { Kind::ExactText(scale) } else { Kind::Decimal(scale) }
        }
        "VARCHAR" | "NVARCHAR" | "CHAR" | "TEXT" | "DATE" | "TIME" | "TIMESTAMP" | "DATETIME" => Kind::Text,
        "DOUBLE" => Kind::Double,
        "BOOLEAN" => Kind::Boolean,
        "BLOB" => Kind::Blob,
        _ => return None,
    })
}

/// An identifier as SQL takes it, whatever characters it holds.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_toml_with_every_table_and_the_types_that_the_database_does_not_tell() {
        let text = job_toml("Nord \"1\"", Path::new(r"C:\ERP\Mandant 'Süd'\erp.sqlite"));
        let parsed: toml::Table = text.parse().unwrap();
        let jobs = parsed["job"].as_array().unwrap();
        assert_eq!(jobs.len(), 1);
        assert_eq!(jobs[0]["name"].as_str(), Some("Nord \"1\""));
        assert_eq!(jobs[0]["source"]["kind"].as_str(), Some("sqlite"));
        assert_eq!(jobs[0]["source"]["path"].as_str(), Some(r"C:\ERP\Mandant 'Süd'\erp.sqlite"));
        let tables = jobs[0]["table"].as_array().unwrap();
        assert_eq!(tables.iter().map(|table| table["name"].as_str().unwrap()).collect::<Vec<_>>(), TABLES);
        let typed: Vec<_> = tables
            .iter()
            .filter_map(|table| Some((table["name"].as_str()?, table.get("types")?.as_table()?)))
            .flat_map(|(table, types)| types.iter().map(move |(name, of)| (table, name.as_str(), of.as_str().unwrap())))
            .collect();
        assert_eq!(typed, DECLARED_TYPES);
    }

    #[test]
    fn types_of_two_jobs_can_stand_in_one_file() {
        let both = format!("{}\n{}", job_toml("north", Path::new("n.sqlite")), job_toml("south", Path::new("s.sqlite")));
        let parsed: toml::Table = both.parse().unwrap();
        assert_eq!(parsed["job"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn declared_types_are_understood_and_unknown_ones_refused() {
        assert_eq!(kind("sales", "amount", "DECIMAL(14,2)"), Some(Kind::Decimal(2)));
        assert_eq!(kind("bill_of_material", "exact_factor", "VARCHAR(40)"), Some(Kind::ExactText(10)));
        assert_eq!(kind("erp_notes", "order", ""), Some(Kind::Text));
        assert_eq!(kind("sales", "amount", "DECIMAL"), None);
        assert_eq!(kind("sales", "amount", "MONEY"), None);
        assert_eq!(quote("Breite 19\""), "\"Breite 19\"\"\"");
    }
}
