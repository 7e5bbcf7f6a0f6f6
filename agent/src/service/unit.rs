//! The unit of the service, for systemd (`systemd.service(5)`, `systemd.exec(5)`). Works with systemd 247 and newer.

use std::{fmt::Write as _, path::Path};

use towpath_transfer::{Code, Failure, failure::Result};

use super::installation::Installation;

/// The name of the unit.
pub const UNIT: &str = "towpath-agent.service";
/// The pause before the service is started again after it has failed, in seconds. It is tried for ever.
pub const RESTART_SECONDS: u32 = 10;
/// After how many seconds without a sign of life systemd ends the service and starts it again.
pub const WATCHDOG_SECONDS: u32 = 120;
/// How many seconds a start may take: the journal is opened, and, after a crash, repaired.
pub const START_SECONDS: u32 = 300;
/// How many seconds stopping may take before systemd ends the service: more than it takes by itself.
pub const STOP_SECONDS: u32 = 45;

/// What every service of ours is denied; the units of the packages have it as well.
const HARDENING: &str = include_str!("../../../packaging/linux/hardening.conf");

/// The whole text.
///
/// # Errors
/// `service-failed` for a path that cannot stand in a unit.
pub fn text(of: &Installation) -> Result<String> {
    let (executable, config, state) = (quoted(&of.executable)?, argument(&of.config)?, argument(&of.state)?);
    let mut text = format!(
        "# Written by: towpath-agent service install. Change settings with: systemctl edit towpath-agent\n\
         [Unit]\n\
         Description=Towpath agent: sends tables of the ERP and fetches return files\n\
         Documentation=https://github.com/towpath/towpath/blob/main/docs/agent.md\n\
         Wants=network-online.target\n\
         After=network-online.target time-sync.target\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=notify\n\
         NotifyAccess=main\n\
         User={user}\n\
         ExecStart={executable} --config {config} --state {state} run\n\
         ExecReload=/bin/kill -HUP $MAINPID\n\
         Restart=on-failure\n\
         RestartSec={RESTART_SECONDS}\n\
         WatchdogSec={WATCHDOG_SECONDS}\n\
         TimeoutStartSec={START_SECONDS}\n\
         TimeoutStopSec={STOP_SECONDS}\n\
         # Programs that follow a delivery may end by themselves; what is left then is ended with the service.\n\
         KillMode=mixed\n\
         \n\
         # Where it may write. A folder that is missing keeps nothing from starting.\n\
         ReadWritePaths={}\n",
        quoted(&of.state)?,
        user = of.user,
    );
    for folder in &of.writable {
        let _ = writeln!(text, "ReadWritePaths={}", optional(folder)?);
    }
    text.push_str("\n# What it may not do.\nCapabilityBoundingSet=\nAmbientCapabilities=\n");
    text.push_str(HARDENING);
    // Where everything is read-only, a home that must be seen can be.
    let home = if of.sees_below(&["/home", "/root", "/run/user"]) { "read-only" } else { "yes" };
    let tmp = if of.sees_below(&["/tmp", "/var/tmp"]) { "no" } else { "yes" };
    let _ = writeln!(text, "ProtectHome={home}\nPrivateTmp={tmp}");
    if !of.foreign_code {
        text.push_str(
            "# Neither ODBC drivers nor programs of others run here, which may need what these deny.\n\
             MemoryDenyWriteExecute=yes\n\
             ProcSubset=pid\n\
             SystemCallFilter=~@privileged @resources\n",
        );
    }
    text.push_str("\n[Install]\nWantedBy=multi-user.target\n");
    Ok(text)
}

/// As systemd reads a path back that may be missing.
fn optional(path: &Path) -> Result<String> {
    Ok(quoted(path)?.replacen('"', "\"-", 1))
}

/// A path as an argument, in which variables are put in place as well.
pub(crate) fn argument(path: &Path) -> Result<String> {
    Ok(quoted(path)?.replace('$', "$$"))
}

