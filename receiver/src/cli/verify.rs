//! `verify`

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
};

use serde::Serialize;
use towpath_keys::AllowedSigners;
use towpath_transfer::{
    AgentName, Code, Failure, JobName, Sequence, TenantName, TransferId, digest::Sha256Digest, public_key::Fingerprint,
};
use towpath_transport::files::Disk;

use super::{args::VerifyArgs, output};
use crate::{
    config::Config,
    enrolment::Enrolment,
    layout::Layout,
    uplink::{
        check::{self, Expected, Opened},
        verify::check_sizes,
    },
};

/// What `verify --json` prints of a transfer that is whole.
#[derive(Serialize)]
struct Verified {
    ok: bool,
    folder: PathBuf,
    transfer: TransferId,
    tenant: TenantName,
    agent: AgentName,
    job: JobName,
    sequence: Sequence,
    created: jiff::Timestamp,
    signed_by: Fingerprint,
    manifest_sha256: Sha256Digest,
    files: Vec<CheckedFile>,
}

#[derive(Serialize)]
struct CheckedFile {
    name: String,
    table: Option<String>,
    rows: Option<u64>,
    bytes: u64,
    unchanged: bool,
    sha256: Sha256Digest,
}

/// What `verify --json` prints of any other.
#[derive(Serialize)]
struct Refused {
    ok: bool,
    folder: PathBuf,
    code: Code,
    detail: String,
}

/// `was_root` says that this process has become the owner of the state folder: the bytes of others are not parsed as root.
pub(super) fn verify(config: &Config, state: &Path, args: &VerifyArgs, was_root: bool) -> Result<(), Failure> {
    match checked(config, state, args).map_err(|failure| if was_root { explained(failure, state, &args.dir) } else { failure }) {
        Ok(opened) => tell(args, opened),
        Err(failure) => {
            if args.json {
                let detail = failure.report();
                output::json(&Refused { ok: false, folder: args.dir.clone(), code: failure.code(), detail })?;
            }
            Err(failure)
        }
    }
}

/// What hinders the owner of the state folder and would not hinder root, with that reason.
fn explained(failure: Failure, state: &Path, dir: &Path) -> Failure {
    if !is_denied(&failure) {
        return failure;
    }
    let message = format!(
        "{}: run as root, this command goes on as the owner of {}, who may not read that; copy {} to where that user may, or run the \
         command as somebody who may read both",
        failure.message(),
        state.display(),
        dir.display()
    );
    Failure::park(failure.code(), message).caused_by(failure)
}

/// Whether the system did not let this process at a file.
fn is_denied(failure: &Failure) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = failure.source();
    while let Some(error) = cause {
        if error.downcast_ref().map(io::Error::kind) == Some(io::ErrorKind::PermissionDenied) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn checked(config: &Config, state: &Path, args: &VerifyArgs) -> Result<Opened, Failure> {
    let layout = Layout::new(state);
    let signers = AllowedSigners::load(args.allowed_signers.as_deref().unwrap_or(&layout.allowed_signers()))?;
    let tenant = Enrolment::find(&Disk, &layout.enrolment())?.map(|enrolment| enrolment.tenant);
    // A folder that is named like a transfer must hold that transfer.
    let folder = std::path::absolute(&args.dir).unwrap_or_else(|_| args.dir.clone());
    let transfer = folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    let opened = check::open(&Disk, &args.dir, &Expected { tenant, agent: None, transfer }, &signers)?;
    check_sizes(&opened.manifest, config.limits.unpacked_file_bytes)?;
    check::contents(&Disk, &args.dir, &opened)?;
    Ok(opened)
}

fn tell(args: &VerifyArgs, opened: Opened) -> Result<(), Failure> {
    let Opened { manifest, digest, signer, .. } = opened;
    let files: Vec<CheckedFile> = manifest
        .files
        .iter()
        .map(|file| CheckedFile {
            name: file.name.to_string(),
            table: file.table().map(|table| table.table.to_string()),
            rows: file.table().map(|table| table.rows),
            bytes: file.size,
            unchanged: file.unchanged,
            sha256: file.sha256,
        })
        .collect();
    if args.json {
        return output::json(&Verified {
            ok: true,
            folder: args.dir.clone(),
            transfer: manifest.transfer,
            tenant: manifest.tenant,
            agent: manifest.agent,
            job: manifest.job,
            sequence: manifest.sequence,
            created: manifest.created,
            signed_by: signer,
            manifest_sha256: digest,
            files,
        });
    }
    output::line(&format!(
        "transfer {} of agent {}, job {}, number {}",
        manifest.transfer, manifest.agent, manifest.job, manifest.sequence
    ))?;
    output::line(&format!("signed by {signer}, an approved key of {}", manifest.agent))?;
    let rows = files.into_iter().map(|file| {
        let rows = file.rows.map_or_else(String::new, |rows| rows.to_string());
        let checked = if file.unchanged { "not sent: unchanged" } else { "MD5, SHA-256, size, rows and totals agree" };
        vec![file.name, rows, file.bytes.to_string(), checked.to_owned()]
    });
    output::table(&["file", "rows", "bytes", "checked"], rows.collect(), "it has no files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_root_may_read_is_told_with_who_reads_it() {
        let failed = |kind: io::ErrorKind| {
            Failure::park(Code::FileFailed, "reading /srv/t/manifest.json").caused_by(io::Error::from(kind))
        };
        let of =
            |kind: io::ErrorKind| explained(failed(kind), Path::new("/var/lib/towpath/receiver"), Path::new("/srv/t")).report();
        let denied = of(io::ErrorKind::PermissionDenied);
        assert!(
            denied.starts_with("reading /srv/t/manifest.json: run as root, this command goes on as the owner of "),
            "{denied}"
        );
        assert!(
            denied.contains("copy /srv/t to where that user may") && denied.ends_with("permission denied [file-failed]"),
            "{denied}"
        );
        assert!(!of(io::ErrorKind::NotFound).contains("run as root"));
    }
}
