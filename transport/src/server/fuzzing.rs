//! For the fuzz targets: what one SFTP channel answers, without SSH around it.

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{
    handles::HandleBudget,
    intake::Intake,
    limits::Limits,
    operations::Operations,
    packet_loop::reply_to,
    path::PathForm,
    session::Watch,
    vfs::VirtualFs,
    wire::{ReadGate, Surplus},
};

/// What a channel with this view answers to these bytes, which arrive in pieces of `cut` bytes: one frame with its length field for
/// each request, until the channel ends or there is no whole frame any more.
pub async fn answers<P: PathForm>(view: Arc<dyn VirtualFs<P>>, limits: Limits, bytes: &[u8], cut: usize) -> Vec<Bytes> {
    let gate = ReadGate::new(limits.queue_pause_bytes, limits.queue_bytes, Surplus::new(limits.queue_bytes_in_all));
    let intake = Intake::new(limits.frame_bytes, Arc::clone(&gate));
    let watch = Watch { stop: CancellationToken::new(), revoked: CancellationToken::new() };
    let budget = HandleBudget::new(limits.open_handles);
    let mut operations = Operations::new(view, budget, Arc::new(limits), watch);
    for piece in bytes.chunks(cut.max(1)) {
        if intake.push(piece).is_err() {
            break;
        }
    }
    intake.finish();
    let (mut started, mut all) = (false, Vec::new());
    while let Some(frame) = intake.next().await {
        let Ok(reply) = reply_to(&mut operations, &mut started, frame).await else { break };
        let Ok(reply) = Bytes::try_from(reply) else { break };
        all.push(reply);
    }
    operations.abandon().await;
    all
}
