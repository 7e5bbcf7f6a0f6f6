//! The service of Windows: how it is installed, and what it does when Windows starts it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_util::sync::CancellationToken;
use towpath_platform::{
    acl::{self, Right},
    event_log,
    folders::{self, Chosen},
    services::{self, NewService, Standing},
};
use towpath_transfer::{Code, Failure, failure::Result};

use super::installation::{Installation, is_agents_or_empty, is_of_log};

/// The name of the service, and of its source in the Event Log.
pub const SERVICE: &str = "TowpathAgent";

/// Makes the folder of configuration and state where there is none, and lets nobody into it but administrators, who may change what is
/// in it, and the service, which may read it: whoever changes the configuration says what the system does at the next set-up.
///
/// # Errors
/// `service-failed`, also for one that somebody else has made, who could change what the service does.
pub fn claim_folder(folder: &Path, account: &str, say: &dyn Fn(&str)) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|error| failed("making the data folder failed", error))?;
    let trusted = acl::is_of_trusted(folder).map_err(|error| failed("asking for the owner of the data folder failed", error))?;
    if !trusted {
        return Err(not_of_administrators(folder));
    }
    let change = |also: Allowed<'_>| acl::restrict_to_owner(folder, also);
    restrict(folder, account, Right::Read, &change, say).map_err(|error| failed("closing the data folder failed", error))
}

/// Lets nobody change the program but administrators, wherever it was installed: the system runs it. What lies beside it is run with it.
///
/// # Errors
/// `service-failed`, also for a folder in which something lies that somebody else has made, and for a whole drive.
pub fn claim_program(folder: &Path) -> Result<()> {
    let unread = |error| failed("asking for the owner of the program's folder failed", error);
    if folder.parent().is_none() {
        return Err(whole_drive(folder));
    }
    for path in std::iter::once(Ok(folder.to_owned())).chain(entries(folder).map_err(unread)?) {
        let path = path.map_err(unread)?;
        if !acl::is_of_administrators(&path).map_err(unread)? {
            return Err(not_of_administrators(&path));
        }
    }
    acl::publish(folder).map_err(|error| failed("closing the program's folder failed", error))
}

/// Refuses a data folder that is somebody else's as well, because everybody else is kept out of it. `ours` tell that it is an agent's.
///
/// # Errors
/// `service-failed`.
pub fn check_data(folder: &Path, ours: &[&Path]) -> Result<()> {
    if folder.parent().is_none() {
        return Err(whole_drive(folder));
    }
    if is_agents_or_empty(folder, ours).map_err(|error| failed("reading the data folder failed", error))? {
        return Ok(());
    }
    let message = format!(
        "{} is not empty and holds nothing of an agent, so it is not taken from those who use it; name a folder of its own with DATADIR",
        folder.display()
    );
    Err(Failure::park(Code::ServiceFailed, message))
}

fn whole_drive(folder: &Path) -> Failure {
    let message = format!("{} is a whole drive; name a folder on it with INSTALLDIR or DATADIR", folder.display());
    Failure::park(Code::ServiceFailed, message)
}

fn entries(folder: &Path) -> io::Result<impl Iterator<Item = io::Result<PathBuf>>> {
    std::fs::read_dir(folder).map(|entries| entries.map(|entry| entry.map(|entry| entry.path())))
}

/// Refuses a configuration that somebody else has put there: the folders that it names are given to the service.
///
/// # Errors
/// `service-failed`.
pub fn check_config(file: &Path) -> Result<()> {
    let failed = |error| failed("asking for the owner of the configuration failed", error);
    if acl::is_of_administrators(file).map_err(failed)? { Ok(()) } else { Err(not_of_administrators(file)) }
}

fn not_of_administrators(path: &Path) -> Failure {
    let shown = path.display();
    let message = format!(
        "{shown} was made by somebody who is no administrator; look at what is in it, and remove it or run: \
         icacls \"{shown}\" /setowner *S-1-5-32-544 /T"
    );
    Failure::park(Code::ServiceFailed, message)
}

