//! `verify`

use std::path::{Path, PathBuf};

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

pub(super) fn verify(config: &Config, state: &Path, args: &VerifyArgs) -> Result<(), Failure> {
    match checked(config, state, args) {
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