/// As systemd reads it back: quoted, with C's escapes, and `%` doubled (`systemd.syntax(7)`, `systemd.unit(5)`).
fn quoted(path: &Path) -> Result<String> {
    let refused = |why| Failure::park(Code::ServiceFailed, format!("the path {path:?} cannot stand in a unit: {why}"));
    let text = path.to_str().ok_or_else(|| refused("it is not UTF-8"))?;
    if text.chars().any(char::is_control) {
        return Err(refused("it has a control character"));
    }
    if !path.is_absolute() {
        return Err(refused("it is not absolute"));
    }
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%")))
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::{path::PathBuf, process::Command};

    use super::*;
    use crate::config::{Config, LoadedConfig};

    fn installation(folder: &Path, config: &str) -> Installation {
        let file = folder.join("agent.toml");
        let loaded = LoadedConfig { config: Config::parse(config, &file).unwrap(), file };
        Installation::new("/bin/true".into(), &loaded, folder.join("state"), "root")
    }

    const PLAIN: &str = "[[job]]\nname = \"main\"\n[job.source]\nkind = \"postgresql\"\nhost = \"db\"\ndatabase = \"erp\"\nuser = \"u\"\n\
                         password = \"file:erp pw\"\n[[job.table]]\nname = \"items\"\n[[delivery]]\nkind = \"orders\"\nfolder = \"/srv/erp in\"\n";

    #[test]
    fn paths_are_written_as_systemd_reads_them() {
        let cases = [("/a b", "\"/a b\""), ("/50%", "\"/50%%\""), ("/q\"\\", "\"/q\\\"\\\\\"")];
        for (path, text) in cases {
            assert_eq!(quoted(Path::new(path)).unwrap(), text);
        }
        assert_eq!(argument(Path::new("/$HOME")).unwrap(), "\"/$$HOME\"");
        assert_eq!(optional(Path::new("/a b")).unwrap(), "\"-/a b\"");
        for bad in ["relative", "/two\nlines"] {
            assert_eq!(quoted(Path::new(bad)).unwrap_err().code(), Code::ServiceFailed);
        }
    }

    #[test]
    fn the_configuration_says_where_it_may_write_and_what_it_sees() {
        let plain = installation(Path::new("/etc/towpath"), PLAIN);
        assert_eq!(plain.secrets, [PathBuf::from("/etc/towpath/erp pw")].into());
        let unit = text(&plain).unwrap();
        for line in [
            "ExecStart=\"/bin/true\" --config \"/etc/towpath/agent.toml\" --state \"/etc/towpath/state\" run",
            "ReadWritePaths=\"/etc/towpath/state\"",
            "ReadWritePaths=\"-/srv/erp in\"",
            "MemoryDenyWriteExecute=yes",
            "ProtectHome=yes",
            "PrivateTmp=yes",
        ] {
            assert!(unit.lines().any(|one| one == line), "{line} is missing in\n{unit}");
        }
        let program = format!("{PLAIN}[delivery.run]\nprogram = \"/run/user/erp/import\"\n");
        let unit = text(&installation(Path::new("/tmp/x"), &program)).unwrap();
        assert!(!unit.contains("MemoryDenyWriteExecute"), "a program may need memory that it writes and executes");
        assert!(unit.contains("ProtectHome=read-only\nPrivateTmp=no\n"), "{unit}");
        let told = format!(
            "[log]\nfile = \"/var/log/towpath/agent.log\"\n[alert]\nprogram = \"/run/user/erp/tell\"\n\
                            webhook = \"https://x.example\"\nwebhook_secret = \"file:/etc/towpath/hook\"\n{PLAIN}"
        );
        let of = installation(Path::new("/etc/towpath"), &told);
        assert!(of.secrets.contains(Path::new("/etc/towpath/hook")), "{of:#?}");
        assert_eq!((of.programs.len(), of.log.as_deref()), (1, Some(Path::new("/var/log/towpath/agent.log"))));
        assert!(of.others.iter().all(|folder| folder == Path::new("/srv/erp in")), "{of:#?}");
        let unit = text(&of).unwrap();
        assert!(unit.contains("ReadWritePaths=\"-/var/log/towpath\"\n") && unit.contains("ProtectHome=read-only\n"), "{unit}");
        assert!(!unit.contains("MemoryDenyWriteExecute"), "the program that is told is somebody else's");
        let within = installation(Path::new("/etc/towpath"), "[log]\nfile = \"state/agent.log\"\n");
        assert!(within.log.is_none() && within.writable.is_empty(), "the state folder is given as a whole");
        let files =
            "[[job]]\nname = \"f\"\n[job.source]\nkind = \"files\"\nfolder = \"/srv/drop\"\n[[job.table]]\nname = \"items\"\n";
        let unit = text(&installation(Path::new("/etc/towpath"), files)).unwrap();
        assert!(unit.contains("\"-/srv/drop\"\nReadWritePaths=\"-/srv/drop/archive\"\n"), "{unit}");
    }

    /// The first systemd that rates the safety of a file (`systemd-analyze security --offline --threshold`).
    const RATES_FILES: u32 = 250;

    /// What systemd itself says of the unit, where this host has its tool.
    #[test]
    fn systemd_accepts_the_unit_and_finds_it_safe() {
        let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else { return };
        let folder = tempfile::Builder::new().prefix("towpath unit").tempdir().unwrap();
        let file = folder.path().join(UNIT);
        let analyse = |arguments: &[&str]| {
            let output = Command::new("systemd-analyze").args(arguments).arg(&file).output().unwrap();
            let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            (output.status.success(), said)
        };
        std::fs::write(
            &file,
            text(&installation(Path::new("/srv/tow path"), PLAIN)).unwrap().replace("User=root", "User=daemon"),
        )
        .unwrap();
        let (verified, said) = analyse(&["verify"]);
        assert!(verified && !said.contains(UNIT), "{said}");
        // "systemd 252 (252.38-1)"
        let version = String::from_utf8_lossy(&version.stdout);
        let version = version.split(|c: char| !c.is_ascii_digit()).find_map(|digits| digits.parse::<u32>().ok());
        if version.is_none_or(|version| version < RATES_FILES) {
            return;
        }
        let (safe, said) = analyse(&["security", "--offline=true", "--no-pager", "--threshold=15"]);
        assert!(safe, "{said}");
    }
}
