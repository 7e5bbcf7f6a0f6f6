//! For the fuzz targets: plain HTTP over any stream.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::plain_http;

/// Answers one request of plain HTTP.
pub async fn redirect<S: AsyncRead + AsyncWrite + Unpin>(stream: S, public_url: &str, head_time: Duration) {
    plain_http::redirect(stream, public_url, head_time).await;
}
