//! Services of Windows: made, started and stopped by the service control manager, and what a service says to it.

use std::{
    ffi::OsString,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use windows_service::{
    define_windows_service,
    service::{
        Service, ServiceAccess, ServiceAction, ServiceActionType, ServiceControl, ServiceControlAccept, ServiceErrorControl,
        ServiceExitCode, ServiceFailureActions, ServiceFailureResetPeriod, ServiceInfo, ServiceStartType, ServiceState,
        ServiceStatus, ServiceType,
    },
    service_control_handler::{self, ServiceControlHandlerResult, ServiceStatusHandle},
    service_dispatcher,
    service_manager::{ServiceManager, ServiceManagerAccess},
};

/// After how long Windows starts a service again that has failed: the first time, the second, and from then on.
pub const RESTARTS: [Duration; 3] = [Duration::from_secs(60), Duration::from_secs(5 * 60), Duration::from_secs(15 * 60)];
/// After how long without a failure the next one counts as the first.
pub const FORGIVEN_AFTER: Duration = Duration::from_secs(24 * 3_600);
/// How long starting and stopping may take before Windows thinks that the service hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often a service is asked whether it has started or stopped.
const LOOK: Duration = Duration::from_millis(200);
/// How long it is waited for a database of services that another program has locked.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(30);
/// `ERROR_SERVICE_DATABASE_LOCKED` of winerror.h: another program changes a service just now.
const DATABASE_LOCKED: i32 = 1_055;
/// `ERROR_SERVICE_DOES_NOT_EXIST` of winerror.h.
const DOES_NOT_EXIST: i32 = 1_060;
/// `ERROR_SERVICE_ALREADY_RUNNING` of winerror.h.
const ALREADY_RUNNING: i32 = 1_056;
/// `ERROR_SERVICE_NOT_ACTIVE` of winerror.h.
const NOT_ACTIVE: i32 = 1_062;
/// `ERROR_INVALID_LEVEL` of winerror.h.
const INVALID_LEVEL: i32 = 124;
/// What a service that has failed ends with.
const FAILED: u32 = 1;

/// A service that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewService {
    /// Its short name.
    pub name: String,
    /// The name people see.
    pub title: String,
    /// What it is for.
    pub description: String,
    /// Its program.
    pub executable: PathBuf,
    /// The program's arguments.
    pub arguments: Vec<OsString>,
    /// The account it runs as, such as `NT SERVICE\Name`.
    pub account: String,
}

/// How a service stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Whether it works.
    pub running: bool,
    /// One word of it.
    pub state: &'static str,
    /// Its process.
    pub pid: Option<u32>,
    /// The account it runs as.
    pub account: Option<String>,
    /// Whether it starts with the host.
    pub automatic: bool,
}

/// Makes a service, or changes the one of this name: it starts with the host, after the others, and again after a failure.
///
/// # Errors
/// As Windows reports.
pub fn install(new: &NewService) -> io::Result<()> {
    let info = ServiceInfo {
        name: new.name.clone().into(),
        display_name: new.title.clone().into(),
        service_type: ServiceType::OWN_PROCESS,
        start_type: ServiceStartType::AutoStart,
        error_control: ServiceErrorControl::Normal,
        executable_path: new.executable.clone(),
        launch_arguments: new.arguments.clone(),
        dependencies: Vec::new(),
        account_name: Some(new.account.clone().into()),
        account_password: None,
    };
    let access = ServiceAccess::QUERY_STATUS | ServiceAccess::CHANGE_CONFIG | ServiceAccess::START;
    let manager = manager(ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE)?;
    let service = match open(&manager, &new.name, access)? {
        Some(service) => {
            unlocked(|| service.change_config(&info))?;
            service
        }
        None => unlocked(|| manager.create_service(&info, access))?,
    };
    service.set_description(&new.description).map_err(system)?;
    where_known(service.set_delayed_auto_start(true))?;
    let action = |delay| ServiceAction { action_type: ServiceActionType::Restart, delay };
    let actions = ServiceFailureActions {
        reset_period: ServiceFailureResetPeriod::After(FORGIVEN_AFTER),
        reboot_msg: None,
        command: None,
        actions: Some(RESTARTS.map(action).to_vec()),
    };
    // A host that shuts down waits as long, while plain services get five seconds.
    where_known(service.set_preshutdown_timeout(PATIENCE))?;
    where_known(service.update_failure_actions(actions))?;
    where_known(service.set_failure_actions_on_non_crash_failures(true))
}

