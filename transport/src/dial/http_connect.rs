//! A tunnel through an HTTP proxy: `CONNECT` (RFC 9110 section 9.3.6) with Basic authentication (RFC 7617).
//!
//! The answer is read byte by byte and not one byte further, because what follows it belongs to the tunnel.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{
    authority,
    proxy::{Login, LoginRefused, Proxy},
};
use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// The longest head of an answer, interim answers included, in bytes.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;
/// The most of a proxy's own words that is repeated in a message, in characters.
const MAX_QUOTED: usize = 80;

/// Asks for a tunnel to `host:port`.
pub(super) async fn open<S>(stream: &mut S, proxy: &Proxy, login: Option<&Login>, host: &str, port: u16) -> StoreResult<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let target = authority(host, port);
    let broken = |error| {
        StoreError::new(StoreErrorKind::Unreachable, format!("the proxy {proxy} broke off when asked for {target}"))
            .caused_by(error)
    };
    stream.write_all(request(&target, login).as_bytes()).await.map_err(broken)?;
    let mut left = MAX_HEAD_BYTES;
    let head = loop {
        let bytes = head(stream, &mut left).await.map_err(broken)?;
        let no_http = || {
            StoreError::new(StoreErrorKind::ProxyRefused, format!("what answers at {proxy} is no HTTP proxy: {}", quoted(&bytes)))
        };
        let head = bytes.ends_with(b"\n").then(|| Head::parse(&bytes)).flatten().ok_or_else(no_http)?;
        // Interim answers precede the real one (RFC 9110 section 15.2).
        if head.status / 100 != 1 {
            break head;
        }
    };
    judge(&head, proxy, login, &target)
}

fn request(target: &str, login: Option<&Login>) -> String {
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {}\r\n", super::USER_AGENT);
    if let Some(login) = login {
        let secret = STANDARD.encode(format!("{}:{}", login.user, login.password));
        request.push_str(&format!("Proxy-Authorization: Basic {secret}\r\n"));
    }
    request.push_str("\r\n");
    request
}

/// One head up to its empty line, or as much as `left` allows. Ends of lines may lack the carriage return (RFC 9112 section 2.2).
async fn head<S: AsyncRead + Unpin>(stream: &mut S, left: &mut usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while *left > 0 {
        bytes.push(stream.read_u8().await?);
        *left -= 1;
        if bytes.ends_with(b"\n\r\n") || bytes.ends_with(b"\n\n") {
            return Ok(bytes);
        }
    }
    // Without an end of line this is no head, as the caller sees.
    bytes.push(b'?');
    Ok(bytes)
}

struct Head {
    status: u16,
    reason: String,
    /// The authentication schemes that are offered, as they are spelt.
    schemes: Vec<String>,
}

impl Head {
    /// `None` for what is not HTTP/1.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.lines();
        let mut words = lines.next()?.splitn(3, ' ');
        if !matches!(words.next()?, "HTTP/1.0" | "HTTP/1.1") {
            return None;
        }
        let status = words.next().filter(|status| status.len() == 3 && status.bytes().all(|b| b.is_ascii_digit()))?;
        let status = status.parse().ok().filter(|status| (100..600).contains(status))?;
        let reason = words.next().unwrap_or_default().trim().to_owned();
        let mut schemes: Vec<String> = Vec::new();
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':')?;
            if name.is_empty() || !name.bytes().all(is_token) {
                return None;
            }
            if name.eq_ignore_ascii_case("proxy-authenticate") {
                for scheme in schemes_of(value) {
                    if !schemes.iter().any(|known| known.eq_ignore_ascii_case(&scheme)) {
                        schemes.push(scheme);
                    }
                }
            }
        }
        Some(Self { status, reason, schemes })
    }

    fn offers_basic(&self) -> bool {
        self.schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic"))
    }
}

/// A character of a token (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The schemes of a list of challenges (RFC 9110 section 11.3). Commas separate both challenges and the parameters of one, so what
/// begins like `name=value` is a parameter.
fn schemes_of(value: &str) -> Vec<String> {
    let mut quoted = false;
    let mut escaped = false;
    let parts = value.split(|c: char| {
        let separates = c == ',' && !quoted;
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = c == '\\' && quoted && !escaped;
        separates
    });
    let scheme = |part: &str| {
        let part = part.trim();
        let end = part.bytes().position(|b| !is_token(b)).unwrap_or(part.len());
        let (scheme, rest) = part.split_at_checked(end)?;
        (!scheme.is_empty() && !rest.trim_start().starts_with('=')).then(|| scheme.chars().take(MAX_QUOTED).collect())
    };
    parts.filter_map(scheme).collect()
}

