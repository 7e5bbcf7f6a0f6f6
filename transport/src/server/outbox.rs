//! Replies on their way to the peer.

use std::{sync::Arc, task::Poll};

use bytes::{Bytes, BytesMut};
use russh::{ChannelId, server::Handle};
use russh_sftp::protocol::Packet;
use tokio_util::sync::CancellationToken;

use super::wire::{Outflow, ReadGate};

/// Small replies are gathered up to this size before they are sent, so that a pipelining client costs few SSH packets.
const GATHER_BYTES: usize = 32 * 1024;

/// The peer can no longer be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

/// Sends the replies of one SFTP channel in order. The SSH session takes a bounded number of messages, and none while
/// the peer's window is used up; only this side waits for it, never the session.
#[derive(Debug)]
pub(super) struct Outbox {
    channel: ChannelId,
    handle: Handle,
    gate: Arc<ReadGate>,
    outflow: Arc<Outflow>,
    stop: CancellationToken,
    gathered: BytesMut,
}

impl Outbox {
    pub(super) fn new(
        channel: ChannelId,
        handle: Handle,
        gate: Arc<ReadGate>,
        outflow: Arc<Outflow>,
        stop: CancellationToken,
    ) -> Self {
        Self { channel, handle, gate, outflow, stop, gathered: BytesMut::new() }
    }

    /// Adds a reply, and sends when enough is gathered.
    pub(super) async fn push(&mut self, packet: Packet) -> Result<(), Gone> {
        let packet = Bytes::try_from(packet).map_err(|_| Gone)?;
        if self.gathered.is_empty() && packet.len() >= GATHER_BYTES {
            return self.send(packet).await;
        }
        self.gathered.extend_from_slice(&packet);
        if self.gathered.len() >= GATHER_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Sends what is gathered.
    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.gathered).freeze();
        self.send(bytes).await
    }

    /// Ends the channel as a program that has finished well.
    pub(super) async fn close(mut self) {
        let _ = self.flush().await;
        let ending = async {
            self.handle.exit_status_request(self.channel, 0).await?;
            self.handle.eof(self.channel).await?;
            self.handle.close(self.channel).await
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            _ = ending => {}
        }
    }

    async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        let mut sending = std::pin::pin!(async {
            self.outflow.has_room().await;
            self.handle.data(self.channel, bytes).await
        });
        // Only a reply that has to wait opens the gate.
        if let Poll::Ready(sent) = futures::poll!(sending.as_mut()) {
            return sent.map_err(|_| Gone);
        }
        let _waits = self.gate.writer_waits();
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Gone),
            sent = sending => sent.map_err(|_| Gone),
        }
    }
}
