//! A tunnel through a SOCKS5 proxy (RFC 1928), with user and password where they are configured (RFC 1929).
//!
//! Names are sent as they are: behind such a proxy this host's own resolver often knows no name outside.

use std::{io, net::IpAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{
    authority,
    proxy::{Login, LoginRefused, Proxy},
};
use crate::store::{StoreError, StoreErrorKind, StoreResult};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xff;
const LOGIN_VERSION: u8 = 1;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Asks for a tunnel to `host:port`.
pub(super) async fn open<S>(stream: &mut S, proxy: &Proxy, login: Option<&Login>, host: &str, port: u16) -> StoreResult<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let target = authority(host, port);
    let broken = |error: io::Error| {
        StoreError::new(StoreErrorKind::Unreachable, format!("the proxy {proxy} broke off when asked for {target}"))
            .caused_by(error)
    };
    let no_socks = || StoreError::new(StoreErrorKind::ProxyRefused, format!("what answers at {proxy} is no SOCKS5 proxy"));
    let refused = |why: &str| StoreError::new(StoreErrorKind::ProxyRefused, format!("the proxy {proxy} {why}"));

    let methods: &[u8] =
        if login.is_some() { &[VERSION, 2, NO_AUTHENTICATION, USER_AND_PASSWORD] } else { &[VERSION, 1, NO_AUTHENTICATION] };
    stream.write_all(methods).await.map_err(broken)?;
    let [version, method] = exactly(stream).await.map_err(broken)?;
    if version != VERSION {
        return Err(no_socks());
    }
    match (method, login) {
        (NO_AUTHENTICATION, _) => {}
        (USER_AND_PASSWORD, Some(login)) => {
            stream
                .write_all(&credentials(login).ok_or_else(|| refused("cannot be told so long a user or password"))?)
                .await
                .map_err(broken)?;
            let [version, status] = exactly(stream).await.map_err(broken)?;
            match (version, status) {
                (LOGIN_VERSION, 0) => {}
                (LOGIN_VERSION, _) => {
                    return Err(refused("does not accept this user and password")
                        .caused_by(LoginRefused("that the login is wrong".to_owned())));
                }
                _ => return Err(no_socks()),
            }
        }
        (NO_METHOD, Some(_)) => return Err(refused("accepts neither a user with password nor nobody")),
        (NO_METHOD, None) => {
            let answer = LoginRefused("that it wants a login".to_owned());
            return Err(refused("wants authentication: set proxy_user and proxy_password").caused_by(answer));
        }
        // A method that was not offered.
        _ => return Err(no_socks()),
    }

    let request = request(host, port).ok_or_else(|| refused(&format!("cannot be asked for so long a name: {target}")))?;
    stream.write_all(&request).await.map_err(broken)?;
    let [version, reply, _, kind] = exactly(stream).await.map_err(broken)?;
    if version != VERSION {
        return Err(no_socks());
    }
    if reply != 0 {
        return Err(refusal(reply, proxy, &target));
    }
    // The address at the far side means nothing to us, but it must be read to its end and no further.
    match kind {
        IPV4 => exactly::<_, 6>(stream).await.map(|_| ()),
        IPV6 => exactly::<_, 18>(stream).await.map(|_| ()),
        NAME => {
            let [length] = exactly(stream).await.map_err(broken)?;
            let mut name = vec![0; usize::from(length) + 2];
            stream.read_exact(&mut name).await.map(|_| ())
        }
        _ => return Err(no_socks()),
    }
    .map_err(broken)
}

async fn exactly<S: AsyncRead + Unpin, const N: usize>(stream: &mut S) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Text after its length in one byte; `None` where it is longer than that can say.
fn push_short(to: &mut Vec<u8>, text: &str) -> Option<()> {
    to.push(u8::try_from(text.len()).ok()?);
    to.extend_from_slice(text.as_bytes());
    Some(())
}

fn credentials(login: &Login) -> Option<Vec<u8>> {
    let mut bytes = vec![LOGIN_VERSION];
    push_short(&mut bytes, &login.user)?;
    push_short(&mut bytes, &login.password)?;
    Some(bytes)
}

fn request(host: &str, port: u16) -> Option<Vec<u8>> {
    let mut bytes = vec![VERSION, CONNECT, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            bytes.push(IPV4);
            bytes.extend_from_slice(&address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            bytes.push(IPV6);
            bytes.extend_from_slice(&address.octets());
        }
        Err(_) => {
            bytes.push(NAME);
            push_short(&mut bytes, host)?;
        }
    }
    bytes.extend_from_slice(&port.to_be_bytes());
    Some(bytes)
}