fn judge(head: &Head, proxy: &Proxy, login: Option<&Login>, target: &str) -> StoreResult<()> {
    let answer = format!("{} {}", head.status, quoted(head.reason.as_bytes()));
    let answer = answer.trim_end();
    let refused = |why: String| StoreError::new(StoreErrorKind::ProxyRefused, why);
    let login_refused = |why: String| Err(refused(why).caused_by(LoginRefused(answer.to_owned())));
    match head.status {
        200..300 => Ok(()),
        407 if !head.offers_basic() => {
            let only = OffersOnly(head.schemes.clone());
            let message = format!(
                "the proxy {proxy} wants authentication and {only}, but Towpath speaks Basic: let the proxy's \
                 administrator offer Basic, or allow this host to reach {target} without authentication"
            );
            Err(StoreError::new(StoreErrorKind::ProxyRefused, message).caused_by(only))
        }
        // Some, such as tinyproxy, answer a wrong password with 401.
        401 | 407 if login.is_some() => {
            login_refused(format!("the proxy {proxy} does not accept this user and password{}", offers(head)))
        }
        401 | 407 => login_refused(format!(
            "the proxy {proxy} wants a user and a password{}: set proxy_user and proxy_password",
            offers(head)
        )),
        // It is willing, and did not get there.
        500..600 => Err(StoreError::new(
            StoreErrorKind::Unreachable,
            format!("the proxy {proxy} does not reach {target}: it answers {answer}"),
        )),
        _ => Err(refused(format!("the proxy {proxy} does not let a connection to {target} through: it answers {answer}"))),
    }
}

/// The schemes that a proxy offers, none of which Towpath speaks.
#[derive(Debug, thiserror::Error)]
#[error("offers {}", if .0.is_empty() { "no scheme at all".to_owned() } else { .0.join(", ") })]
pub(super) struct OffersOnly(pub(super) Vec<String>);

fn offers(head: &Head) -> String {
    if head.schemes.is_empty() { String::new() } else { format!(" (it offers {})", head.schemes.join(", ")) }
}

