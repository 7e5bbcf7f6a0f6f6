//! What the installation package of Windows lets this program do: it runs these commands as the system, within its transaction. One
//! that fails takes the installation back.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Mutex,
};

use towpath_keys::KeyKind;
use towpath_platform::{event_log, sharing};
use towpath_transfer::{Code, Failure, failure::Result};
use towpath_transport::files::{Disk, FileStore as _, file_failure, ignore_missing};

use super::{
    args::Args,
    enrol, host, output, program,
    service::installation,
    service_args::{InstallArgs, SetUpArgs},
};
use crate::{
    config::LoadedConfig,
    enrolment::parse_code,
    layout::Layout,
    service::{before::Before, installation::DEFAULT_USER, windows},
    setup::{Answers, PASSWORD_FILE, proxy_answers, without_job},
    update::{System, apply, kept},
};

/// What the last set-up has done and why it failed, beside the configuration.
const LOG: &str = "setup.log";

/// Where the package's program puts things.
struct Places {
    data: PathBuf,
    config: PathBuf,
    layout: Layout,
}

impl Places {
    /// The state folder is the configured one as far as a configuration can be read.
    fn of(args: &Args) -> Result<Self> {
        let config = args.config_file()?;
        let unknown = || Failure::park(Code::ConfigMissing, format!("{} lies in no folder", config.display()));
        let data = config.parent().ok_or_else(unknown)?.to_owned();
        let read = LoadedConfig::read(&config).map(|loaded| loaded.config);
        let settings = match read {
            Ok(settings) => settings,
            Err(_) => crate::config::Config::parse("", &config)?,
        };
        let layout = Layout::new(args.state_folder(&settings)?);
        Ok(Self { data, config, layout })
    }
}

pub(super) fn set_up(args: &Args, asked: &SetUpArgs) -> Result<()> {
    let log = Mutex::new(None);
    let say = |text: &str| {
        let _ = output::line(text);
        if let Ok(mut log) = log.lock()
            && let Some(file) = log.as_mut()
        {
            // What cannot be noted has been printed.
            let _ = writeln!(file as &mut File, "{text}");
        }
    };
    let places = Places::of(args)?;
    let kept = System::default().kept;
    // Claimed before it is believed: it says which account the service runs as.
    let claimed = kept::claim(&kept);
    let is_claimed = claimed.is_ok();
    let done = claimed.and_then(|()| {
        let before = Before::read(&kept);
        let account = before.account.clone().unwrap_or_else(|| DEFAULT_USER.to_owned());
        windows::claim_program(&program_folder()?)?;
        windows::check_data(&places.data, &[&places.config, places.layout.state(), &places.data.join(LOG)])?;
        windows::claim_folder(&places.data, &account, &say)?;
        if let Ok(mut log) = log.lock() {
            *log = File::create(places.data.join(LOG)).ok();
        }
        with_folder(args, asked, &places, &before, account, &say)
    });
    if let Err(failure) = &done {
        if let Ok(mut log) = log.lock()
            && log.is_none()
            && is_claimed
        {
            // The data folder was not taken, and nobody else writes here.
            *log = File::create(kept.join(LOG)).ok();
        }
        say(&format!("FAILED: {}\nsee docs/errors/{}.md", failure.report(), failure.code()));
        // Where nobody looks at a log file, somebody may look there.
        let _ = event_log::report(windows::SERVICE, event_log::Level::Error, &failure.report());
    }
    done
}

fn program_folder() -> Result<PathBuf> {
    let unknown = || Failure::park(Code::ServiceFailed, "it is not known where this program lies");
    let program = std::env::current_exe().map_err(|error| unknown().caused_by(error))?;
    program.parent().map(Path::to_owned).ok_or_else(unknown)
}

/// Everything after the folder is ours. What is written here for the first time is taken away again where a later step fails; the key
/// stays, so that a code which the relay has taken already can be used again.
fn with_folder(
    args: &Args,
    asked: &SetUpArgs,
    places: &Places,
    before: &Before,
    account: String,
    say: &dyn Fn(&str),
) -> Result<()> {
    let written = write_config(&places.config, &asked.proxy, say)?;
    let done = (|| {
        let enrolled = enrol_with(args, asked.code.trim(), say)?;
        let of = installation(args, &InstallArgs { user: account, now: false, dry_run: false })?;
        windows::install(&of, false, say)?;
        apply::task::make(&System::default().kept, &of)?;
        say(&format!("made the task {}, which does what [update] of the configuration says", apply::task::NAME));
        let start = match asked.start.as_str() {
            "1" => true,
            "0" => false,
            // What ran before may have run with other data; without an enrolment it would end at once.
            _ => enrolled || before.running && host(args)?.enrolment()?.is_some(),
        };
        if start {
            windows::restart()?;
            say("the service runs");
        }
        Ok(())
    })();
    if done.is_err() && written {
        let _ = fs::remove_file(&places.config);
    }
    done.and_then(|()| Before::forget(&System::default().kept))
}

