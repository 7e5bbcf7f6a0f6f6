//! The columns of a table or query.

use sqlx::{Column as _, Either, Statement as _, TypeInfo as _};
use towpath_transfer::{Failure, manifest::SqlType};

use super::{
    error,
    literal::{DIALECT, text},
    session::{SQL_MODE, Session},
    types::{Kind, declared_decimal, greatest_decimal},
};
use crate::{config::TableConfig, extract::source::SourceColumn};

pub(super) async fn of(session: &mut Session, table: &TableConfig) -> Result<Vec<SourceColumn>, Failure> {
    let doing = format!("preparing table {}", table.name);
    if table.query.is_some() {
        // In brackets only a query can stand, and only one.
        session.prepare(&doing, format!("SELECT * FROM {}", DIALECT.from(table))).await?;
    }
    let prepared = session.prepare(&doing, DIALECT.all_columns(table)).await?;
    if !matches!(prepared.parameters(), None | Some(Either::Right(0))) {
        return Err(error::refused(session.shown(), &doing, "the query has parameters"));
    }
    if prepared.columns().is_empty() {
        return Err(error::refused(session.shown(), &doing, "the query gives no columns"));
    }
    let found: Vec<(String, String, Kind)> = prepared
        .columns()
        .iter()
        .map(|column| (column.name().to_owned(), column.type_info().name().to_owned(), Kind::of(column.type_info())))
        .collect();
    let declared = match table.query {
        None => declared(session, table, &doing).await?,
        Some(_) => {
            let decimals = found.iter().filter(|(.., kind)| *kind == Kind::Decimal).map(|(name, ..)| name.as_str());
            digits(session, table, decimals.collect(), &doing).await?
        }
    };
    let column = |(name, said, kind): (String, String, Kind)| {
        let more = declared.iter().find(|declared| declared.name == name);
        let sql_type = kind.sql_type(&said, more.and_then(|more| more.digits));
        SourceColumn { name, sql_type, nullable: more.is_none_or(|more| more.nullable) }
    };
    Ok(found.into_iter().map(column).collect())
}

/// What a prepared statement does not tell of a column.
struct Declared {
    name: String,
    digits: Option<SqlType>,
    nullable: bool,
}

/// Of the columns of a table or view, as they were declared.
async fn declared(session: &mut Session, table: &TableConfig, doing: &str) -> Result<Vec<Declared>, Failure> {
    let rows = session.texts(doing, format!("SHOW COLUMNS FROM {}", DIALECT.from(table))).await?;
    let of = |row: Vec<Option<String>>| {
        let mut values = row.into_iter();
        let (name, declared, null) = (values.next()??, values.next()??, values.next()??);
        Some(Declared { name, digits: declared_decimal(&declared), nullable: null != "NO" })
    };
    Ok(rows.into_iter().filter_map(of).collect())
}

/// The digits of the columns of a query that are decimals. Nothing that the protocol or the library tells has them, so the
/// server is made to store a number that is too large in columns of the same types, where it becomes the greatest that fits:
/// the columns of a recursive table are those of its first part (<https://mariadb.com/kb/en/recursive-common-table-expressions-overview/>),
/// which here is the query without its rows.
async fn digits(session: &mut Session, table: &TableConfig, names: Vec<&str>, doing: &str) -> Result<Vec<Declared>, Failure> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let quoted: Vec<String> = names.iter().map(|name| DIALECT.name(name)).collect();
    let (columns, each) = (quoted.join(", "), |value: &str| vec![value; names.len()].join(", "));
    let sql = format!(
        "WITH RECURSIVE towpath_digits AS (SELECT {columns}, 1 AS towpath_step FROM {from} WHERE 1 = 0 \
         UNION ALL SELECT {nulls}, 1 UNION ALL SELECT {large}, 2 FROM towpath_digits WHERE towpath_step = 1) \
         SELECT {columns} FROM towpath_digits WHERE towpath_step = 2",
        from = DIALECT.from(table),
        nulls = each("NULL"),
        large = each("9e80"),
    );
    // With the strict modes a number that is too large is an error.
    session.run(doing, "SET SESSION sql_mode = ''").await?;
    let found = session.texts(doing, sql).await;
    session.run(doing, &format!("SET SESSION sql_mode = {}", text(SQL_MODE))).await?;
    let greatest = found?.into_iter().next().unwrap_or_default();
    let of = |(name, greatest): (&str, Option<String>)| Declared {
        name: name.to_owned(),
        digits: greatest.as_deref().and_then(greatest_decimal),
        nullable: true,
    };
    Ok(names.into_iter().zip(greatest).map(of).collect())
}
