//! `audit`

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write as _},
    path::Path,
};

use serde::Serialize;
use serde_json::json;
use towpath_transfer::{Code, Failure, failure::Result};

use super::{args::AuditCommand, output};
use crate::{
    audit::{
        Action, Entry, Standing, Who,
        chain::{Broken, Link, Preamble, Row, Verified, Verifier, time_text},
    },
    host::Host,
    registry::{AuditFilter, Registry},
};

/// The longest line of an export, in bytes: its bounded columns, each character as long as JSON makes it.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// What an operator is about to do.
pub(super) fn by_operator(host: &Host, action: Action) -> Entry {
    Entry::new(host.clock.now(), Who::operator(), action)
}

/// Changes the registry, and the audit trail with it or not at all. That it was refused is in the trail as well, where that can be
/// written.
pub(super) async fn noted<T>(registry: &Registry, entry: Entry, change: impl AsyncFnOnce(Registry) -> Result<T>) -> Result<T> {
    let changed = change(registry.noting(entry.clone())).await;
    if let Err(failure) = &changed
        && let Err(unwritten) = registry.audit_append(&[entry.failed(failure.code())]).await
    {
        tracing::warn!(code = %unwritten.code(), error = unwritten.report(), "the audit trail could not be written");
    }
    changed
}

pub(super) async fn run(host: &Host, command: AuditCommand) -> Result<()> {
    match command {
        AuditCommand::Show { since, tenant, action, transfer, limit, json } => {
            host.prepare()?;
            let filter = AuditFilter { since, until: None, tenant, action, transfer };
            show(host.registry().await?.audit_rows(&filter, limit).await?, json)
        }
        AuditCommand::Verify { expect, file: Some(file), json } => told(verify_file(&file, expect)?, json),
        AuditCommand::Verify { expect, file: None, json } => {
            host.prepare()?;
            told(verify(host, expect).await?, json)
        }
        AuditCommand::Export { since, until } => {
            host.prepare()?;
            let filter = AuditFilter { since, until, ..AuditFilter::default() };
            export(&host.registry().await?, &filter, io::stdout()).await
        }
    }
}

fn show(rows: Vec<Row>, json: bool) -> Result<()> {
    if json {
        return output::json(&rows);
    }
    output::table(&HEAD, cells(rows), "there are no such rows")
}

/// The columns of the rows as they are shown.
const HEAD: [&str; 10] = ["id", "at", "who", "key", "address", "tenant", "action", "detail", "transfer", "result"];

fn cells(rows: Vec<Row>) -> Vec<Vec<String>> {
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let cells = |row: Row| {
        let who = [row.role, row.name].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
        let at = time_text(row.at);
        let cells = [who, row.key, row.address, row.tenant, row.action, row.detail, row.transfer, row.result].map(or_dash);
        [row.id.to_string(), at].into_iter().chain(cells).collect()
    };
    rows.into_iter().map(cells).collect()
}

/// Computes the chain again, and looks whether it still goes through what the service has noted beside it.
async fn verify(host: &Host, expect: Option<Link>) -> Result<Checked> {
    // First, so that rows that come meanwhile are behind it.
    let noted = host.noted_head().read().await?;
    let registry = host.registry().await?;
    let checked = registry.verify_audit(expect).await?;
    if let (Ok(_), Some(noted)) = (&checked, noted)
        && let Standing::Lost(end) = registry.audit_standing(noted).await?
    {
        let why = format!(
            "was noted beside the database and is not there; the trail ends with row {end}: the registry was put back from a \
             backup, or its end was cut off"
        );
        return Ok(Err(Broken { id: noted.id, why }));
    }
    Ok(checked)
}

type Checked = std::result::Result<Verified, Broken>;

fn verify_file(path: &Path, expect: Option<Link>) -> Result<Checked> {
    let failed = |e: io::Error| Failure::park(Code::FileFailed, format!("read {}", path.display())).caused_by(e);
    let input: Box<dyn Read> =
        if path == Path::new("-") { Box::new(io::stdin()) } else { Box::new(File::open(path).map_err(failed)?) };
    let mut input = BufReader::new(input);
    let mut next = || -> Result<Option<String>> {
        let mut line = String::new();
        let read = input.by_ref().take(MAX_LINE_BYTES).read_line(&mut line).map_err(failed)?;
        Ok((read > 0).then_some(line))
    };
    let malformed = |number: usize, e: serde_json::Error| {
        let message = format!("line {number} of {} is not one of an export of the audit trail", path.display());
        Failure::park(Code::AuditBroken, message).caused_by(e)
    };
    let first: Preamble = serde_json::from_str(&next()?.unwrap_or_default()).map_err(|e| malformed(1, e))?;
    let (mut verifier, mut number) = (Verifier::new(first.after, expect), 1);
    while let Some(line) = next()? {
        number += 1;
        let row: Row = serde_json::from_str(&line).map_err(|e| malformed(number, e))?;
        if let Err(broken) = verifier.take(&row) {
            return Ok(Err(broken));
        }
    }
    Ok(verifier.finish(false))
}

