//! What is told where an address cannot be listened on.

use std::{fmt, io};

use towpath_transfer::{Code, Failure};

/// The failure of a program that cannot listen on `address`, with what to do about it; `setting` is where the configuration names the
/// address.
#[must_use]
pub fn failed(address: impl fmt::Display, setting: &str, error: io::Error) -> Failure {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "something listens there already, and `ss -ltnp`, as root, names it: stop that, or give another address in {setting} of the \
             configuration"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("this host has no such address (`ip address` lists them): give another one in {setting} of the configuration")
        }
        io::ErrorKind::PermissionDenied => format!(
            "this user may not listen there, and ports below 1024 are for root and for the package's service (systemctl start): start \
             that, or give another port in {setting} of the configuration"
        ),
        _ => format!("see {setting} of the configuration"),
    };
    Failure::park(Code::ConfigInvalid, format!("listening on {address} failed; {remedy}")).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_taken_is_told_with_who_to_ask() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let report = failed(address, "[relay] listen", std::net::TcpListener::bind(address).unwrap_err()).report();
        assert!(report.starts_with(&format!("listening on {address} failed; something listens there already")), "{report}");
        assert!(
            report.contains("ss -ltnp") && report.contains("[relay] listen") && report.ends_with("[config-invalid]"),
            "{report}"
        );
    }

    #[test]
    fn every_other_reason_names_the_setting_too() {
        for (kind, word) in [
            (io::ErrorKind::AddrNotAvailable, "ip address"),
            (io::ErrorKind::PermissionDenied, "below 1024"),
            (io::ErrorKind::OutOfMemory, "see [landing] listen"),
        ] {
            let report = failed("192.0.2.1:22", "[landing] listen", kind.into()).report();
            assert!(report.contains("192.0.2.1:22") && report.contains(word) && report.contains("[landing] listen"), "{report}");
        }
    }
}
