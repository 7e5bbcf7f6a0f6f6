//! Names in SQL. Every name from a manifest is hostile input: it is quoted, and it never is one of ours.

use towpath_transfer::{
    Code, Failure,
    digest::Sha256Digest,
    manifest::{Label, Table},
};

/// Names that begin so belong to the ledger and what else Towpath keeps beside the tables.
const RESERVED: &str = "towpath_";
/// How many hexadecimal digits of a table's digest name its index.
const INDEX_DIGITS: usize = 32;

/// Quotes a name; a double quote inside is doubled, so that the name stays a name.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Names, quoted and joined by commas.
pub(super) fn list<'a>(names: impl Iterator<Item = &'a Label>) -> String {
    names.map(|name| quote(name.as_str())).collect::<Vec<_>>().join(", ")
}

/// Refuses a table whose name is reserved for Towpath, or begins with one of `others`, which the database keeps for itself.
pub(super) fn check_reserved(table: &Label, others: &[&str]) -> Result<(), Failure> {
    let folded = table.as_str().to_lowercase();
    if folded.starts_with(RESERVED) || others.iter().any(|prefix| folded.starts_with(prefix)) {
        let told = format!("a table may not be called {:?}: the name is reserved", table.as_str());
        return Err(Failure::park(Code::ImportRefused, told));
    }
    Ok(())
}

/// The name of the unique index on a table's key. It says nothing about the table but is the same each time, fits every database,
/// and begins as no table from a manifest can.
pub(super) fn key_index(table: &Label) -> String {
    let digest = Sha256Digest::of(table.as_str().as_bytes()).to_string();
    format!("{RESERVED}key_{}", digest.get(..INDEX_DIGITS).unwrap_or(&digest))
}

/// `SET` of an upsert: every column that is no part of the key; `None` where the key is all there is.
pub(super) fn assignments(table: &Table) -> Option<String> {
    let others = table.columns.iter().filter(|column| !table.key.contains(&column.name));
    let set: Vec<String> = others
        .map(|column| {
            let quoted = quote(column.name.as_str());
            format!("{quoted} = excluded.{quoted}")
        })
        .collect();
    (!set.is_empty()).then(|| set.join(", "))
}

/// `ON CONFLICT` of an upsert.
pub(super) fn on_conflict(table: &Table) -> String {
    let action = assignments(table).map_or_else(|| "NOTHING".to_owned(), |set| format!("UPDATE SET {set}"));
    format!("ON CONFLICT ({}) DO {action}", list(table.key.iter()))
}

/// Deletes every row of `table` (quoted) whose key is not in `keys` (quoted).
pub(super) fn delete_unlisted(table: &str, keys: &str, key: &[Label]) -> String {
    let same: Vec<String> = key
        .iter()
        .map(|name| {
            let quoted = quote(name.as_str());
            format!("k.{quoted} = t.{quoted}")
        })
        .collect();
    format!("DELETE FROM {table} AS t WHERE NOT EXISTS (SELECT 1 FROM {keys} AS k WHERE {})", same.join(" AND "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use towpath_transfer::manifest::{Column, SqlType};

    #[test]
    fn a_name_stays_a_name() {
        assert_eq!(quote("a\"; DROP TABLE t; --"), "\"a\"\"; DROP TABLE t; --\"");
    }

    #[test]
    fn names_of_ours_and_of_the_database_are_reserved() {
        let check = |name: &str, others: &[&str]| check_reserved(&name.parse().unwrap(), others).map_err(|f| f.code());
        assert_eq!(check("Towpath_x", &[]), Err(Code::ImportRefused));
        assert_eq!(check("SQLITE_x", &["sqlite_"]), Err(Code::ImportRefused));
        assert_eq!(check("sqlite_x", &[]), Ok(()));
        assert_eq!(check("towpath", &["sqlite_"]), Ok(()));
    }

    #[test]
    fn index_names_are_short_and_of_their_table() {
        let long = "ü".repeat(128).parse().unwrap();
        assert!(key_index(&long).len() <= 63);
        assert_ne!(key_index(&long), key_index(&"items".parse().unwrap()));
    }

    #[test]
    fn an_upsert_sets_what_is_no_key() {
        let column = |name: &str| Column { name: name.parse().unwrap(), sql_type: SqlType::Text, nullable: false };
        let mut table = Table::whole("t".parse().unwrap(), vec![column("a"), column("b")], 0, Vec::new());
        table.key = vec!["a".parse().unwrap()];
        assert_eq!(on_conflict(&table), r#"ON CONFLICT ("a") DO UPDATE SET "b" = excluded."b""#);
        table.key.push("b".parse().unwrap());
        assert_eq!(on_conflict(&table), r#"ON CONFLICT ("a", "b") DO NOTHING"#);
        let deleted = delete_unlisted("\"t\"", "k", &table.key);
        assert_eq!(
            deleted,
            r#"DELETE FROM "t" AS t WHERE NOT EXISTS (SELECT 1 FROM k AS k WHERE k."a" = t."a" AND k."b" = t."b")"#
        );
    }
}
