//! The SFTP loop of one channel: one request after the other, replies in the same order.

use std::sync::Arc;

use bytes::Bytes;
use russh_sftp::protocol::{Packet, Version};

use super::{
    intake::Intake,
    operations::Operations,
    outbox::{Gone, Outbox},
    path::PathForm,
    reply::{bad_message, refusal},
    session::Watch,
    vfs::FsError,
};

/// SSH_FXP_INIT, the first request of a channel.
const INIT: u8 = 1;
/// SSH_FXP_OPEN to SSH_FXP_SYMLINK: the requests, as opposed to answers, which a client never sends.
const REQUESTS: std::ops::RangeInclusive<u8> = 3..=20;
/// SSH_FXP_EXTENDED.
const EXTENDED: u8 = 200;
/// SSH_FXP_READ and SSH_FXP_WRITE, whose replies are gathered.
const BULK: std::ops::RangeInclusive<u8> = 5..=6;

/// Serves one channel until its requests end, the peer is gone or the session is over. Whatever is still open then is
/// abandoned, not published.
pub(super) async fn run<P: PathForm>(mut operations: Operations<P>, mut outbox: Outbox, intake: Arc<Intake>, watch: Watch) {
    let mut started = false;
    loop {
        let frame = tokio::select! {
            biased;
            () = watch.stop.cancelled() => break,
            () = watch.revoked.cancelled() => break,
            frame = intake.next() => frame,
        };
        let Some(frame) = frame else { break };
        if watch.is_over() || serve(&mut operations, &mut outbox, &mut started, frame).await.is_err() {
            break;
        }
        if !intake.has_frame() && outbox.flush().await.is_err() {
            break;
        }
    }
    operations.abandon().await;
    outbox.close().await;
}

async fn serve<P: PathForm>(
    operations: &mut Operations<P>,
    outbox: &mut Outbox,
    started: &mut bool,
    frame: Bytes,
) -> Result<(), Gone> {
    if !frame.first().is_some_and(|kind| BULK.contains(kind)) {
        // Anything else may take long, and the replies before it must not wait for that.
        outbox.flush().await?;
    }
    outbox.push(reply_to(operations, started, frame).await?).await
}

/// What a frame is answered with; `Gone` where it ends the channel.
pub(super) async fn reply_to<P: PathForm>(
    operations: &mut Operations<P>,
    started: &mut bool,
    mut frame: Bytes,
) -> Result<Packet, Gone> {
    let kind = frame.first().copied().ok_or(Gone)?;
    if !*started {
        if kind != INIT {
            return Err(Gone);
        }
        *started = true;
        return Ok(Packet::Version(Version { extensions: operations.extensions(), ..Version::new() }));
    }
    let id = frame.get(1..5).and_then(|id| id.try_into().ok()).map(u32::from_be_bytes).ok_or(Gone)?;
    // Answers are refused before they are decoded: their decoders are meant for a trusted server.
    let known = REQUESTS.contains(&kind) || kind == EXTENDED;
    Ok(match known.then(|| Packet::try_from(&mut frame)) {
        Some(Ok(packet)) => {
            operations.answer(packet).await.map_or_else(|error| refusal(id, &error), |reply| reply.into_packet(id))
        }
        Some(Err(_)) => bad_message(id),
        None => refusal(id, &FsError::Unsupported),
    })
}
