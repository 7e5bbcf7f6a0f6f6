//! Ports for servers whose address others must know before they start.

use std::{
    io,
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
};

/// Below the range from which systems take the source ports of connections (RFC 6335 section 6 has it begin at 49152, Linux at
/// 32768), so that no connection can take the port before its server does.
const FIRST: u16 = 10_000;
/// How many ports there are to choose from.
const COUNT: u16 = 20_000;
/// Where one process begins is this far from where the next one does.
const STRIDE: u32 = 16;

/// The next port for this process to try.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port of the loopback address that nobody listens on. Processes that ask at the same time begin at different places.
///
/// # Errors
/// Where every port is taken.
pub fn free_port() -> io::Result<u16> {
    let start = u16::try_from(std::process::id().wrapping_mul(STRIDE) % u32::from(COUNT)).unwrap_or(0);
    for _ in 0..COUNT {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start.wrapping_add(offset) % COUNT);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "every port is taken"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_are_free() {
        let ports = [free_port().unwrap(), free_port().unwrap()];
        assert_ne!(ports[0], ports[1]);
        let held: Vec<TcpListener> = ports.iter().map(|port| TcpListener::bind(("127.0.0.1", *port)).unwrap()).collect();
        let third = free_port().unwrap();
        assert!(!ports.contains(&third));
        drop(held);
    }
}