/// Whether a configuration was written: where there is none, one that says how the relay is reached.
fn write_config(file: &Path, proxy: &str, say: &dyn Fn(&str)) -> Result<bool> {
    if file.exists() {
        windows::check_config(file)?;
        say(&format!("{} is there, and stays as it is", file.display()));
        return Ok(false);
    }
    let network = match proxy.trim() {
        "" => Answers::default(),
        url => proxy_answers(url, &towpath_keys::secrets::protect)?,
    };
    let written = File::create_new(file).and_then(|mut new| {
        new.write_all(without_job(&network).as_bytes())?;
        new.sync_all()
    });
    written.map_err(|error| Failure::park(Code::FileFailed, format!("writing {} failed", file.display())).caused_by(error))?;
    say(&format!("written: {}", file.display()));
    Ok(true)
}

/// Whether this host was enrolled now.
fn enrol_with(args: &Args, code: &str, say: &dyn Fn(&str)) -> Result<bool> {
    if code.is_empty() {
        return Ok(false);
    }
    let host = host(args)?;
    if let Some(enrolment) = host.enrolment()? {
        say(&format!("enrolled already as {} of tenant {}; the code was not used", enrolment.name, enrolment.tenant));
        return Ok(false);
    }
    let code = parse_code(code)?;
    let (enrolled, identity) =
        program::block_on(super::Threads::Many, async { enrol::with_code(&host, &code, KeyKind::default()).await })?;
    let enrolment = &enrolled.enrolment;
    say(&format!("enrolled as {} of tenant {} with {}", enrolment.name, enrolment.tenant, enrolment.relay_url));
    say(&format!("key {0}: the receiver's operator runs: towpath-receiver agent approve {0}", identity.fingerprint()));
    Ok(true)
}

/// Notes how the service stands, for the version that follows, and stops it: it may take longer than Windows Installer waits.
pub(super) fn before_removal() -> Result<()> {
    let Some(standing) = windows::status()? else { return Ok(()) };
    // Where it lies is for what goes on after a power loss only, and must not keep the service from being stopped.
    Before::note(&System::default().kept, &standing, windows::chosen_folders().unwrap_or_default())?;
    apply::task::remove();
    windows::stop()
}

/// What ran before runs again.
pub(super) fn undo_removal(args: &Args) -> Result<()> {
    let kept = System::default().kept;
    let before = Before::read(&kept);
    let user = before.account.unwrap_or_else(|| DEFAULT_USER.to_owned());
    // Updates are worth less than transfers: the agent runs, whatever comes of its task.
    if before.running {
        windows::start()?;
    }
    apply::task::make(&kept, &installation(args, &InstallArgs { user, now: false, dry_run: false })?)?;
    Before::forget(&kept)
}

/// Removes state, configuration, what the agent has written beside them, and what is known of updates. What somebody else has put
/// there stays.
pub(super) fn remove_data(args: &Args) -> Result<()> {
    let places = Places::of(args)?;
    let kept = System::default().kept;
    let log = LoadedConfig::read(&places.config).ok().and_then(|loaded| loaded.config.log.file.clone());
    let failed =
        |path: &Path, error| Failure::park(Code::FileFailed, format!("removing {} failed", path.display())).caused_by(error);
    for folder in [places.layout.state(), &kept] {
        ignore_missing(Disk.remove_dir_all(folder)).map_err(|error| failed(folder, error))?;
    }
    if let Some(log) = log.filter(|log| log.parent() == Some(&places.data)) {
        let rest = fs::read_dir(&places.data).map_err(|error| failed(&places.data, error))?;
        for entry in rest.flatten().filter(|entry| crate::service::installation::is_of_log(&log, &entry.file_name())) {
            forget(&entry.path())?;
        }
    }
    for name in [PASSWORD_FILE, "proxy-password", LOG] {
        forget(&places.data.join(name))?;
    }
    forget(&places.config)?;
    match sharing::changed(|| fs::remove_dir(&places.data)) {
        // It is somebody else's as well.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&places.data, error)),
        _ => Ok(()),
    }
}

fn forget(file: &Path) -> Result<()> {
    ignore_missing(Disk.remove(file)).map_err(|error| file_failure("removing", file, error))
}
