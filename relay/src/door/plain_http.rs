//! Plain HTTP, as a browser on port 80 speaks it: the answer is where the relay's web service is, and nothing else.

use std::{convert::Infallible, time::Duration};

use http::{
    HeaderValue, Request, Response, StatusCode, Uri,
    header::{CONTENT_TYPE, LOCATION},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

/// The largest head of a request, in bytes; hyper takes no smaller limit.
const HEAD_BYTES: usize = 8 * 1024;
/// The longest path that is repeated in the answer, in bytes; a longer one leads to the root.
const PATH_BYTES: usize = 2 * 1024;

/// Answers one request with 308 (RFC 9110 section 15.4.9) to `public_url`, which is `https://host[:port]`. The host that the
/// request names does not count, because anybody may write anything there.
pub(super) async fn redirect<S>(stream: S, public_url: &str, head_time: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(public_url, request.uri());
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head_time).max_buf_size(HEAD_BYTES).keep_alive(false);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a plain HTTP connection broke");
    }
}

fn answer(public_url: &str, asked: &Uri) -> Response<String> {
    let path = asked.path_and_query().map(http::uri::PathAndQuery::as_str);
    let path = path.filter(|path| path.starts_with('/') && path.len() <= PATH_BYTES).unwrap_or("/");
    let target = format!("{public_url}{path}");
    let mut response = Response::new(format!("This is a Towpath relay. Its web service is at {public_url}\n"));
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    // A path that was read is one that can be written, and the URL was checked when the configuration was read.
    if let Ok(location) = HeaderValue::try_from(target) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const URL: &str = "https://relay.example:8443";

    async fn asked(request: &str) -> String {
        let (mut peer, ours) = tokio::io::duplex(64 * 1024);
        peer.write_all(request.as_bytes()).await.unwrap();
        redirect(ours, URL, Duration::from_secs(5)).await;
        let mut answer = String::new();
        peer.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn location(answer: &str) -> Option<&str> {
        answer.lines().find_map(|line| line.strip_prefix("location: "))
    }

    #[tokio::test]
    async fn a_browser_is_led_to_the_public_url() {
        for (line, path) in [
            ("GET / HTTP/1.1", "/"),
            ("GET /healthz?x=1 HTTP/1.1", "/healthz?x=1"),
            ("POST /v1/enrolments HTTP/1.1", "/v1/enrolments"),
            ("GET //evil.example/ HTTP/1.1", "//evil.example/"),
            ("GET http://evil.example/x HTTP/1.1", "/x"),
            ("OPTIONS * HTTP/1.1", "/"),
            ("GET / HTTP/1.0", "/"),
        ] {
            let answer = asked(&format!("{line}\r\nHost: evil.example\r\n\r\n")).await;
            assert!(answer.contains(" 308 Permanent Redirect\r\n"), "{line}: {answer}");
            assert_eq!(location(&answer), Some(format!("{URL}{path}").as_str()), "{line}");
            assert!(answer.contains(&format!("is at {URL}\n")), "{answer}");
        }
        let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(PATH_BYTES));
        assert_eq!(location(&asked(&long).await), Some(format!("{URL}/").as_str()));
    }

    #[tokio::test]
    async fn what_is_no_request_gets_no_redirect_and_the_head_has_a_limit() {
        for bad in ["EHLO relay\r\n\r\n".to_owned(), format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(HEAD_BYTES))] {
            let answer = asked(&bad).await;
            assert!(!answer.contains("308"), "{answer}");
        }
    }

    #[tokio::test]
    async fn one_request_is_answered_and_the_connection_ends() {
        let two = "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_eq!(asked(two).await.matches("HTTP/1.1 308").count(), 1);
    }
}