/// A system that does not know a setting works without it.
fn where_known(set: windows_service::Result<()>) -> io::Result<()> {
    match set.map_err(system) {
        Err(error) if error.raw_os_error() == Some(INVALID_LEVEL) => Ok(()),
        other => other,
    }
}

/// Stops and removes a service; `false` where there is none.
///
/// # Errors
/// As Windows reports; `TimedOut` where it does not stop.
pub fn uninstall(name: &str) -> io::Result<bool> {
    if standing(name)?.is_none() {
        return Ok(false);
    }
    stop(name)?;
    let manager = manager(ServiceManagerAccess::CONNECT)?;
    if let Some(service) = open(&manager, name, ServiceAccess::DELETE)? {
        unlocked(|| service.delete())?;
    }
    Ok(true)
}

/// Starts a service and waits until it works; one that works already is left alone.
///
/// # Errors
/// As Windows reports; `NotFound` where there is none; `TimedOut` where it does not come so far; `Other` where it ends again.
pub fn start(name: &str) -> io::Result<()> {
    let manager = manager(ServiceManagerAccess::CONNECT)?;
    let service = existing(&manager, name, ServiceAccess::QUERY_STATUS | ServiceAccess::START)?;
    match unlocked(|| service.start::<OsString>(&[])) {
        Err(error) if error.raw_os_error() != Some(ALREADY_RUNNING) => return Err(error),
        _ => {}
    }
    wait(&service, ServiceState::Running, ServiceState::Stopped)
}

/// Stops a service and waits until it has; one that does not run is left alone.
///
/// # Errors
/// As [`start`].
pub fn stop(name: &str) -> io::Result<()> {
    let manager = manager(ServiceManagerAccess::CONNECT)?;
    let service = existing(&manager, name, ServiceAccess::QUERY_STATUS | ServiceAccess::STOP)?;
    match service.stop().map_err(system) {
        Err(error) if error.raw_os_error() == Some(NOT_ACTIVE) => return Ok(()),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    wait(&service, ServiceState::Stopped, ServiceState::Running)
}

/// How a service stands; `None` where there is none.
///
/// # Errors
/// As Windows reports.
pub fn standing(name: &str) -> io::Result<Option<Standing>> {
    let manager = manager(ServiceManagerAccess::CONNECT)?;
    let Some(service) = open(&manager, name, ServiceAccess::QUERY_STATUS | ServiceAccess::QUERY_CONFIG)? else { return Ok(None) };
    let (status, config) = (service.query_status().map_err(system)?, service.query_config().map_err(system)?);
    let state = match status.current_state {
        ServiceState::Running => "running",
        ServiceState::StartPending => "starting",
        ServiceState::StopPending => "stopping",
        ServiceState::Stopped => "stopped",
        _ => "paused",
    };
    Ok(Some(Standing {
        running: status.current_state == ServiceState::Running,
        state,
        pid: status.process_id.filter(|pid| *pid != 0),
        account: config.account_name.map(|name| name.to_string_lossy().into_owned()),
        automatic: config.start_type == ServiceStartType::AutoStart,
    }))
}

/// Waits until it is in `wanted`. That it is in `wrong` after it has been on its way is a failure; before, it may just not have begun.
fn wait(service: &Service, wanted: ServiceState, wrong: ServiceState) -> io::Result<()> {
    let looks = PATIENCE.as_millis() / LOOK.as_millis();
    let mut on_its_way = false;
    for _ in 0..looks {
        let state = service.query_status().map_err(system)?.current_state;
        if state == wanted {
            return Ok(());
        }
        if state == wrong && on_its_way {
            return Err(io::Error::other(format!("the service is {wrong:?} instead of {wanted:?}")));
        }
        on_its_way |= state != wrong;
        #[expect(clippy::disallowed_methods, reason = "looks at another process, which gives no signal")]
        std::thread::sleep(LOOK);
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("the service is not {wanted:?} after {} s", PATIENCE.as_secs())))
}