/// The folders that its package was told.
///
/// # Errors
/// `service-failed`.
pub fn chosen_folders() -> Result<Chosen> {
    folders::chosen().map_err(|error| failed("asking where it is installed failed", error))
}

/// Tells the package that follows which folders are meant.
///
/// # Errors
/// `service-failed`.
pub fn choose_folders(chosen: &Chosen) -> Result<()> {
    folders::choose(chosen).map_err(|error| failed("writing down where it is installed failed", error))
}

/// Makes or changes the service, and lets its account read and write what is its own. May be repeated.
///
/// # Errors
/// `service-failed`.
pub fn install(of: &Installation, start: bool, say: &dyn Fn(&str)) -> Result<()> {
    let arguments = [
        "--config".into(),
        of.config.clone().into(),
        "--state".into(),
        of.state.clone().into(),
        "run".into(),
        "--service".into(),
    ];
    let new = NewService {
        name: SERVICE.to_owned(),
        title: "Towpath agent".to_owned(),
        description: "Sends tables of the ERP and fetches return files.".to_owned(),
        executable: of.executable.clone(),
        arguments: arguments.to_vec(),
        account: of.user.clone(),
    };
    services::install(&new).map_err(|error| failed("making the service failed", error))?;
    say(&format!("made the service {SERVICE}, which starts with this host and again after a failure"));
    std::fs::create_dir_all(&of.state).map_err(|error| failed("making the state folder failed", error))?;
    give(&of.state, &of.user, Right::Full, say);
    for path in [&of.config].into_iter().chain(&of.secrets) {
        give(path, &of.user, Right::Read, say);
    }
    give_private(&of.state, &of.user, say)?;
    if let Some(log) = &of.log {
        give_log(log, of.log_folder_is_others(), &of.user, say)?;
    }
    event_log::register(SERVICE).map_err(|error| failed("making the source of the Event Log failed", error))?;
    for folder in &of.others {
        say(&format!(
            "note: {} must be able to read and write {}; towpath-agent doctor tells whether it can",
            of.user,
            folder.display()
        ));
    }
    if start {
        restart()?;
        say("the service runs");
    } else {
        say("start it now with: towpath-agent service start");
    }
    Ok(())
}

/// What has a list of its own in the state folder, such as the key that an administrator has made, does not get the folder's. All of
/// it lies in the folder itself, none in a folder below.
fn give_private(state: &Path, account: &str, say: &dyn Fn(&str)) -> Result<()> {
    let unread = |error| failed("reading the state folder failed", error);
    for entry in std::fs::read_dir(state).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let is_file = entry.file_type().map_err(unread)?.is_file();
        // What cannot be asked is tried, and said where that fails as well.
        if is_file && acl::is_protected(&entry.path()).unwrap_or(true) {
            // The service may write here, and could have made a link of the folder meanwhile.
            let change = |also: Allowed<'_>| acl::restrict_to_owner_in(state, &entry.file_name(), also);
            tell(&entry.path(), restrict(&entry.path(), account, Right::Full, &change, say), say);
        }
    }
    Ok(())
}

/// The log file's folder, where it is made here or has a log already; one in which something else lies, or that serves something else
/// (`is_others`), stays open to whom it is.
fn give_log(file: &Path, is_others: bool, account: &str, say: &dyn Fn(&str)) -> Result<()> {
    let Some(folder) = file.parent() else { return Ok(()) };
    let mut is_own = !folder.exists();
    std::fs::create_dir_all(folder).map_err(|error| failed("making the log file's folder failed", error))?;
    let entries = std::fs::read_dir(folder).map_err(|error| failed("reading the log file's folder failed", error))?;
    let mut is_shared = is_others;
    for entry in entries {
        let entry = entry.map_err(|error| failed("reading the log file's folder failed", error))?;
        let is_log = is_of_log(file, &entry.file_name());
        is_own |= is_log;
        is_shared |= !is_log;
    }
    if is_own && !is_shared {
        give(folder, account, Right::Full, say);
        return Ok(());
    }
    say(&format!(
        "note: left {} as it is, because it is not the log's own; {account} has to be let write there, or say [log] file in a folder of \
         its own",
        folder.display()
    ));
    Ok(())
}

