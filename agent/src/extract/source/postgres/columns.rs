//! What the columns of a query are, without reading a row.

use sqlx::{Column as _, Either, Row as _, Statement as _};
use towpath_transfer::Failure;

use super::{session::Session, types::Held};
use crate::extract::source::SourceColumn;

/// A column of a query.
#[derive(Debug)]
pub(super) struct Described {
    name: String,
    pub(super) held: Held,
    /// The table's object id and the column's number, where it is a column of a table.
    origin: Option<(u32, i16)>,
}

/// Finds out about the columns of `sql`, which must be one statement that gives rows.
pub(super) async fn describe(session: &mut Session, doing: &str, sql: &str) -> Result<Vec<Described>, Failure> {
    let prepared = session.prepare(doing, sql).await?;
    if matches!(prepared.parameters(), Some(Either::Left([_, ..]))) {
        return Err(session.server.refused(doing, "the query has parameters"));
    }
    if prepared.columns().is_empty() {
        return Err(session.server.refused(doing, "the query gives no columns"));
    }
    let described = prepared.columns().iter().map(|column| Described {
        name: column.name().to_owned(),
        held: column.type_info().oid().map_or(Held::Other, |oid| Held::of(oid.0)),
        origin: column.relation_id().map(|oid| oid.0).zip(column.relation_attribute_no()),
    });
    Ok(described.collect())
}

/// What the catalogue says of columns.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    pub(super) columns: Vec<SourceColumn>,
    /// Tables of which the login sees some rows only.
    pub(super) filtered: Vec<String>,
}

/// The columns with their digits and nullability. `plain` where they are those of a table itself: in a query an outer join
/// makes NULLs that the table's column has not.
pub(super) async fn look_up(
    session: &mut Session,
    doing: &str,
    described: Vec<Described>,
    plain: bool,
) -> Result<Catalogue, Failure> {
    let wanted: Vec<String> = described
        .iter()
        .enumerate()
        .filter_map(|(nr, column)| column.origin.map(|(table, number)| format!("({nr}, {table}::oid, {number}::int2)")))
        .collect();
    let mut found = Catalogue {
        columns: described
            .iter()
            .map(|column| SourceColumn { name: column.name.clone(), sql_type: column.held.sql_type(-1), nullable: true })
            .collect(),
        filtered: Vec::new(),
    };
    if wanted.is_empty() {
        return Ok(found);
    }
    for row in session.query(doing, catalogue_query(&wanted.join(", "))).await? {
        let text = |index: usize| row.try_get::<String, _>(index).map_err(|error| session.server.failure(doing, error));
        let (nr, modifier) = (text(0)?.parse().unwrap_or(usize::MAX), text(1)?.parse().unwrap_or(-1));
        let (not_null, filtered, table) = (text(2)? == "true", text(3)? == "true", text(4)?);
        if let (Some(column), Some(described)) = (found.columns.get_mut(nr), described.get(nr)) {
            column.sql_type = described.held.sql_type(modifier);
            column.nullable = !(plain && not_null);
        }
        if filtered && !found.filtered.contains(&table) {
            found.filtered.push(table);
        }
    }
    Ok(found)
}

/// A domain's digits are those of the type below it, which may be a domain again. NOT NULL is believed of tables without
/// children only: a child may have dropped it, and of a foreign table nobody checks it.
fn catalogue_query(wanted: &str) -> String {
    format!(
        "WITH RECURSIVE wanted(nr, tab, num) AS (VALUES {wanted}), base(nr, typ, modifier) AS (\
         SELECT w.nr, a.atttypid, a.atttypmod FROM wanted w \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = w.tab AND a.attnum = w.num \
         UNION ALL SELECT b.nr, t.typbasetype, t.typtypmod FROM base b \
         JOIN pg_catalog.pg_type t ON t.oid = b.typ AND t.typtype = 'd') \
         SELECT b.nr::text, b.modifier::text, \
         (a.attnotnull AND (c.relkind = 'p' OR (c.relkind = 'r' AND NOT c.relhassubclass)))::text, \
         pg_catalog.row_security_active(c.oid)::text, c.oid::pg_catalog.regclass::text \
         FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.typ AND t.typtype <> 'd' \
         JOIN wanted w ON w.nr = b.nr JOIN pg_catalog.pg_class c ON c.oid = w.tab \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = w.tab AND a.attnum = w.num"
    )
}
