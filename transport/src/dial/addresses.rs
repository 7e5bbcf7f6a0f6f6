//! The addresses of a name, of which one may be silent: a firewall drops IPv6, or one of several hosts is off.
//!
//! The next address is begun beside those that have not answered yet, and the first that answers is taken (RFC 8305, "Happy
//! Eyeballs"). Their order is the system's (RFC 6724).

use std::{io, net::SocketAddr, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use towpath_transfer::Clock;

/// How long an address may be silent before the next one is begun beside it: the delay that RFC 8305, section 5 recommends.
pub const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// The most addresses of a name that are tried.
pub const MAX_ADDRESSES: usize = 8;

/// What the first address that answers has answered.
///
/// # Errors
/// What the last one to fail says, where all have failed; `NotFound` where there is none.
pub(super) async fn first_to_answer<T, F: Future<Output = io::Result<T>>>(
    clock: &dyn Clock,
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let mut left = addresses.into_iter().take(MAX_ADDRESSES).peekable();
    let mut begun = FuturesUnordered::new();
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name server knows no address of it");
    loop {
        begun.extend(left.next().map(&connect));
        tokio::select! {
            biased;
            answered = begun.next() => match answered {
                Some(Ok(connected)) => return Ok(connected),
                // Whoever refuses lets the next begin at once.
                Some(Err(error)) => failed = error,
                None => return Err(failed),
            },
            () = clock.sleep(NEXT_ADDRESS), if left.peek().is_some() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future, sync::Mutex};

    use towpath_transfer::clock::ManualClock;

    use super::*;

    fn clock() -> ManualClock {
        ManualClock::new("2026-03-01T12:00:00Z".parse().unwrap())
    }

    /// Addresses that are known by their ports: a thousand and something is silent, two thousand and something refuses.
    async fn answer(address: SocketAddr, begun: &Mutex<Vec<u16>>) -> io::Result<u16> {
        begun.lock().unwrap().push(address.port());
        match address.port() / 1_000 {
            1 => future::pending().await,
            2 => Err(io::ErrorKind::ConnectionRefused.into()),
            _ => Ok(address.port()),
        }
    }

    /// What comes of these addresses while time passes, and which were begun.
    async fn tried(ports: &[u16], looks: u32) -> (Option<io::Result<u16>>, Vec<u16>) {
        let (clock, begun) = (clock(), Mutex::default());
        let addresses = ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect();
        let time = async {
            for _ in 0..looks {
                tokio::task::yield_now().await;
                clock.advance(NEXT_ADDRESS);
            }
            tokio::task::yield_now().await;
        };
        let answered = tokio::select! {
            biased;
            answered = first_to_answer(&clock, addresses, |address| answer(address, &begun)) => Some(answered),
            () = time => None,
        };
        (answered, begun.into_inner().unwrap())
    }

    #[tokio::test]
    async fn a_silent_address_is_not_waited_for() {
        let (answered, begun) = tried(&[1_001, 1_002, 3_001, 3_002], 9).await;
        assert_eq!((answered.unwrap().unwrap(), begun), (3_001, vec![1_001, 1_002, 3_001]));
    }

    #[tokio::test]
    async fn one_that_refuses_lets_the_next_begin_at_once_and_the_last_failure_is_told() {
        let (answered, begun) = tried(&[2_001, 2_002, 3_001], 0).await;
        assert_eq!((answered.unwrap().unwrap(), begun), (3_001, vec![2_001, 2_002, 3_001]));
        let (answered, begun) = tried(&[2_001, 2_002], 0).await;
        assert_eq!((answered.unwrap().unwrap_err().kind(), begun.len()), (io::ErrorKind::ConnectionRefused, 2));
        assert_eq!(tried(&[], 0).await.0.unwrap().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn whoever_is_silent_may_still_answer_and_only_so_many_are_tried() {
        let silent: Vec<u16> = (1_001..1_100).collect();
        let (answered, begun) = tried(&silent, 200).await;
        assert!(answered.is_none(), "the caller's own limit ends it");
        assert_eq!(begun.len(), MAX_ADDRESSES);
        // After one that refuses, those before it are still waited for.
        let (answered, begun) = tried(&[1_001, 2_001], 9).await;
        assert!(answered.is_none() && begun == [1_001, 2_001]);
    }
}