/// RFC 1928 section 6.
fn refusal(reply: u8, proxy: &Proxy, target: &str) -> StoreError {
    let refused = |why: &str| {
        let message = format!("the proxy {proxy} does not let a connection to {target} through: {why}");
        StoreError::new(StoreErrorKind::ProxyRefused, message)
    };
    let unreachable =
        |why: &str| StoreError::new(StoreErrorKind::Unreachable, format!("the proxy {proxy} does not reach {target}: {why}"));
    match reply {
        1 => unreachable("a general failure"),
        2 => refused("its rules do not allow it"),
        3 => unreachable("the network is unreachable"),
        4 => unreachable("the host is unreachable"),
        5 => unreachable("the connection was refused"),
        6 => unreachable("it took too long"),
        7 => refused("it does not know CONNECT"),
        8 => refused("it does not know this kind of address"),
        other => refused(&format!("its answer is {other}")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::{super::Block, *};

    const PROXY: &str = "socks5://proxy";
    const WITH_LOGIN: &str = "socks5://user:secret@proxy";
    const OPEN: &[u8] = &[5, 0, 5, 0, 0, 1, 10, 0, 0, 1, 0, 80];

    /// What a proxy that answers so makes of a request for `host`; what comes after its answer; what it was sent.
    async fn asked(url: &str, host: &str, answer: &[u8]) -> (StoreResult<()>, Vec<u8>, Vec<u8>) {
        let proxy = Proxy::parse(url).unwrap();
        let login = proxy.login().cloned();
        let (mut ours, mut theirs) = duplex(64 * 1024);
        theirs.write_all(answer).await.unwrap();
        theirs.shutdown().await.unwrap();
        let opened = open(&mut ours, &proxy, login.as_ref(), host, 443).await;
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).await.unwrap();
        drop(ours);
        let mut sent = Vec::new();
        theirs.read_to_end(&mut sent).await.unwrap();
        (opened, rest, sent)
    }

    async fn refused(url: &str, answer: &[u8]) -> (StoreErrorKind, String) {
        let error = asked(url, "relay", answer).await.0.unwrap_err();
        (error.kind(), error.to_string())
    }

    #[tokio::test]
    async fn what_is_sent_is_as_the_rfcs_say() {
        let (opened, _, sent) = asked(PROXY, "relay", OPEN).await;
        opened.unwrap();
        assert_eq!(sent, [&[5, 1, 0, 5, 1, 0, 3, 5][..], b"relay", &[1, 187]].concat());
        let (opened, _, sent) = asked(WITH_LOGIN, "10.1.2.3", &[&[5, 2, 1, 0][..], &OPEN[2..]].concat()).await;
        opened.unwrap();
        assert_eq!(sent, [&[5, 2, 0, 2, 1, 4][..], b"user", &[6], b"secret", &[5, 1, 0, 1, 10, 1, 2, 3, 1, 187]].concat());
        let (_, _, sent) = asked(WITH_LOGIN, "fd00::1", OPEN).await;
        let address = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(sent, [&[5, 2, 0, 2, 5, 1, 0, 4][..], &address, &[1, 187]].concat(), "nobody asked for the password");
    }

    #[tokio::test]
    async fn no_byte_of_the_tunnel_is_lost() {
        let v6 = [&[5, 0, 5, 0, 0, 4][..], &[0; 18]].concat();
        let name = [&[5, 0, 5, 0, 0, 3, 3][..], b"abc", &[0, 1]].concat();
        let no_name = vec![5, 0, 5, 0, 0, 3, 0, 0, 1];
        for answer in [OPEN.to_vec(), v6, name, no_name] {
            for tunnel in [&b"SSH-2.0-x\r\n"[..], b""] {
                let (opened, rest, _) = asked(PROXY, "relay", &[&answer, tunnel].concat()).await;
                opened.unwrap();
                assert_eq!(rest, tunnel);
            }
        }
    }

    #[tokio::test]
    async fn every_refusal_says_why() {
        for (url, answer, word) in [
            (PROXY, &[5, 0xff][..], "set proxy_user"),
            (WITH_LOGIN, &[5, 0xff], "neither"),
            (WITH_LOGIN, &[5, 2, 1, 1], "does not accept this user"),
            (PROXY, &[5, 0, 5, 2, 0, 1], "rules"),
            (PROXY, &[5, 0, 5, 7, 0, 1], "CONNECT"),
            (PROXY, &[5, 0, 5, 8, 0, 1], "kind of address"),
            (PROXY, &[5, 0, 5, 99, 0, 1], "99"),
        ] {
            let (kind, said) = refused(url, answer).await;
            assert_eq!(kind, StoreErrorKind::ProxyRefused, "{said}");
            let wants_login = word == "set proxy_user" || word == "does not accept this user";
            assert_eq!(Block::of(&asked(url, "relay", answer).await.0.unwrap_err()) == Block::ProxyLogin, wants_login, "{said}");
            assert!(said.contains(word) && said.contains("socks5://proxy:1080") && !said.contains("secret"), "{said}");
        }
        for reply in [1, 3, 4, 5, 6] {
            assert_eq!(refused(PROXY, &[5, 0, 5, reply, 0, 1]).await.0, StoreErrorKind::Unreachable);
        }
        let long = "x".repeat(256);
        assert_eq!(asked(PROXY, &long, OPEN).await.0.unwrap_err().kind(), StoreErrorKind::ProxyRefused);
    }

    #[tokio::test]
    async fn what_is_not_socks_is_named_and_what_breaks_off_is_unreachable() {
        for answer in
            [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[4, 0], &[5, 2], &[5, 1], &[5, 0, 4, 0, 0, 1], &[5, 0, 5, 0, 0, 9, 0, 0]]
        {
            let (kind, said) = refused(PROXY, answer).await;
            assert_eq!((kind, said.contains("no SOCKS5 proxy")), (StoreErrorKind::ProxyRefused, true), "{answer:?}: {said}");
        }
        assert!(refused(WITH_LOGIN, &[5, 2, 5, 0]).await.1.contains("no SOCKS5 proxy"));
        for answer in [&[][..], &[5], &[5, 0], &[5, 0, 5, 0, 0, 1, 10], &[5, 0, 5, 0, 0, 3, 9, 1], &[5, 0, 5, 0, 0, 3]] {
            assert_eq!(refused(PROXY, answer).await.0, StoreErrorKind::Unreachable, "{answer:?}");
        }
    }
}
