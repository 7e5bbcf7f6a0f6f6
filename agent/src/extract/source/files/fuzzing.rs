//! For the fuzz targets: records and values of a dropped file, without a folder around it.

use std::{io::Write as _, path::Path, sync::Arc};

use towpath_transfer::{
    Failure, csv,
    manifest::{Column, SqlType},
};
use towpath_transport::files::{FileStore, MemoryFiles};

use super::{
    decode::Text,
    records::{Marks, Place, Record, Records},
    values::Converter,
};
use crate::{
    config::{CsvConfig, TableConfig},
    extract::value::to_wire,
};

/// A field, and whether it stood in quotes.
pub type Field = (String, bool);

/// The records of a file with these bytes, in its dialect, each with the line on which it begins.
///
/// # Errors
/// `erp-value`, and `limit-exceeded` beyond `limits`.
pub fn records(bytes: &[u8], csv: &CsvConfig, limits: csv::Limits) -> Result<Vec<(u64, Vec<Field>)>, Failure> {
    let place = Place { table: "t".parse().map_err(|_| super::cancelled())?, file: "f".to_owned() };
    let files: Arc<dyn FileStore> = Arc::new(MemoryFiles::new());
    let path = Path::new("/f");
    let written = files.create(path).and_then(|mut file| file.write_all(bytes));
    written.and_then(|()| files.open(path)).map_err(|error| place.unread(error)).and_then(|file| {
        let mut records = Records::new(Text::new(file, csv.encoding), place.clone(), Marks::of(csv)).limited(limits);
        let (mut all, mut record) = (Vec::new(), Record::default());
        while records.read(&mut record)? {
            let fields = (0..record.len()).filter_map(|at| record.field(at)).map(|(text, quoted)| (text.to_owned(), quoted));
            all.push((record.line, fields.collect()));
        }
        Ok(all)
    })
}

/// The wire's text for a field of this type; `None` within is NULL.
///
/// # Errors
/// Why it is none, in words.
pub fn value(field: &str, quoted: bool, csv: &CsvConfig, sql_type: SqlType) -> Result<Option<String>, String> {
    let label = || "c".parse().map_err(|_| String::new());
    let mut table = TableConfig::whole(label()?);
    table.csv = csv.clone();
    let column = Column { name: label()?, sql_type, nullable: true };
    let mut converter = Converter::new(&table, &column);
    let value = converter.convert(field, quoted)?;
    let mut scratch = String::new();
    to_wire(value, sql_type, &mut scratch).map(|text| text.map(str::to_owned)).map_err(|why| why.to_string())
}
