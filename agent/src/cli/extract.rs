//! `extract --out`: looks at what would be sent, without sending it.

use std::{borrow::Cow, collections::BTreeSet, path::Path};

use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use towpath_host::{config::closest, program};
use towpath_keys::{Identity, Namespace};
use towpath_transfer::{
    Code, Direction, Failure, JobName, Sequence, TransferId,
    failure::Result,
    manifest::{MANIFEST_NAME, Manifest, SIGNATURE_NAME},
    packed::MD5SUMS_NAME,
};
use towpath_transport::files::file_failure;

use super::{args::ExtractArgs, check, output, tables};
use crate::{
    config::{Config, JobConfig},
    extract::{ExtractEvent, ExtractRequest, Extracted, Form, extract},
    host::Host,
    small_file,
    uplink::extract::{MAX_WAITING_EVENTS, md5_list},
    view::{SnapshotView, TableView, table_views},
};

/// Tenant and agent in the manifest of a host that is not enrolled.
const NOT_ENROLLED: &str = "not-enrolled";

#[derive(Serialize)]
struct ExtractView {
    job: String,
    folder: String,
    snapshot: SnapshotView,
    warnings: Vec<String>,
    tables: Vec<TableView>,
}

pub(super) async fn run(host: &Host, args: &ExtractArgs) -> Result<()> {
    let job = one_job(host.settings(), args.job.as_ref())?;
    let job = match &args.profile {
        Some(profile) => {
            let given = args.parameter.iter().cloned().collect();
            Cow::Owned(job.with_profile(profile, given, Path::new(""))?)
        }
        None => Cow::Borrowed(job),
    };
    let job = job.as_ref();
    let Some(folder) = args.out.as_ref().filter(|_| !args.check) else { return check::run(host, job, args).await };
    host.files.create_dir_all(folder).map_err(|error| file_failure("making the folder", folder, error))?;
    let extracted = read(host, job, folder).await?;
    let manifest = write_manifest(host, job, folder, &extracted)?;
    let found = table_views(manifest.files.iter(), &[], &[])?;
    let snapshot: SnapshotView = extracted.snapshot.into();
    if args.output.json {
        let (job, folder) = (job.name.to_string(), folder.display().to_string());
        return output::json(&ExtractView { job, folder, snapshot, warnings: extracted.warnings, tables: found });
    }
    let row =
        |one: &TableView| vec![one.table.clone(), one.file.clone(), output::grouped(one.rows), output::grouped(one.csv_bytes)];
    output::table(&["table", "file", "rows", "bytes"], found.iter().map(row).collect(), "there are no tables")?;
    for table in &found {
        for remark in table.remarks() {
            output::line(&format!("{}: {remark}", table.table))?;
        }
    }
    tables::tell_source(&format!("{}:", job.name), Some(&snapshot), &extracted.warnings)?;
    output::say(&format!("{} holds the tables and their manifest; nothing was sent", folder.display()));
    Ok(())
}

/// The job that is named, or the only one.
pub(super) fn one_job<'a>(config: &'a Config, name: Option<&JobName>) -> Result<&'a JobConfig> {
    let unknown = |message: String| Failure::park(Code::ConfigInvalid, message);
    match (name, config.jobs.as_slice()) {
        (Some(name), _) => config.job(name).ok_or_else(|| {
            let meant = closest(name.as_str(), config.jobs.iter().map(|job| job.name.as_str()));
            let meant = meant.map(|meant| format!(" - did you mean {meant}?")).unwrap_or_default();
            unknown(format!("there is no job {name} in the configuration{meant}"))
        }),
        (None, [only]) => Ok(only),
        (None, []) => Err(unknown("the configuration has no [[job]]".into())),
        (None, _) => Err(unknown("there are several jobs: say which one with --job NAME".into())),
    }
}

async fn read(host: &Host, job: &JobConfig, folder: &Path) -> Result<Extracted> {
    let (events, mut seen) = mpsc::channel(MAX_WAITING_EVENTS);
    let cancel: CancellationToken = program::stop_signal()?;
    let parts = host.extract_parts();
    let request = ExtractRequest {
        job: job.clone(),
        folder: folder.to_owned(),
        previous: None,
        full: true,
        anew: BTreeSet::new(),
        form: Form::Plain,
    };
    let show = async {
        while let Some(event) = seen.recv().await {
            if let ExtractEvent::TableFinished { table, rows, .. } = event {
                output::say(&format!("{table}: {} rows", output::grouped(rows)));
            }
        }
    };
    let (extracted, ()) = tokio::join!(extract(&parts, request, events, cancel), show);
    extracted
}

/// The manifest as it would be sent, signed where there is a key.
fn write_manifest(host: &Host, job: &JobConfig, folder: &Path, extracted: &Extracted) -> Result<Manifest> {
    let internal = |what: &str| Failure::park(Code::Internal, what.to_owned());
    let enrolment = host.enrolment()?;
    let (tenant, agent) = match enrolment {
        Some(enrolment) => (enrolment.tenant, enrolment.name),
        None => {
            let unnamed = |_| internal("the name of a host that is not enrolled");
            (NOT_ENROLLED.parse().map_err(unnamed)?, NOT_ENROLLED.parse().map_err(unnamed)?)
        }
    };
    let manifest = Manifest {
        version: 1,
        transfer: TransferId::new(&**host.clock(), &**host.entropy()),
        direction: Direction::Uplink,
        tenant,
        agent,
        job: job.name.clone(),
        created: host.clock().now(),
        // Transfers count from 1: this one is none.
        sequence: Sequence(0),
        snapshot: Some(extracted.snapshot.clone()),
        kind: None,
        files: extracted.files.clone(),
    };
    let bytes = manifest.to_bytes().map_err(|error| internal("the manifest cannot be written").caused_by(error))?;
    small_file::write(&*host.files, &folder.join(MD5SUMS_NAME), md5_list(&manifest.files)?.as_bytes())?;
    match Identity::load(&host.layout.key()) {
        Ok(identity) => {
            let signature = identity.sign(Namespace::Manifest, &bytes)?;
            small_file::write(&*host.files, &folder.join(SIGNATURE_NAME), signature.as_bytes())?;
        }
        Err(failure) if failure.code() == Code::KeyMissing => {}
        Err(failure) => return Err(failure),
    }
    small_file::write(&*host.files, &folder.join(MANIFEST_NAME), &bytes)?;
    Ok(manifest)
}
