//! The SQL that asks SQLite how columns were declared. By ODBC it is asked the same.

use towpath_transfer::manifest::SqlType;

use crate::extract::source::select::plain_literal;

/// Makes a view of the query `sql`, whose columns are called `names`. Within the brackets only a query can stand, and only one.
pub(in crate::extract::source) fn create_view(view: &str, names: &[String], sql: &str) -> String {
    format!("CREATE TEMP VIEW {view}({}) AS SELECT * FROM (\n{sql}\n)", names.join(", "))
}

/// The type each column of a view was declared with, or what SQLite makes of an expression.
pub(in crate::extract::source) fn types_of_view(view: &str) -> String {
    format!("SELECT type FROM pragma_table_xinfo('{view}', 'temp') ORDER BY cid")
}

/// Removes the view.
pub(in crate::extract::source) fn drop_view(view: &str) -> String {
    format!("DROP VIEW temp.{view}")
}

/// The columns of a table in which NULL cannot stand: declared so, or the rowid under another name.
pub(in crate::extract::source) fn not_null(table: &str) -> String {
    let table = plain_literal(SqlType::Text, table);
    format!(
        "SELECT name FROM pragma_table_xinfo({table}, 'main') WHERE \"notnull\" <> 0 OR (pk = 1 AND upper(type) = 'INTEGER' \
         AND (SELECT max(pk) FROM pragma_table_xinfo({table}, 'main')) = 1)"
    )
}