fn told(checked: Checked, json: bool) -> Result<()> {
    let broken = |broken: &Broken| Failure::park(Code::AuditBroken, format!("the audit trail is not what was written: {broken}"));
    match checked {
        Ok(verified) if json => {
            let Verified { rows, after, head, lost } = verified;
            output::json(&json!({"valid": true, "rows": rows, "after": after, "head": head, "lost": lost}))
        }
        Ok(Verified { rows, after, head, lost }) => {
            let first = after.id.saturating_add(1);
            output::line(&format!("{} {}", head.id, head.hash))?;
            output::say(&format!(
                "{rows} rows from {first} on follow from each other; note the head elsewhere, and later: \
                 towpath-relay audit verify --expect {head}"
            ));
            if lost > 0 {
                output::say(&format!(
                    "{lost} of them say that rows before them are lost, because the registry was put back from a backup or rows were cut \
                     off: towpath-relay audit show --action lost"
                ));
            }
            Ok(())
        }
        Err(found) => {
            if json {
                output::json(&json!({"valid": false, "broken": &found}))?;
            }
            Err(broken(&found))
        }
    }
}

/// Writes the rows as lines, the place in the chain after which they come first.
async fn export(registry: &Registry, filter: &AuditFilter, out: impl io::Write) -> Result<()> {
    let mut reader = registry.audit_reader(filter).await?;
    let mut out = io::BufWriter::new(out);
    let mut written = print(&mut out, &Preamble { after: reader.before() });
    while written.is_ok() {
        let page = reader.page().await?;
        if page.is_empty() {
            written = out.flush();
            break;
        }
        written = page.iter().try_for_each(|row| print(&mut out, row));
    }
    match written {
        // Whoever closes the pipe early has read what it wanted.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| Failure::park(Code::FileFailed, "write the export").caused_by(e)),
    }
}

fn print(out: &mut impl io::Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use towpath_transfer::clock::{ManualClock, SeededEntropy};

    use super::*;

    #[tokio::test]
    async fn an_export_is_checked_alone_and_every_change_of_it_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::new("2026-03-01T00:00:00Z".parse().unwrap());
        let (path, shared) = (folder.path().join("registry.sqlite"), Arc::new(clock.clone()));
        let registry = Registry::open(&path, shared.clone(), Arc::new(SeededEntropy::new(3))).await.unwrap();
        let mut times = Vec::new();
        for number in 0..4 {
            clock.advance(std::time::Duration::from_micros(3_600_000_001));
            times.push(towpath_transfer::Clock::now(&clock));
            let entry = Entry::new(times[number], Who::relay(), Action::Started).detail("\u{1b}[2J\n\"quoted\" \u{1F600}");
            registry.audit_append(&[entry]).await.unwrap();
        }
        // A row of an older program may have what was not escaped.
        let shown = output::table_text(&HEAD, cells(registry.audit_rows(&AuditFilter::default(), 9).await.unwrap()));
        assert_eq!(shown.lines().count(), 1 + times.len(), "{shown:?}");
        assert!(!shown.replace('\n', "").contains(char::is_control), "{shown:?}");
        let exported = async |since: Option<usize>, until: Option<usize>| {
            let filter =
                AuditFilter { since: since.map(|at| times[at]), until: until.map(|at| times[at]), ..AuditFilter::default() };
            let mut out = Vec::new();
            export(&registry, &filter, &mut out).await.unwrap();
            String::from_utf8(out).unwrap()
        };
        let file = folder.path().join("export.jsonl");
        let checked = |text: &str, expect: Option<Link>| {
            std::fs::write(&file, text).unwrap();
            verify_file(&file, expect)
        };
        let whole = exported(None, None).await;
        let head = checked(&whole, None).unwrap().unwrap().head;
        assert_eq!(head, registry.verify_audit(None).await.unwrap().unwrap().head);
        let part = exported(Some(1), Some(2)).await;
        let found = checked(&part, None).unwrap().unwrap();
        assert_eq!((found.after.id, found.rows, found.head.id), (1, 2, 3));
        assert_eq!(exported(Some(3), Some(2)).await.lines().count(), 1);

        let lines: Vec<&str> = whole.lines().collect();
        let without = |gone: usize| {
            let kept: Vec<&str> = lines.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, line)| *line).collect();
            kept.join("\n")
        };
        assert_eq!(checked(&without(2), None).unwrap().unwrap_err().id, 2);
        assert_eq!(checked(&whole.replacen("started", "stopped", 1), None).unwrap().unwrap_err().id, 1);
        assert!(checked(&without(4), None).unwrap().is_ok(), "the end alone cannot tell");
        assert_eq!(checked(&without(4), Some(head)).unwrap().unwrap_err().id, 4);
        assert_eq!(checked(&without(0), None).unwrap_err().code(), Code::AuditBroken);
        assert_eq!(checked("", None).unwrap_err().code(), Code::AuditBroken);
        assert_eq!(verify_file(&folder.path().join("none"), None).unwrap_err().code(), Code::FileFailed);
    }
}
