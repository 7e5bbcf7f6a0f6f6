//! What a table must hold, known without asking a database: the oracle that extract, receipt and app are compared with.

use towpath_transfer::{
    Code, Failure,
    decimal::{Decimal, DecimalSum},
    failure::Result,
};

/// Count and exact sum of a numeric column's values that are not NULL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Total {
    /// The column.
    pub column: String,
    /// How many values are not NULL.
    pub count: u64,
    /// Their exact sum. It compares by value; its text is normalised.
    pub sum: Decimal,
}

/// What one table must hold. Summed by the generator in scaled 128-bit integers while it wrote the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The table.
    pub table: String,
    /// Number of rows.
    pub rows: u64,
    /// One for each integer and decimal column, in the order of the table's columns.
    pub totals: Vec<Total>,
}

impl Expected {
    /// The sum of `column`; `None` where it is not a column with a total.
    #[must_use]
    pub fn sum(&self, column: &str) -> Option<&Decimal> {
        self.totals.iter().find(|total| total.column == column).map(|total| &total.sum)
    }

    /// Adds what has changed in the same table since.
    ///
    /// # Errors
    /// `limit-exceeded` where a sum has more digits than a control total may have.
    pub fn add(&mut self, change: &Self) -> Result<()> {
        self.rows = self.rows.saturating_add(change.rows);
        for total in &mut self.totals {
            let Some(by) = change.totals.iter().find(|by| by.column == total.column) else { continue };
            let mut sum = DecimalSum::new();
            for part in [&total.sum, &by.sum] {
                let refused = || format!("cannot add up column {} of table {}", total.column, self.table);
                sum.add(part).map_err(|e| Failure::park(Code::LimitExceeded, refused()).caused_by(e))?;
            }
            total.sum = sum.finish();
            total.count = total.count.saturating_add(by.count);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(rows: u64, count: u64, sum: &str) -> Expected {
        let total = |column: &str| Total { column: column.into(), count, sum: sum.parse().unwrap() };
        Expected { table: "stock".into(), rows, totals: vec![total("quantity"), total("reserved")] }
    }

    #[test]
    fn a_change_is_added_by_column() {
        let mut stock = expected(3, 3, "10.250");
        let mut change = expected(1, 2, "-0.250");
        change.totals.pop();
        stock.add(&change).unwrap();
        assert_eq!((stock.rows, stock.totals[0].count), (4, 5));
        assert_eq!(stock.sum("quantity").unwrap().to_string(), "10");
        assert_eq!(stock.sum("reserved").unwrap().to_string(), "10.250");
        assert_eq!(stock.sum("bin"), None);
    }
}
