//! For the fuzz targets: the conversations with a proxy, over any stream.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{http_connect, proxy::Proxy, socks5};
use crate::store::StoreResult;

/// Asks an HTTP proxy for a tunnel.
///
/// # Errors
/// What the proxy's answer means.
pub async fn http_tunnel<S>(stream: &mut S, proxy: &Proxy, host: &str, port: u16) -> StoreResult<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    http_connect::open(stream, proxy, proxy.login(), host, port).await
}

/// Asks a SOCKS5 proxy for a tunnel.
///
/// # Errors
/// What the proxy's answer means.
pub async fn socks5_tunnel<S>(stream: &mut S, proxy: &Proxy, host: &str, port: u16) -> StoreResult<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    socks5::open(stream, proxy, proxy.login(), host, port).await
}
