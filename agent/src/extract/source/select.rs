//! The SQL that reads a table, in the dialect of its database.
//!
//! Names come from the configuration and from the database itself, watermark values from the last manifest: all of them are
//! written so that they stay names and values, whatever characters they have.

use std::fmt::Write as _;

use towpath_transfer::manifest::SqlType;

use super::Read;
use crate::config::TableConfig;

/// How a database wants names and values written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialect {
    /// What stands before and after a name; the second is doubled within. Blanks where names stand as they are.
    pub(crate) quotes: (char, char),
    /// The schema of a table for which none is said, where naming one is better than leaving it out.
    pub(crate) schema: Option<&'static str>,
    /// A value of the wire as a literal.
    pub(crate) literal: fn(SqlType, &str) -> String,
}

impl Dialect {
    /// A name.
    pub(crate) fn name(&self, name: &str) -> String {
        let (open, close) = self.quotes;
        if open == ' ' {
            return name.to_owned();
        }
        let mut quoted = String::with_capacity(name.len() + 2);
        quoted.push(open);
        for c in name.chars() {
            quoted.push(c);
            if c == close {
                quoted.push(c);
            }
        }
        quoted.push(close);
        quoted
    }

    /// What stands after FROM: the table, or the query in brackets.
    pub(crate) fn from(&self, table: &TableConfig) -> String {
        match query_of(table) {
            Some(query) => format!("(\n{query}\n) {}", self.name("towpath")),
            None => self.table(table),
        }
    }

    fn table(&self, table: &TableConfig) -> String {
        let name = self.name(table.name.as_str());
        match table.schema.as_deref().or(self.schema) {
            Some(schema) => format!("{}.{name}", self.name(schema)),
            None => name,
        }
    }

    /// The statement that finds out about all columns of a table. It is prepared only.
    pub(crate) fn all_columns(&self, table: &TableConfig) -> String {
        query_of(table).unwrap_or_else(|| format!("SELECT * FROM {}", self.table(table)))
    }

    /// The statement that reads these columns of these rows, in the order of the columns. A query whose columns and rows are
    /// all wanted stands as it is, so that it keeps its order.
    pub(crate) fn rows(&self, read: &Read<'_>) -> String {
        if let (Some(query), true, None) = (query_of(read.table), read.all, read.since) {
            return query;
        }
        let columns: Vec<String> = read.columns.iter().map(|column| self.name(column.name.as_str())).collect();
        format!("SELECT {} FROM {}{}", columns.join(", "), self.from(read.table), self.condition(read))
    }

    /// ` WHERE …` for the rows from the watermark on, and for those of which that cannot be said; empty where all rows are wanted.
    pub(crate) fn condition(&self, read: &Read<'_>) -> String {
        let Some(since) = read.since.filter(|since| !since.0.is_empty()) else { return String::new() };
        let mut condition = " WHERE ".to_owned();
        let mut equal = String::new();
        for (at, one) in since.0.iter().enumerate() {
            let (name, literal) = (self.name(&one.column), (self.literal)(one.sql_type, &one.value));
            let compare = if at + 1 == since.0.len() { ">=" } else { ">" };
            let (or, open, close) = if at == 0 { ("", "", "") } else { (" OR ", "(", ")") };
            // Writing into a string does not fail.
            let _ = write!(condition, "{or}{open}{equal}{open}{name} IS NULL OR {name} {compare} {literal}{close}{close}");
            let _ = write!(equal, "{name} = {literal} AND ");
        }
        condition
    }
}

/// The query without the semicolons at its end.
fn query_of(table: &TableConfig) -> Option<String> {
    table.query.as_ref().map(|query| query.trim_end_matches(|c: char| c == ';' || c.is_whitespace()).to_owned())
}

/// A value as a literal of standard SQL: numbers as they are, everything else as a text whose quotes are doubled.
pub(crate) fn plain_literal(sql_type: SqlType, value: &str) -> String {
    match sql_type {
        SqlType::BigInt | SqlType::Decimal { .. } | SqlType::Double => value.to_owned(),
        _ => format!("'{}'", value.replace('\'', "''")),
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::manifest::Column;

    use super::*;
    use crate::extract::source::{Since, SinceValue};

    const DIALECT: Dialect = Dialect { quotes: ('[', ']'), schema: None, literal: plain_literal };

    fn column(name: &str) -> Column {
        Column { name: name.parse().unwrap(), sql_type: SqlType::Text, nullable: true }
    }

    fn since(values: &[(&str, &str)]) -> Since {
        let value = |(column, value): &(&str, &str)| SinceValue {
            column: (*column).to_owned(),
            sql_type: SqlType::Text,
            value: (*value).to_owned(),
        };
        Since(values.iter().map(value).collect())
    }

    #[test]
    fn names_and_values_stay_names_and_values() {
        let mut table = TableConfig::whole("a]b".parse().unwrap());
        table.schema = Some("d.b".to_owned());
        let since = since(&[("x]", "it's")]);
        let columns = [column("x]"), column("Größe \"XL\"")];
        let read = Read { table: &table, columns: &columns, all: false, since: Some(&since) };
        let sql = DIALECT.rows(&read);
        assert_eq!(sql, "SELECT [x]]], [Größe \"XL\"] FROM [d.b].[a]]b] WHERE [x]]] IS NULL OR [x]]] >= 'it''s'");
        assert_eq!(DIALECT.all_columns(&table), "SELECT * FROM [d.b].[a]]b]");
        assert_eq!(Dialect { quotes: (' ', ' '), ..DIALECT }.all_columns(&table), "SELECT * FROM d.b.a]b");
    }

    #[test]
    fn several_watermark_columns_are_compared_in_order() {
        let table = TableConfig::whole("t".parse().unwrap());
        let since = since(&[("d", "1"), ("t", "2")]);
        let read = Read { table: &table, columns: &[], all: true, since: Some(&since) };
        let expected = " WHERE [d] IS NULL OR [d] > '1' OR ([d] = '1' AND ([t] IS NULL OR [t] >= '2'))";
        assert_eq!(DIALECT.condition(&read), expected);
    }

    #[test]
    fn a_query_stands_as_it_is_where_everything_is_wanted() {
        let mut table = TableConfig::whole("t".parse().unwrap());
        table.query = Some("SELECT 1 ORDER BY 1 ;\n".to_owned());
        let columns = [column("a")];
        let mut read = Read { table: &table, columns: &columns, all: true, since: None };
        assert_eq!(DIALECT.rows(&read), "SELECT 1 ORDER BY 1");
        read.all = false;
        assert_eq!(DIALECT.rows(&read), "SELECT [a] FROM (\nSELECT 1 ORDER BY 1\n) [towpath]");
    }
}