fn give(path: &Path, account: &str, right: Right, say: &dyn Fn(&str)) {
    if path.exists() {
        let change = |also: Allowed<'_>| acl::restrict_to_owner(path, also);
        tell(path, restrict(path, account, right, &change, say), say);
    } else {
        say(&format!("note: there is no {}", path.display()));
    }
}

/// What could not be given is said, and the rest is set up all the same.
fn tell(path: &Path, given: io::Result<()>, say: &dyn Fn(&str)) {
    if let Err(error) = given {
        say(&format!("note: who may open {} was not changed: {error}", path.display()));
    }
}

/// An account beside the owner, the system and the administrators.
type Allowed<'a> = Option<(&'a str, Right)>;

/// An account that is not known gets nothing; everybody else is kept out all the same. `change` gives `path` its rights.
fn restrict(
    path: &Path,
    account: &str,
    right: Right,
    change: &dyn Fn(Allowed<'_>) -> io::Result<()>,
    say: &dyn Fn(&str),
) -> io::Result<()> {
    match change(Some((account, right))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            change(None)?;
            say(&format!("note: Windows does not know {account}, which cannot open {}", path.display()));
        }
        Err(error) => return Err(error),
        Ok(()) => {
            let service = if right == Right::Full { "the service" } else { "the service, which may read," };
            say(&format!("made {} accessible for {service} and administrators, and nobody else", path.display()));
        }
    }
    Ok(())
}

/// Stops and removes the service, and nothing else; `false` where there is none.
///
/// # Errors
/// `service-failed`.
pub fn uninstall() -> Result<bool> {
    let there = services::uninstall(SERVICE).map_err(|error| failed("removing the service failed", error))?;
    event_log::unregister(SERVICE).map_err(|error| failed("removing the source of the Event Log failed", error))?;
    Ok(there)
}

/// Starts it and waits until it is ready.
///
/// # Errors
/// `service-failed`.
pub fn start() -> Result<()> {
    services::start(SERVICE).map_err(|error| failed("the service was not started; the reason stands in the Event Log", error))
}

/// Stops it and waits until it has.
///
/// # Errors
/// `service-failed`.
pub fn stop() -> Result<()> {
    services::stop(SERVICE).map_err(|error| failed("the service was not stopped", error))
}

/// Stops it where it runs, starts it and waits until it is ready.
///
/// # Errors
/// `service-failed`.
pub fn restart() -> Result<()> {
    stop().and_then(|()| start())
}

/// How it stands; `None` where it is not installed.
///
/// # Errors
/// `service-failed`.
pub fn status() -> Result<Option<Standing>> {
    services::standing(SERVICE).map_err(|error| failed("asking for the service failed", error))
}

/// Does `work` as the service that Windows has started, with a token that is cancelled when it is to stop. What fails is written to
/// the Event Log.
///
/// # Errors
/// `service-failed` where Windows has not started this process as a service.
pub fn dispatch(work: impl FnOnce(CancellationToken, &dyn Fn()) -> Result<()> + Send + 'static) -> Result<()> {
    let stop = CancellationToken::new();
    let asked = stop.clone();
    let work = move |ready: &dyn Fn()| match work(stop, ready) {
        Ok(()) => true,
        Err(failure) => {
            // There is nobody else to tell than who starts it again.
            let _ = event_log::report(SERVICE, event_log::Level::Error, &failure.report());
            false
        }
    };
    let dispatched = services::dispatch(SERVICE, Arc::new(move || asked.cancel()), Box::new(work));
    dispatched.map_err(|error| {
        failed("this is for Windows, which starts the service; start it with: towpath-agent service start", error)
    })
}

/// `ERROR_ACCESS_DENIED` has its own advice.
fn failed(what: &str, error: io::Error) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied => "; run the same command from a terminal that was opened as administrator",
        io::ErrorKind::NotFound => "; install it with: towpath-agent service install",
        _ => "",
    };
    Failure::park(Code::ServiceFailed, format!("{what}{advice}")).caused_by(error)
}
