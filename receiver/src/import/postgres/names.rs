//! Names that PostgreSQL can have. It cuts off what is too long, without a word: two names could become one.

use towpath_transfer::{
    Code, Failure,
    digest::Sha256Digest,
    manifest::{Label, Table},
};

use super::super::{ImportScope, names::check_reserved};

/// The longest name, in bytes, <https://www.postgresql.org/docs/current/limits.html>.
pub(super) const MAX_NAME_BYTES: usize = 63;
/// The most columns of a table: PostgreSQL's 1,600 without the one that tells the order of rows that are merged.
pub(super) const MAX_COLUMNS: usize = 1_599;
/// The most columns of a key, <https://www.postgresql.org/docs/current/limits.html>.
pub(super) const MAX_KEY_COLUMNS: usize = 32;
/// Columns that every table has already, <https://www.postgresql.org/docs/current/ddl-system-columns.html>.
const SYSTEM_COLUMNS: [&str; 6] = ["cmax", "cmin", "ctid", "tableoid", "xmax", "xmin"];
/// How much of a schema's name stays readable where it is too long.
const READABLE: usize = 28;
/// How many hexadecimal digits of a digest follow.
const DIGITS: usize = 32;

/// The schema of an agent's job: `<agent>__<job>`. Neither name has an underscore, so that no other pair has this one.
///
/// Where that is longer than [`MAX_NAME_BYTES`], it is the first [`READABLE`] characters, three underscores and the digest of the
/// whole; no shorter name has three. The agent `pg` has an underscore in front, because PostgreSQL keeps `pg_` for itself.
pub(super) fn schema(scope: &ImportScope) -> String {
    let whole = format!("{}__{}", scope.agent, scope.job);
    if whole.len() > MAX_NAME_BYTES {
        let digest = Sha256Digest::of(whole.as_bytes()).to_string();
        return format!("{}___{}", whole.get(..READABLE).unwrap_or(&whole), digest.get(..DIGITS).unwrap_or(&digest));
    }
    if whole.starts_with("pg_") { format!("_{whole}") } else { whole }
}

/// Refuses a table that PostgreSQL would not have as it is.
pub(super) fn check(table: &Table) -> Result<(), Failure> {
    check_reserved(&table.table, &[])?;
    let refuse = |told: String| Err(Failure::park(Code::ImportRefused, format!("table {}: {told}", table.table)));
    let names = std::iter::once(&table.table).chain(table.columns.iter().map(|column| &column.name));
    if let Some(long) = names.map(Label::as_str).find(|name| name.len() > MAX_NAME_BYTES) {
        return refuse(format!("the name {long:?} has more than the {MAX_NAME_BYTES} bytes that PostgreSQL keeps of a name"));
    }
    if let Some(taken) = table.columns.iter().find(|column| SYSTEM_COLUMNS.contains(&column.name.as_str())) {
        return refuse(format!("PostgreSQL keeps the column name {:?} for itself", taken.name.as_str()));
    }
    if table.columns.len() > MAX_COLUMNS {
        return refuse(format!("it has more than {MAX_COLUMNS} columns"));
    }
    if table.key.len() > MAX_KEY_COLUMNS {
        return refuse(format!("its key has more than {MAX_KEY_COLUMNS} columns"));
    }
    Ok(())
}

/// A name for the column that tells the order of rows, which no column of the table has.
pub(super) fn order_column(table: &Table) -> String {
    let mut name = "towpath_row".to_owned();
    let mut number = 0u32;
    while table.columns.iter().any(|column| column.name.as_str() == name) {
        number = number.saturating_add(1);
        name = format!("towpath_row_{number}");
    }
    name
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use towpath_transfer::manifest::{Column, SqlType};

    use super::*;

    fn scope(agent: &str, job: &str) -> ImportScope {
        ImportScope { agent: agent.parse().unwrap(), job: job.parse().unwrap() }
    }

    #[test]
    fn each_agent_and_job_has_a_schema_of_its_own() {
        assert_eq!(schema(&scope("erp", "main")), "erp__main");
        assert_eq!(schema(&scope("pg", "main")), "_pg__main");
        let long = "a".repeat(63);
        let mut seen = BTreeSet::new();
        for (agent, job) in [
            ("erp", "main"),
            ("pg", "main"),
            ("a", "b-c"),
            ("a-b", "c"),
            (&*long, "a"),
            (&*long, "b"),
            (&long[1..], "aa"),
            ("a", &*long),
            (&"a".repeat(27), &*long),
            (&"a".repeat(26), &*long),
        ] {
            let name = schema(&scope(agent, job));
            assert!(name.len() <= MAX_NAME_BYTES && !name.starts_with("pg_"), "{name}");
            assert!(seen.insert(name), "{agent} {job}");
        }
    }

    #[test]
    fn a_table_that_would_not_be_itself_is_refused() {
        let column = |name: &str| Column { name: name.parse().unwrap(), sql_type: SqlType::Text, nullable: false };
        let of = |name: &str, columns: Vec<Column>| Table::whole(name.parse().unwrap(), columns, 0, Vec::new());
        let good = [of(&"ü".repeat(31), vec![column(&"a".repeat(63))]), of("pg_x", vec![column("CTID")])];
        good.iter().for_each(|table| check(table).unwrap());
        let many = |n: usize| (0..n).map(|n| column(&format!("c{n}"))).collect::<Vec<_>>();
        let mut key = of("t", many(33));
        key.key = key.columns.iter().map(|column| column.name.clone()).collect();
        let bad = [
            of(&"ü".repeat(32), many(1)),
            of("t", vec![column(&"a".repeat(64))]),
            of("t", vec![column("ctid")]),
            of("t", many(1_600)),
            key,
        ];
        for table in bad {
            assert_eq!(check(&table).unwrap_err().code(), Code::ImportRefused, "{}", table.table);
        }
        assert_eq!(order_column(&of("t", vec![column("towpath_row")])), "towpath_row_1");
    }
}
