//! `NO_PROXY`: hosts that are reached without a proxy.

use std::net::IpAddr;

/// The most entries that are read; what follows is left out, with a warning.
pub const MAX_ENTRIES: usize = 1_000;

/// Hosts that are reached without a proxy: names with their subdomains, addresses, networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NoProxy {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    hosts: Hosts,
    /// `None` for every port.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    Every,
    /// In lower case, without dots at its ends.
    Name(String),
    /// Its first bits; all of them for one address.
    Network(IpAddr, u8),
}

impl NoProxy {
    /// Reads a list separated by commas or blanks. An entry is `*`, a name (`example.com`, `.example.com` and `*.example.com` all
    /// mean that name and those below it), an address, or a network (`10.0.0.0/8`); names and addresses may end with a port.
    /// What is none of these is left out, with a warning.
    pub(super) fn parse(text: &str) -> Self {
        let mut words = text.split([',', ' ', '\t']).filter(|word| !word.is_empty());
        let mut entries = Vec::new();
        for word in words.by_ref().take(MAX_ENTRIES) {
            match Entry::parse(word) {
                Some(entry) => entries.push(entry),
                None => tracing::warn!(entry = word, "an entry of NO_PROXY cannot be read and is left out"),
            }
        }
        if words.next().is_some() {
            tracing::warn!(limit = MAX_ENTRIES, "NO_PROXY has more entries than are read");
        }
        Self { entries }
    }

    /// Whether `host` (a name, or an address without brackets) is one of these at `port`.
    pub(super) fn names(&self, host: &str, port: u16) -> bool {
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        let is = |hosts: &Hosts| match hosts {
            Hosts::Every => true,
            Hosts::Name(parent) => name.strip_suffix(parent.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
            Hosts::Network(network, bits) => address.is_some_and(|address| prefix(address, *bits) == prefix(*network, *bits)),
        };
        self.entries.iter().any(|entry| entry.port.is_none_or(|only| only == port) && is(&entry.hosts))
    }
}

impl Entry {
    fn parse(word: &str) -> Option<Self> {
        if word == "*" {
            return Some(Self { hosts: Hosts::Every, port: None });
        }
        if let Some((network, bits)) = word.split_once('/') {
            let network: IpAddr = network.parse().ok()?;
            let bits: u8 = bits.parse().ok().filter(|bits| *bits <= all_bits(network))?;
            return Some(Self { hosts: Hosts::Network(network, bits), port: None });
        }
        let (host, port) = match word.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, "")) => (address, None),
            Some((address, port)) => (address, Some(port.strip_prefix(':')?.parse().ok()?)),
            // An address of version 6 without brackets has no port, and a name has no colon.
            None if word.parse::<IpAddr>().is_ok() => (word, None),
            None => match word.split_once(':') {
                Some((host, port)) => (host, Some(port.parse().ok()?)),
                None => (word, None),
            },
        };
        if let Ok(address) = host.parse() {
            return Some(Self { hosts: Hosts::Network(address, all_bits(address)), port });
        }
        let name = host.strip_prefix('*').unwrap_or(host).trim_matches('.').to_ascii_lowercase();
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        (!name.is_empty() && name.bytes().all(plain)).then_some(Self { hosts: Hosts::Name(name), port })
    }
}

const fn all_bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The first bits of an address, and its version.
fn prefix(address: IpAddr, bits: u8) -> (bool, u128) {
    let (v4, value) = match address {
        IpAddr::V4(address) => (true, u128::from(u32::from(address)) << 96),
        IpAddr::V6(address) => (false, u128::from(address)),
    };
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    (v4, value & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str, host: &str) -> bool {
        NoProxy::parse(list).names(host, 443)
    }

    #[test]
    fn names_match_themselves_and_what_is_below_them() {
        for list in ["example.com", ".example.com", "*.example.com", "EXAMPLE.com.", "x, example.com", "x\texample.com"] {
            assert!(names(list, "example.com") && names(list, "relay.Example.com."), "{list}");
            assert!(!names(list, "notexample.com") && !names(list, "example.com.org") && !names(list, "com"), "{list}");
        }
        assert!(names("*", "anything") && names("*", "10.0.0.1"));
        assert!(!names("", "example.com") && !names(",, ,", "example.com"));
    }

    #[test]
    fn addresses_networks_and_ports_match() {
        assert!(names("10.1.2.3", "10.1.2.3") && !names("10.1.2.3", "10.1.2.4"));
        assert!(names("10.0.0.0/8", "10.200.0.1") && !names("10.0.0.0/8", "11.0.0.1"));
        assert!(names("0.0.0.0/0", "11.0.0.1") && !names("0.0.0.0/0", "::1") && !names("0.0.0.0/0", "name"));
        assert!(names("fd00::/8", "fd12::1") && !names("fd00::/8", "fe80::1"));
        assert!(names("fd00::1", "fd00::1") && names("[fd00::1]", "fd00::1") && names("[fd00::1]:443", "fd00::1"));
        assert!(names("relay:443", "relay") && !names("relay:444", "relay"));
        assert!(names("10.1.2.3:443", "10.1.2.3") && !names("[fd00::1]:1", "fd00::1"));
    }

    #[test]
    fn what_cannot_be_read_is_left_out_and_the_list_has_an_end() {
        for bad in [
            "10.0.0.0/33",
            "10.0.0.0/x",
            "host/8",
            "relay:port",
            "[fd00::1",
            "[fd00::1]x",
            "a b!",
            "*.",
            "relay:99999",
            "ex*mple",
        ] {
            assert!(NoProxy::parse(bad).entries.iter().all(|e| e.hosts == Hosts::Name("a".into())), "{bad}");
        }
        let many: Vec<String> = (0..=MAX_ENTRIES).map(|n| format!("h{n}")).collect();
        let list = NoProxy::parse(&many.join(","));
        assert_eq!(list.entries.len(), MAX_ENTRIES);
    }
}
