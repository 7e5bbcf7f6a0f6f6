//! What to do about a failure, by its code. The failure itself says what is wrong, and often what to do as well.

use towpath_transfer::Code;

/// The ERP's data are files of this host.
pub(super) const ERP_FILE: &str = "see that it is where [job.source] says, and let the user that the agent runs as read it (usermod -aG GROUP USER, \
                                   or setfacl), then: towpath-agent service restart (docs/errors/erp-missing.md)";

/// The service sees the volume read-only, whatever the folder's rights are.
#[cfg(target_os = "linux")]
pub(super) const NOT_OPENED: &str = "the service's unit does not open this folder: towpath-agent service install --now, or ReadWritePaths= in a \
                                     drop-in of the unit (docs/agent.md)";

pub(super) fn of(code: Code) -> String {
    let what = match code {
        Code::ConfigMissing => "set this host up: towpath-agent init (or write one: towpath-agent config example > FILE)",
        Code::ConfigInvalid => "mend the configuration, then: towpath-agent config check",
        Code::NotEnrolled => "ask the relay's operator for a code, then: towpath-agent enrol CODE",
        Code::KeyMissing => "put the key back from your backup; where there is none, enrol anew in a new state folder",
        Code::KeyPermissions => "let only the agent's own user have access to the file that is named",
        Code::HostMoved => "where this host replaces the old one, and that one is off for good: towpath-agent moved",
        Code::SecretUnusable => "make the secret readable for the user that the agent runs as, and for nobody else",
        Code::ErpMissing => "see that the ERP's database runs, and that host, port or path in [job.source] lead to it",
        Code::ErpLocked => "wait until the ERP's own program lets the database go, and try again",
        Code::ErpRefused => "give the login what an extract needs: docs/operations.md, ERP databases",
        Code::ErpQuery => "mend the table's name or query, or let the login read it; towpath-agent extract --check tells each",
        Code::ContractUnmet => "see what is missing: towpath-agent extract --check",
        Code::AuthenticationRefused => "ask the relay's operator whether this agent is still enrolled with the key shown above",
        Code::AgentRevoked => "ask the relay's operator to enrol this host anew",
        Code::HostKeyUnknown => "ask the relay's operator for its host keys; where they were replaced, enrol again",
        Code::ReceiverUnapproved => {
            "compare fingerprints with the receiver's operator, then: towpath-agent receiver approve FINGERPRINT"
        }
        Code::AlertFailed => "let the user that the agent runs as execute the program; then: towpath-agent alert test",
        Code::DeliveryFailed => "make or mount the folder, and let the agent's user write to it",
        Code::DiskFull => "free space, or move what lies on the volume",
        Code::JournalFailed => "see whether the volume of the state folder works; a damaged journal comes back from a backup",
        Code::NotRunning => "start it: towpath-agent service start, or in a terminal: towpath-agent run",
        _ => return format!("see docs/errors/{code}.md"),
    };
    format!("{what} (docs/errors/{code}.md)")
}
