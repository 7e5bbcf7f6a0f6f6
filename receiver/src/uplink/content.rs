//! Reads one packed file of a transfer to its end and compares everything the manifest says of it.
//!
//! `verify` reads with a sink that keeps nothing; `import` reads again and inserts what it reads, so that the bytes that
//! reach the database are the bytes that were compared.

use std::io::{self, Read, SeekFrom};

use towpath_transfer::{
    Code, Disposition, Failure,
    codec::Unpacker,
    csv::{Reader, Row},
    decimal::DecimalSum,
    digest::{FileDigests, FileHasher},
    manifest::{Content, FileEntry, Table},
    packed::PackedFile,
    value,
};
use towpath_transport::files::ReadFile;

/// Takes the rows of a table, in order.
pub trait RowSink {
    /// Takes the next row, whose values fit their types.
    ///
    /// # Errors
    /// Ends the reading.
    fn row(&mut self, row: &Row<'_>) -> Result<(), Failure>;
}

/// A sink that keeps nothing.
#[derive(Debug, Clone, Copy)]
pub struct Discard;

impl RowSink for Discard {
    fn row(&mut self, _: &Row<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

/// Reads `source`, the packed form of `entry`, from its start, and returns the number of rows (0 for a file that is no table).
///
/// # Errors
/// A failure of disposition park where the content is not what manifest and packed list say, of disposition retry where
/// the file cannot be read now. Where the packed bytes are not the listed ones, the code is always `digest-mismatch`.
pub fn read(source: &mut dyn ReadFile, packed: &PackedFile, entry: &FileEntry, sink: &mut dyn RowSink) -> Result<u64, Failure> {
    let failure = match unpack(source, packed, entry, sink) {
        Ok(rows) => return Ok(rows),
        Err(failure) => failure,
    };
    if failure.disposition() == Disposition::Retry {
        return Err(failure);
    }
    // bzip2 gives out a block before it has compared the block's checksum, so that an altered byte may first show as a row
    // of nonsense or as too many bytes. What a person needs to know then is that the file was altered.
    let found = digests_of(source)
        .map_err(|e| Failure::retry(Code::FileFailed, format!("reading {} failed", packed.name)).caused_by(e))?;
    match compare_packed(packed, &found) {
        Ok(()) => Err(failure),
        Err(altered) => Err(altered.caused_by(failure)),
    }
}

fn unpack(source: &mut dyn ReadFile, packed: &PackedFile, entry: &FileEntry, sink: &mut dyn RowSink) -> Result<u64, Failure> {
    let hashed = Hashing::new(source);
    // One byte beyond the declared size is enough to know that it was a lie; nothing more is ever unpacked.
    let plain = Hashing::new(Unpacker::new(hashed, entry.size));
    let (plain, rows) = match &entry.content {
        Content::Table(table) | Content::Keys(table) => read_table(plain, entry, table, sink)?,
        Content::File => (drain(plain, entry)?, 0),
    };
    let (unpacker, found) = plain.finish();
    compare_plain(entry, &found)?;
    let (_, found) = unpacker.into_inner().finish();
    compare_packed(packed, &found)?;
    Ok(rows)
}

fn digests_of(source: &mut dyn ReadFile) -> io::Result<FileDigests> {
    source.seek(SeekFrom::Start(0))?;
    let mut hashed = Hashing::new(source);
    io::copy(&mut hashed, &mut io::sink())?;
    Ok(hashed.finish().1)
}

fn read_table<R: Read>(
    plain: Hashing<R>,
    entry: &FileEntry,
    table: &Table,
    sink: &mut dyn RowSink,
) -> Result<(Hashing<R>, u64), Failure> {
    let reading = || format!("reading {} failed", entry.name);
    let mut reader = Reader::new(plain).map_err(|e| e.into_failure(reading()))?;
    if !reader.header().iter().map(String::as_str).eq(table.columns.iter().map(|c| c.name.as_str())) {
        return Err(differs(entry, "its header row does not name the manifest's columns"));
    }
    let mut totals: Vec<Option<DecimalSum>> =
        table.columns.iter().map(|c| c.sql_type.has_total().then(DecimalSum::new)).collect();
    let mut rows = 0u64;
    while let Some(row) = reader.read_row().map_err(|e| e.into_failure(reading()))? {
        rows = rows.saturating_add(1);
        for ((column, total), field) in table.columns.iter().zip(&mut totals).zip(row.iter()) {
            let Some(text) = field else {
                if column.nullable {
                    continue;
                }
                return Err(differs(entry, &format!("row {rows} has NULL in column {}", column.name)));
            };
            if !value::fits(column.sql_type, text) {
                let shown: String = text.chars().take(40).collect();
                return Err(differs(
                    entry,
                    &format!("row {rows}: {shown:?} is not a {} (column {})", column.sql_type, column.name),
                ));
            }
            if let Some(total) = total {
                total.add_str(text).map_err(|e| differs(entry, &e.to_string()))?;
            }
        }
        sink.row(&row)?;
    }
    let plain = reader.into_inner();
    compare_counts(entry, table, rows, totals)?;
    Ok((plain, rows))
}

fn compare_counts(entry: &FileEntry, table: &Table, rows: u64, totals: Vec<Option<DecimalSum>>) -> Result<(), Failure> {
    if rows != table.rows {
        return Err(differs(entry, &format!("it has {rows} rows, the manifest says {}", table.rows)));
    }
    for (found, declared) in totals.into_iter().flatten().zip(&table.totals) {
        let count = found.count();
        let sum = found.finish();
        if count != declared.count || sum != declared.sum {
            let told = format!(
                "column {} has {count} values of sum {sum}, the manifest says {} of sum {}",
                declared.column, declared.count, declared.sum
            );
            return Err(differs(entry, &told));
        }
    }
    Ok(())
}

fn drain<R: Read>(mut plain: Hashing<R>, entry: &FileEntry) -> Result<Hashing<R>, Failure> {
    io::copy(&mut plain, &mut io::sink())
        .map_err(|e| towpath_transfer::csv::CsvError::Io(e).into_failure(format!("reading {} failed", entry.name)))?;
    Ok(plain)
}

fn compare_plain(entry: &FileEntry, found: &FileDigests) -> Result<(), Failure> {
    let declared = entry.digests();
    let what = if found.size != declared.size {
        format!("it has {} bytes, the manifest says {}", found.size, declared.size)
    } else if found.sha256 != declared.sha256 {
        "its SHA-256 is not the manifest's".to_owned()
    } else if found.md5 != declared.md5 {
        "its MD5 is not the manifest's".to_owned()
    } else {
        return Ok(());
    };
    Err(Failure::park(Code::DigestMismatch, format!("{} was altered: {what}", entry.name)))
}

fn compare_packed(packed: &PackedFile, found: &FileDigests) -> Result<(), Failure> {
    if found.size == packed.size && found.sha256 == packed.sha256 {
        return Ok(());
    }
    Err(Failure::park(Code::DigestMismatch, format!("{} was altered: it is not the file the packed list names", packed.name)))
}

fn differs(entry: &FileEntry, what: &str) -> Failure {
    Failure::park(Code::ContentInvalid, format!("{} does not agree with its manifest: {what}", entry.name))
}

/// Hashes whatever is read through it.
struct Hashing<R> {
    inner: R,
    hasher: FileHasher,
}

impl<R> Hashing<R> {
    fn new(inner: R) -> Self {
        Self { inner, hasher: FileHasher::new() }
    }

    fn finish(self) -> (R, FileDigests) {
        (self.inner, self.hasher.finish())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(into)?;
        self.hasher.update(into.get(..n).unwrap_or_default());
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroUsize, path::Path};

    use towpath_transfer::{
        codec::Packer,
        manifest::{Column, ControlTotal, SqlType},
    };
    use towpath_transport::files::{FileStore, MemoryFiles, write_whole};

    use super::*;

    const CSV: &str = "n,t\r\n1.50,a\r\n,\"\"\r\n2.25,\"x,\"\"y\"\r\n";

    fn column(name: &str, sql_type: SqlType, nullable: bool) -> Column {
        Column { name: name.parse().unwrap(), sql_type, nullable }
    }

    fn entry(csv: &str) -> FileEntry {
        let mut hasher = FileHasher::new();
        hasher.update(csv.as_bytes());
        let found = hasher.finish();
        let table = Table::whole(
            "t".parse().unwrap(),
            vec![column("n", SqlType::Decimal { precision: 6, scale: 2 }, true), column("t", SqlType::Text, false)],
            3,
            vec![ControlTotal { column: "n".parse().unwrap(), count: 2, sum: "3.75".parse().unwrap() }],
        );
        FileEntry {
            name: "t.csv".parse().unwrap(),
            media_type: "text/csv".into(),
            size: found.size,
            md5: found.md5,
            sha256: found.sha256,
            unchanged: false,
            base: None,
            content: Content::Table(table),
        }
    }

    fn packed(csv: &str) -> (Vec<u8>, PackedFile) {
        let mut packer = Packer::new(Vec::new(), NonZeroUsize::MIN).unwrap();
        std::io::Write::write_all(&mut packer, csv.as_bytes()).unwrap();
        let (bytes, digests) = packer.finish().unwrap();
        let file = PackedFile { name: "t.csv.bz2".parse().unwrap(), size: digests.size, sha256: digests.sha256 };
        (bytes, file)
    }

    fn run(bytes: &[u8], packed: &PackedFile, entry: &FileEntry) -> Result<u64, Failure> {
        let files = MemoryFiles::default();
        write_whole(&files, Path::new("/f"), bytes).unwrap();
        read(&mut *files.open(Path::new("/f")).unwrap(), packed, entry, &mut Discard)
    }

    fn refused(csv: &str, change: impl FnOnce(&mut FileEntry, &mut Table)) -> Failure {
        let (bytes, packed) = packed(csv);
        let mut entry = entry(csv);
        let Content::Table(mut table) = entry.content.clone() else { unreachable!() };
        change(&mut entry, &mut table);
        entry.content = Content::Table(table);
        run(&bytes, &packed, &entry).unwrap_err()
    }

    #[test]
    fn what_agrees_is_accepted() {
        let (bytes, packed) = packed(CSV);
        assert_eq!(run(&bytes, &packed, &entry(CSV)).unwrap(), 3);
    }

    #[test]
    fn every_altered_byte_is_told_as_such_whatever_it_unpacks_to() {
        let mut csv = CSV.to_owned();
        // Several symbols and enough rows, so that altered bytes unpack to other rows and lengths as well.
        for n in 0..100u32 {
            csv.push_str(&format!("{}.{:02},\"text {} of {n}\"\r\n", n * 7 % 100, n % 100, n * n));
        }
        let (bytes, packed) = packed(&csv);
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            let failure = run(&altered, &packed, &entry(&csv)).expect_err("an altered byte was not noticed");
            assert_eq!(failure.disposition(), Disposition::Park, "byte {at}: {failure}");
            assert_eq!(failure.code(), Code::DigestMismatch, "byte {at}: {}", failure.report());
            let cut = run(&bytes[..at], &packed, &entry(&csv)).unwrap_err();
            assert_eq!(cut.code(), Code::DigestMismatch, "cut at {at}: {}", cut.report());
        }
    }

    #[test]
    fn a_listed_file_that_is_not_packed_is_told_as_such() {
        let bytes = CSV.as_bytes();
        let mut hasher = FileHasher::new();
        hasher.update(bytes);
        let found = hasher.finish();
        let packed = PackedFile { name: "t.csv.bz2".parse().unwrap(), size: found.size, sha256: found.sha256 };
        assert_eq!(run(bytes, &packed, &entry(CSV)).unwrap_err().code(), Code::UnpackFailed);
    }

    #[test]
    fn every_disagreement_with_the_manifest_is_refused() {
        use Code::{ContentInvalid, DigestMismatch, LimitExceeded};
        assert_eq!(refused(CSV, |_, t| t.rows = 2).code(), ContentInvalid);
        assert_eq!(refused(CSV, |_, t| t.totals[0].sum = "3.76".parse().unwrap()).code(), ContentInvalid);
        assert_eq!(refused(CSV, |_, t| t.totals[0].count = 3).code(), ContentInvalid);
        assert_eq!(refused(CSV, |_, t| t.columns[0].name = "m".parse().unwrap()).code(), ContentInvalid);
        assert_eq!(refused(CSV, |_, t| t.columns[0].nullable = false).code(), ContentInvalid);
        assert_eq!(refused(CSV, |_, t| t.columns[1].sql_type = SqlType::Date).code(), ContentInvalid);
        assert_eq!(refused(CSV, |e, _| e.size += 1).code(), DigestMismatch);
        assert_eq!(refused(CSV, |e, _| e.size -= 1).code(), LimitExceeded);
        assert_eq!(refused(CSV, |e, _| e.md5 = FileHasher::new().finish().md5).code(), DigestMismatch);
        assert_eq!(refused(CSV, |e, _| e.sha256 = FileHasher::new().finish().sha256).code(), DigestMismatch);
        assert_eq!(refused("n,t\r\n1,2", |_, _| ()).code(), ContentInvalid);
    }

    #[test]
    fn a_good_file_that_is_not_the_listed_one_is_refused() {
        let (bytes, mut packed) = packed(CSV);
        packed.size += 1;
        assert_eq!(run(&bytes, &packed, &entry(CSV)).unwrap_err().code(), Code::DigestMismatch);
    }
}
