//! Totals from the values that are written, and their comparison with those of the database.

use towpath_transfer::{
    Code, Failure,
    decimal::{DecimalSum, InvalidDecimal},
    manifest::{Column, ControlTotal, Label},
};

use super::source::{ColumnTotals, TableTotals};

/// Adds up one column from the texts that are written.
#[derive(Debug)]
pub(super) struct Adder {
    count: u64,
    sum: Option<DecimalSum>,
}

impl Adder {
    pub(super) fn new(column: &Column) -> Self {
        Self { count: 0, sum: column.sql_type.has_total().then(DecimalSum::new) }
    }

    /// Takes a value that is not NULL.
    pub(super) fn add(&mut self, text: &str) -> Result<(), InvalidDecimal> {
        self.count += 1;
        self.sum.as_mut().map_or(Ok(()), |sum| sum.add_str(text))
    }

    pub(super) fn finish(self) -> ColumnTotals {
        ColumnTotals { count: self.count, sum: self.sum.map(DecimalSum::finish) }
    }
}

/// Compares what was written with what the database says.
pub(super) fn compare(table: &Label, columns: &[Column], written: &TableTotals, database: &TableTotals) -> Result<(), Failure> {
    let differs = |what: String| {
        let said = format!("table {table} was not extracted whole, or the database contradicts itself: {what}");
        Err(Failure::park(Code::ExtractMismatch, said))
    };
    if written.rows != database.rows {
        return differs(format!("{} rows were read, the database counts {}", written.rows, database.rows));
    }
    if database.columns.len() != columns.len() {
        return differs(format!("the database summed {} of {} columns", database.columns.len(), columns.len()));
    }
    for ((column, ours), theirs) in columns.iter().zip(&written.columns).zip(&database.columns) {
        let name = &column.name;
        if ours.count != theirs.count {
            let (ours, theirs) = (ours.count, theirs.count);
            return differs(format!("column {name} has {ours} values where the database counts {theirs}"));
        }
        if ours.sum != theirs.sum {
            let shown = |sum: &ColumnTotals| sum.sum.as_ref().map_or_else(|| "no sum".to_owned(), ToString::to_string);
            let (ours, theirs) = (shown(ours), shown(theirs));
            return differs(format!("the values of column {name} add up to {ours}, the database says {theirs}"));
        }
    }
    Ok(())
}

/// The totals as the manifest has them.
pub(super) fn control_totals(columns: &[Column], totals: &TableTotals) -> Vec<ControlTotal> {
    let of = |(column, total): (&Column, &ColumnTotals)| {
        let sum = total.sum.clone()?;
        Some(ControlTotal { column: column.name.clone(), count: total.count, sum })
    };
    columns.iter().zip(&totals.columns).filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use towpath_transfer::manifest::SqlType;

    use super::*;

    #[test]
    fn every_difference_is_found_and_named() {
        let column = |name: &str, sql_type| Column { name: name.parse().unwrap(), sql_type, nullable: true };
        let columns = [column("id", SqlType::BigInt), column("text", SqlType::Text)];
        let mut adders = columns.each_ref().map(Adder::new);
        adders[0].add("2").unwrap();
        adders[0].add("-12").unwrap();
        adders[1].add("x").unwrap();
        let written = TableTotals { rows: 2, columns: adders.map(Adder::finish).into() };
        let table: Label = "items".parse().unwrap();
        compare(&table, &columns, &written, &written).unwrap();
        let said = |change: fn(&mut TableTotals)| {
            let mut other = written.clone();
            change(&mut other);
            let failure = compare(&table, &columns, &written, &other).unwrap_err();
            assert_eq!(failure.code(), Code::ExtractMismatch);
            assert_eq!(failure.disposition(), towpath_transfer::Disposition::Park);
            failure.message().to_owned()
        };
        assert!(said(|t| t.rows = 3).contains("2 rows were read, the database counts 3"));
        assert!(said(|t| t.columns[1].count = 2).contains("column text has 1 values where the database counts 2"));
        assert!(said(|t| t.columns[0].sum = Some(7.into())).contains("column id add up to -10, the database says 7"));
        assert!(said(|t| t.columns[0].sum = None).contains("no sum"));
        assert!(said(|t| t.columns.truncate(1)).contains("1 of 2 columns"));
        let totals = control_totals(&columns, &written);
        assert_eq!((totals.len(), totals[0].count, totals[0].sum.to_string().as_str()), (1, 2, "-10"));
    }
}
