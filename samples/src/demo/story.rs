//! What the user reads.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the demo talks to its user")]

use std::{error::Error as _, time::Duration};

use comfy_table::{CellAlignment, Table, presets};

use super::{DemoError, report::Report};

/// A line of the story.
pub(super) fn tell(text: &str) {
    println!("  {text}");
}

/// A heading.
pub(super) fn chapter(text: &str) {
    println!("\n{text}");
}

/// A line of the story with the time it took.
pub(super) fn told_in(text: &str, took: Duration) {
    println!("  {text}  ({:.1} s)", took.as_secs_f64());
}

/// The table at the end.
pub(super) fn table(report: &Report) {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["ERP table", "rows in the ERP", "rows imported", "totals agree", "CSV bytes", "bytes packed"]);
    for column in [1, 2, 4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for line in &report.tables {
        let agree = if line.totals_agree { "yes" } else { "NO" };
        table.add_row([
            line.name.clone(),
            grouped(line.rows_erp),
            grouped(line.rows_app),
            agree.to_owned(),
            grouped(line.csv_bytes),
            grouped(line.packed_bytes),
        ]);
    }
    println!("\n{table}");
}

/// A number with thousands set apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Why the demo ended.
pub(super) fn failed(error: &DemoError) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    eprintln!("error: {text}");
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(super::grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