/// A proxy's own words, fit for a message.
fn quoted(bytes: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(bytes).chars().take(MAX_QUOTED).collect();
    text.lines().next().unwrap_or_default().chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// What a proxy that answers so makes of a request; what comes after its answer; what it was asked.
    async fn asked(url: &str, answer: &[u8]) -> (StoreResult<()>, Vec<u8>, String) {
        let proxy = Proxy::parse(url).unwrap();
        let login = proxy.login().cloned();
        let (mut ours, mut theirs) = duplex(64 * 1024);
        theirs.write_all(answer).await.unwrap();
        theirs.shutdown().await.unwrap();
        let opened = open(&mut ours, &proxy, login.as_ref(), "relay.example", 443).await;
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).await.unwrap();
        drop(ours);
        let mut request = String::new();
        theirs.read_to_string(&mut request).await.unwrap();
        (opened, rest, request)
    }

    async fn refused(url: &str, answer: &str) -> (StoreErrorKind, String) {
        let error = asked(url, answer.as_bytes()).await.0.unwrap_err();
        (error.kind(), error.to_string())
    }

    const PROXY: &str = "http://proxy:3128";
    const WITH_LOGIN: &str = "http://user:secret@proxy:3128";

    #[tokio::test]
    async fn the_request_is_as_the_rfc_says() {
        let (opened, _, request) = asked(PROXY, b"HTTP/1.1 200 Connection established\r\n\r\n").await;
        opened.unwrap();
        let expected = format!(
            "CONNECT relay.example:443 HTTP/1.1\r\nHost: relay.example:443\r\nUser-Agent: {}\r\n\r\n",
            super::super::USER_AGENT
        );
        assert_eq!(request, expected);
        let (_, _, request) = asked(WITH_LOGIN, b"HTTP/1.1 200 OK\r\n\r\n").await;
        assert!(request.contains("\r\nProxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n"), "{request}");
    }

    #[tokio::test]
    async fn no_byte_of_the_tunnel_is_lost() {
        for head in [
            "HTTP/1.1 200 Connection established\r\n\r\n",
            "HTTP/1.0 200\r\nVia: x\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 204 \r\n\r\n",
            "HTTP/1.0 200 OK\nServer: old\n\n",
        ] {
            for tunnel in ["SSH-2.0-x\r\n", "\r\n\r\n", "\n", ""] {
                let (opened, rest, _) = asked(PROXY, format!("{head}{tunnel}").as_bytes()).await;
                opened.unwrap();
                assert_eq!(rest, tunnel.as_bytes(), "{head:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_407_says_what_the_proxy_offers() {
        let both = "HTTP/1.1 407 Authenticate\r\nProxy-Authenticate: Negotiate\r\nproxy-authenticate: NTLM, Basic realm=\"a, b=\\\"c\", \
                    Digest qop=\"auth\", nonce = \"x\"\r\nContent-Length: 3\r\n\r\nbye";
        let (kind, said) = refused(PROXY, both).await;
        assert_eq!(kind, StoreErrorKind::ProxyRefused);
        assert!(said.contains("(it offers Negotiate, NTLM, Basic, Digest): set proxy_user"), "{said}");
        let (_, said) = refused(WITH_LOGIN, both).await;
        assert!(said.contains("does not accept this user and password") && !said.contains("secret"), "{said}");
        for only in ["NTLM", "Negotiate\r\nProxy-Authenticate: Kerberos", "Negotiate TlRMTVNTUAAC=="] {
            let (kind, said) = refused(WITH_LOGIN, &format!("HTTP/1.1 407 No\r\nProxy-Authenticate: {only}\r\n\r\n")).await;
            let first = only.split([' ', '\r']).next().unwrap();
            assert_eq!(kind, StoreErrorKind::ProxyRefused);
            assert!(said.contains(&format!("offers {first}")) && said.contains("Towpath speaks Basic"), "{said}");
        }
        let (_, said) = refused(WITH_LOGIN, "HTTP/1.1 407 No\r\n\r\n").await;
        assert!(said.contains("offers no scheme at all"), "{said}");
        let (kind, said) = refused(WITH_LOGIN, "HTTP/1.1 401 Unauthorized\r\n\r\n").await;
        assert_eq!(kind, StoreErrorKind::ProxyRefused);
        assert!(said.ends_with("does not accept this user and password"), "{said}");
    }

    #[tokio::test]
    async fn refusals_and_failures_are_told_apart() {
        for (answer, expected) in [
            ("HTTP/1.1 403 Forbidden \x1b[31m\r\n\r\n", StoreErrorKind::ProxyRefused),
            ("HTTP/1.1 405 Method Not Allowed\r\n\r\n", StoreErrorKind::ProxyRefused),
            ("HTTP/1.1 302 Found\r\nLocation: http://login\r\n\r\n", StoreErrorKind::ProxyRefused),
            ("HTTP/1.1 500 Unable to connect\r\n\r\n", StoreErrorKind::Unreachable),
            ("HTTP/1.1 502 Bad Gateway\r\n\r\n", StoreErrorKind::Unreachable),
            ("HTTP/1.1 504 \r\n\r\n", StoreErrorKind::Unreachable),
            ("", StoreErrorKind::Unreachable),
            ("HTTP/1.1 200 OK\r\nA: b", StoreErrorKind::Unreachable),
        ] {
            let (kind, said) = refused(PROXY, answer).await;
            assert_eq!(kind, expected, "{answer:?}: {said}");
            assert!(!said.contains('\x1b') && said.contains(PROXY), "{said}");
        }
    }

    #[tokio::test]
    async fn what_is_not_http_is_named_and_the_head_has_a_limit() {
        for answer in [
            "SSH-2.0-OpenSSH_9.2\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 +20 OK\r\n\r\n",
            "HTTP/1.1 999 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: x\r\n\r\n",
            "\r\n\r\n\r\n",
        ] {
            let (kind, said) = refused(PROXY, answer).await;
            assert_eq!((kind, said.contains("no HTTP proxy")), (StoreErrorKind::ProxyRefused, true), "{answer:?}: {said}");
        }
        let filled = |len: usize| {
            let head = "HTTP/1.1 200 OK\r\nA: ";
            format!("{head}{}\r\n\r\n", "x".repeat(len - head.len() - 4))
        };
        asked(PROXY, filled(MAX_HEAD_BYTES).as_bytes()).await.0.unwrap();
        let (kind, _) = refused(PROXY, &filled(MAX_HEAD_BYTES + 1)).await;
        assert_eq!(kind, StoreErrorKind::ProxyRefused);
        let (kind, _) = refused(PROXY, &"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000)).await;
        assert_eq!(kind, StoreErrorKind::ProxyRefused);
    }
}
