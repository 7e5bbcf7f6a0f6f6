//! Rows on their way from the CSV reader to the database, in few allocations.

/// The most rows of one batch.
pub const MAX_BATCH_ROWS: usize = 1_000;
/// A batch that has reached this many bytes of text is full; one row may exceed it.
pub const MAX_BATCH_BYTES: usize = 512 * 1024;

/// Some rows of one table. All text lies in one buffer.
#[derive(Debug, Clone, Default)]
pub struct RowBatch {
    text: String,
    ends: Vec<Option<usize>>,
    columns: usize,
}

impl RowBatch {
    /// An empty batch for rows of `columns` fields.
    #[must_use]
    pub fn new(columns: usize) -> Self {
        Self { columns, ..Self::default() }
    }

    /// Adds the next field, row by row; `None` is NULL.
    pub fn push(&mut self, field: Option<&str>) {
        let end = field.map(|text| {
            self.text.push_str(text);
            self.text.len()
        });
        self.ends.push(end);
    }

    /// How many whole rows it holds.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.ends.len().checked_div(self.columns).unwrap_or(0)
    }

    /// Whether it should be handed on.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.rows() >= MAX_BATCH_ROWS || self.text.len() >= MAX_BATCH_BYTES
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Every field in order.
    pub fn fields(&self) -> impl Iterator<Item = Option<&str>> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let end = (*end)?;
            let field = self.text.get(start..end);
            start = end;
            field
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_they_were_put() {
        let mut batch = RowBatch::new(3);
        let fields = [Some("ä"), None, Some(""), Some("x,y"), Some(""), None];
        fields.iter().for_each(|field| batch.push(*field));
        assert_eq!(batch.rows(), 2);
        assert!(batch.fields().eq(fields));
        assert!(!batch.is_full());
        batch.push(Some(&"x".repeat(MAX_BATCH_BYTES)));
        assert!(batch.is_full());
    }
}
