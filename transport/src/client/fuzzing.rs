//! For the fuzz targets: what a server's bytes mean to the SFTP client.

use bytes::Bytes;

use super::wire::{Frames, checked_digest, max_transfer, reply, version};

/// What each frame of a stream means that arrives in pieces of `cut` bytes, in words, and last why it ended, if it was by a mistake.
#[must_use]
pub fn meanings(stream: &[u8], cut: usize) -> Vec<String> {
    let mut frames = Frames::default();
    let mut all = Vec::new();
    for piece in stream.chunks(cut.max(1)) {
        frames.push(piece);
        loop {
            match frames.next() {
                Ok(Some(frame)) => all.push(meaning(frame)),
                Ok(None) => break,
                Err(error) => {
                    all.push(error.to_string());
                    return all;
                }
            }
        }
    }
    all
}

fn meaning(frame: Bytes) -> String {
    let (first, extra) = (version(frame.clone()), (max_transfer(frame.clone()), checked_digest(frame.clone())));
    format!("{first:?} {extra:?} {:?}", reply(frame))
}
