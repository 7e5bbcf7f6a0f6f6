//! What to do about a failure, by its code. The failure itself says what is wrong, and often what to do as well.

use towpath_transfer::Code;

pub(super) fn of(code: Code) -> String {
    let what = match code {
        Code::ConfigMissing => "write one: towpath-agent config example > FILE",
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
