//! `support-bundle`: one file for whoever helps from afar.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::Serialize;
use towpath_host::program::{self, Threads};
use towpath_journal::Filter;
use towpath_transfer::{Code, Failure, failure::Result};

use super::{args::Args, base, doctor, output, quietly, status, transfer_args::SupportArgs};
use crate::{
    doctor::{Visit, examine},
    host::{Host, OpenHost},
    support::{Bundle, MAX_LISTED, MAX_LOG_BYTES, MAX_TOLD, secrets},
    view::{TransferView, detail},
};

/// What the bundle says of itself.
const README: &str = "What towpath-agent on one host looks like, for whoever helps from afar.

about.json          program and system
configuration.toml  what is in force; secrets stand in it as references only, and arguments of programs not at all
doctor.json         what `towpath-agent doctor` has found
status.json         what `towpath-agent status` says
transfers.json      the newest transfers; transfers/ has the last ones in full
log.txt             the end of the log file, where there is one

Keys, passwords, enrolment codes, tokens and rows of the ERP are not in it. Names of tables, columns and folders are, and counts and
sums of columns are not. Look through it before you hand it on.
";

#[derive(Serialize)]
struct About {
    program: &'static str,
    version: &'static str,
    system: &'static str,
    architecture: &'static str,
    release: Option<String>,
    made: Timestamp,
    state: String,
    configuration: String,
}

#[derive(Serialize)]
struct SupportView {
    file: String,
    bytes: usize,
    contains: Vec<String>,
}

pub(super) fn run(args: &Args, asked: &SupportArgs) -> Result<()> {
    let path = match &asked.out {
        Some(path) => path.clone(),
        None => usual_name()?,
    };
    // Made before the command becomes the service's user, which need not be able to write here.
    let mut file = create(&path)?;
    let made = make(args, asked).and_then(|(bytes, contains)| {
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(|error| failed(&path, error))?;
        Ok(SupportView { file: path.display().to_string(), bytes: bytes.len(), contains })
    });
    let view = made.inspect_err(|_| drop(std::fs::remove_file(&path)))?;
    if asked.output.json {
        return output::json(&view);
    }
    output::line(&format!("{}: {} bytes", view.file, output::grouped(view.bytes as u64)))?;
    output::say("keys, passwords and rows of the ERP are not in it; look through it before you hand it on");
    Ok(())
}

fn usual_name() -> Result<PathBuf> {
    let now = base()?.clock.now().to_zoned(jiff::tz::TimeZone::system());
    Ok(PathBuf::from(format!("towpath-support-{}.zip", now.strftime("%Y-%m-%d-%H%M%S"))))
}

fn create(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|error| failed(path, error))
}

fn failed(path: &Path, error: std::io::Error) -> Failure {
    Failure::park(Code::FileFailed, format!("writing {} failed; say --out FILE for another place", path.display()))
        .caused_by(error)
}

fn make(args: &Args, asked: &SupportArgs) -> Result<(Vec<u8>, Vec<String>)> {
    let (host, unreadable) = doctor::look(args)?;
    program::block_on(Threads::Many, async {
        let mut bundle = Bundle::new(secrets(&host))?;
        bundle.text("README.txt", README)?;
        bundle.json("about.json", &Ok(about(&host)))?;
        match &unreadable {
            Some(failure) => bundle.text("configuration.toml", &format!("# {}\n", failure.report()))?,
            None => bundle.configuration(host.settings())?,
        }
        let visit = Visit { host: &host, unreadable: unreadable.as_ref(), offline: asked.offline };
        bundle.json("doctor.json", &examine(&visit, &mut |_| Ok(())).await)?;
        let journal = quietly(&host, async |open| {
            bundle.json("status.json", &status::collect(open).await)?;
            transfers(&mut bundle, open).await
        });
        if let Err(failure) = journal.await {
            bundle.json("status.json", &Err::<(), _>(failure))?;
        }
        if let Some(file) = &host.settings().log.file {
            let text = tail(file).unwrap_or_else(|error| format!("{} cannot be read: {error}", file.display()));
            bundle.text("log.txt", &text)?;
        }
        let contains = bundle.names().to_vec();
        Ok((bundle.finish()?, contains))
    })
}

async fn transfers(bundle: &mut Bundle, open: &OpenHost) -> Result<()> {
    let records = open.parts.journal.list(&Filter::default(), MAX_LISTED, None).await?;
    let views: Vec<TransferView> = records.iter().map(Into::into).collect();
    bundle.json("transfers.json", &Ok(views))?;
    for record in records.iter().take(MAX_TOLD) {
        bundle.json(&format!("transfers/{}.json", record.key.id), &detail(&open.parts, record).await)?;
    }
    Ok(())
}

fn about(host: &Host) -> About {
    let release = std::fs::read_to_string("/etc/os-release").ok();
    let named =
        |text: &String| Some(text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?.trim_matches('"').to_owned());
    let release = release.as_ref().and_then(named);
    About {
        program: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        system: std::env::consts::OS,
        architecture: std::env::consts::ARCH,
        release,
        made: host.clock().now(),
        state: host.layout.state().display().to_string(),
        configuration: host.config.file.display().to_string(),
    }
}

/// The end of a log file, from the beginning of a line on.
fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let skipped = length.saturating_sub(MAX_LOG_BYTES as u64);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(MAX_LOG_BYTES as u64).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let whole = if skipped == 0 { &*text } else { text.split_once('\n').map_or("", |(_, rest)| rest) };
    Ok(whole.to_owned())
}
