//! How many rows the tables have, beside the sales that everything is measured by.

/// Rows of each table. Everything but the sales stays small, so that memory does not grow with the sales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) items: i64,
    pub(super) customers: i64,
    pub(super) suppliers: i64,
    pub(super) warehouses: i64,
    pub(super) open_orders: i64,
    pub(super) notes: i64,
}

impl Sizes {
    pub(super) fn of(sales_lines: u64) -> Self {
        let lines = i64::try_from(sales_lines).unwrap_or(i64::MAX);
        Self {
            items: (lines / 40).clamp(100, 5_000),
            customers: (lines / 80).clamp(60, 2_500),
            suppliers: (lines / 1_600).clamp(40, 120),
            warehouses: 6,
            open_orders: (lines / 80).clamp(60, 2_500),
            notes: 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_sales_grow_without_end() {
        assert_eq!(Sizes::of(200_000), Sizes::of(u64::MAX));
        assert_eq!(Sizes::of(0), Sizes::of(1_000));
        assert_eq!(Sizes::of(0).items, 100);
    }
}
