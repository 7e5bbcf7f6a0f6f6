//! A unit of systemd.

use std::{fs, io, os::unix::fs::symlink, path::Path};

use towpath_transfer::failure::Result;
use towpath_transport::files::file_failure;

use super::{
    super::{Open, public_file},
    kept_program,
};
use crate::service::unit::argument;

/// Its name.
pub(in super::super) const NAME: &str = "towpath-agent-update-run.service";
/// What starts it at boot.
const WANTED: &str = "multi-user.target.wants";

/// An installer must be able to do what an installer does, so less is denied than to other services; no network is among it.
fn text(kept: &Path, open: &Open) -> Result<String> {
    let (program, config, state) = (argument(&kept_program(kept))?, argument(&open.config_file)?, argument(&open.state)?);
    Ok(format!(
        "# Written by towpath-agent for an update that is under way, and removed at its end.\n\
         [Unit]\n\
         Description=Towpath agent: an update that is under way\n\
         Documentation=man:towpath-agent(1)\n\
         After=towpath-agent.service\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         ExecStart={program} --config {config} --state {state} update apply --go-on\n\
         Restart=on-failure\n\
         RestartSec=10\n\
         TimeoutStartSec=5400\n\
         # What an installer does is not interrupted; after that the next start goes on.\n\
         KillMode=mixed\n\
         TimeoutStopSec=960\n\
         NoNewPrivileges=yes\n\
         PrivateNetwork=yes\n\
         PrivateTmp=yes\n\
         ProtectHome=yes\n\
         ProtectKernelTunables=yes\n\
         ProtectKernelModules=yes\n\
         ProtectKernelLogs=yes\n\
         ProtectControlGroups=yes\n\
         ProtectClock=yes\n\
         ProtectHostname=yes\n\
         RestrictNamespaces=yes\n\
         RestrictRealtime=yes\n\
         LockPersonality=yes\n\
         RestrictAddressFamilies=AF_UNIX AF_NETLINK\n\
         SystemCallArchitectures=native\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    ))
}

/// Writes it, durably, and has it started at every boot.
pub(in super::super) fn write(units: &Path, kept: &Path, open: &Open) -> Result<()> {
    let (unit, wanted) = (units.join(NAME), units.join(WANTED));
    public_file::write(&unit, text(kept, open)?.as_bytes(), 0o644)?;
    let failed = |error| file_failure("making", &wanted, error);
    fs::create_dir_all(&wanted).map_err(failed)?;
    match symlink(&unit, wanted.join(NAME)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
        _ => fs::File::open(&wanted).and_then(|folder| folder.sync_all()).map_err(failed),
    }
}

/// Removes it, and the program that it has run.
pub(in super::super) fn remove(units: &Path, kept: &Path) -> Result<()> {
    public_file::remove(&units.join(WANTED).join(NAME))?;
    public_file::remove(&units.join(NAME))?;
    public_file::remove(&kept_program(kept))
}