/// Tries again for [`LOCK_PATIENCE`] while somebody else has locked the database of services, as Windows asks to.
fn unlocked<T>(change: impl Fn() -> windows_service::Result<T>) -> io::Result<T> {
    let looks = LOCK_PATIENCE.as_millis() / LOOK.as_millis();
    for _ in 0..looks {
        match change().map_err(system) {
            Err(error) if error.raw_os_error() == Some(DATABASE_LOCKED) => {}
            other => return other,
        }
        #[expect(clippy::disallowed_methods, reason = "the lock is another program's, which gives no signal")]
        std::thread::sleep(LOOK);
    }
    change().map_err(system)
}

fn manager(access: ServiceManagerAccess) -> io::Result<ServiceManager> {
    ServiceManager::local_computer(None::<&str>, access).map_err(system)
}

fn existing(manager: &ServiceManager, name: &str, access: ServiceAccess) -> io::Result<Service> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "the service is not installed");
    open(manager, name, access)?.ok_or_else(missing)
}

fn open(manager: &ServiceManager, name: &str, access: ServiceAccess) -> io::Result<Option<Service>> {
    match manager.open_service(name, access).map_err(system) {
        Ok(service) => Ok(Some(service)),
        Err(error) if error.raw_os_error() == Some(DOES_NOT_EXIST) => Ok(None),
        Err(error) => Err(error),
    }
}

fn system(error: windows_service::Error) -> io::Error {
    match error {
        windows_service::Error::Winapi(error) => error,
        other => io::Error::other(other),
    }
}

/// What a service does, with what it calls once it works. `false` where it has failed, so that Windows starts it again.
type Work = Box<dyn FnOnce(&dyn Fn()) -> bool + Send>;

/// What is called when Windows wants a service to stop.
type Stop = Arc<dyn Fn() + Send + Sync>;

/// The one service of this process, until Windows starts it.
static SERVICE: Mutex<Option<(String, Stop, Work)>> = Mutex::new(None);

define_windows_service!(entry, main);

/// Does the work of a service that Windows has started. `stop` is called when Windows wants it to stop, or shuts down. Returns when
/// the service has ended.
///
/// # Errors
/// Where this process was not started by the service control manager.
pub fn dispatch(name: &str, stop: Stop, work: Work) -> io::Result<()> {
    *SERVICE.lock().unwrap_or_else(PoisonError::into_inner) = Some((name.to_owned(), stop, work));
    service_dispatcher::start(name, entry).map_err(system)
}

fn main(_: Vec<OsString>) {
    let Some((name, stop, work)) = SERVICE.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    let handle: Arc<Mutex<Option<ServiceStatusHandle>>> = Arc::default();
    let tell = {
        let handle = Arc::clone(&handle);
        move |state, exit| {
            if let Some(handle) = handle.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
                // A manager that is not there any more cannot be told.
                let _ = handle.set_service_status(status(state, exit));
            }
        }
    };
    let on_control = {
        let tell = tell.clone();
        move |control| match control {
            ServiceControl::Stop | ServiceControl::Preshutdown => {
                tell(ServiceState::StopPending, 0);
                stop();
                ServiceControlHandlerResult::NoError
            }
            ServiceControl::Interrogate => ServiceControlHandlerResult::NoError,
            _ => ServiceControlHandlerResult::NotImplemented,
        }
    };
    let Ok(registered) = service_control_handler::register(&name, on_control) else { return };
    *handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(registered);
    tell(ServiceState::StartPending, 0);
    let well = work(&|| tell(ServiceState::Running, 0));
    tell(ServiceState::Stopped, if well { 0 } else { FAILED });
}

fn status(state: ServiceState, exit: u32) -> ServiceStatus {
    let accepted = match state {
        ServiceState::Running => ServiceControlAccept::STOP | ServiceControlAccept::PRESHUTDOWN,
        _ => ServiceControlAccept::empty(),
    };
    let pending = matches!(state, ServiceState::StartPending | ServiceState::StopPending);
    ServiceStatus {
        service_type: ServiceType::OWN_PROCESS,
        current_state: state,
        controls_accepted: accepted,
        exit_code: if exit == 0 { ServiceExitCode::NO_ERROR } else { ServiceExitCode::ServiceSpecific(exit) },
        checkpoint: 0,
        wait_hint: if pending { PATIENCE } else { Duration::ZERO },
        process_id: None,
    }
}
