//! The queue between the SSH session and the SFTP loop: bytes in without ever waiting, whole frames out.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::wire::ReadGate;

/// The length field before each frame (draft-ietf-secsh-filexfer-02 section 3).
const LENGTH_BYTES: usize = 4;
/// Small arrivals share segments of this size, so that many tiny requests cost little more than their bytes.
const SEGMENT_BYTES: usize = 4 * 1024;

/// Why no more bytes are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overrun {
    /// A frame longer than the limit; nothing of it was kept.
    Frame,
    /// More bytes wait than the connection, or the server, may hold.
    Queue,
}

/// One SFTP channel's requests, in order of arrival.
#[derive(Debug)]
pub(super) struct Intake {
    frame_limit: usize,
    gate: Arc<ReadGate>,
    arrived: Notify,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    segments: VecDeque<BytesMut>,
    bytes: usize,
    whole_frames: usize,
    scan: Scan,
    ended: bool,
}

/// How far the frames have been told apart.
#[derive(Debug, Default)]
struct Scan {
    length: [u8; LENGTH_BYTES],
    length_filled: usize,
    missing: usize,
}

impl Intake {
    pub(super) fn new(frame_limit: usize, gate: Arc<ReadGate>) -> Self {
        Self { frame_limit, gate, arrived: Notify::new(), queue: Mutex::default() }
    }

    /// Takes what has arrived; never waits.
    pub(super) fn push(&self, data: &[u8]) -> Result<(), Overrun> {
        let mut queue = self.lock();
        if queue.ended {
            return Ok(());
        }
        let Some(frames) = queue.scan.advance(data, self.frame_limit) else {
            queue.ended = true;
            self.arrived.notify_one();
            return Err(Overrun::Frame);
        };
        queue.append(data);
        queue.whole_frames += frames;
        // Counted before the loop can take it, or the count would go below nothing for a moment.
        let may_wait = self.gate.add(data.len());
        drop(queue);
        if frames > 0 {
            self.arrived.notify_one();
        }
        if may_wait { Ok(()) } else { Err(Overrun::Queue) }
    }

    /// No more will arrive; what is whole is still handed out.
    pub(super) fn finish(&self) {
        self.lock().ended = true;
        self.arrived.notify_one();
    }

    /// The next frame without its length field; `None` when all is handed out and no more will arrive.
    pub(super) async fn next(&self) -> Option<Bytes> {
        loop {
            {
                let mut queue = self.lock();
                if queue.whole_frames > 0 {
                    let frame = queue.take_frame();
                    drop(queue);
                    self.gate.remove(frame.len() + LENGTH_BYTES);
                    return Some(frame);
                }
                if queue.ended {
                    return None;
                }
            }
            self.arrived.notified().await;
        }
    }

    /// Whether a whole frame waits.
    pub(super) fn has_frame(&self) -> bool {
        self.lock().whole_frames > 0
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        // The count belongs to the connection, which may have other channels.
        let left = self.lock().bytes;
        self.gate.remove(left);
    }
}

impl Scan {
    /// How many frames end within `data`; `None` where one is too long.
    fn advance(&mut self, mut data: &[u8], frame_limit: usize) -> Option<usize> {
        let mut frames = 0;
        while !data.is_empty() {
            if self.missing > 0 {
                let taken = self.missing.min(data.len());
                self.missing -= taken;
                data = data.get(taken..).unwrap_or_default();
                frames += usize::from(self.missing == 0);
                continue;
            }
            let (first, rest) = data.split_first()?;
            data = rest;
            *self.length.get_mut(self.length_filled)? = *first;
            self.length_filled += 1;
            if self.length_filled == LENGTH_BYTES {
                self.length_filled = 0;
                self.missing = usize::try_from(u32::from_be_bytes(self.length)).ok().filter(|length| *length <= frame_limit)?;
                frames += usize::from(self.missing == 0);
            }
        }
        Some(frames)
    }
}

impl Queue {
    fn append(&mut self, data: &[u8]) {
        self.bytes += data.len();
        match self.segments.back_mut() {
            Some(last) if last.capacity() - last.len() >= data.len() => last.extend_from_slice(data),
            _ => {
                let mut segment = BytesMut::with_capacity(data.len().max(SEGMENT_BYTES));
                segment.extend_from_slice(data);
                self.segments.push_back(segment);
            }
        }
    }

    fn take_frame(&mut self) -> Bytes {
        self.whole_frames -= 1;
        let mut length = [0u8; LENGTH_BYTES];
        length.copy_from_slice(&self.take(LENGTH_BYTES));
        self.take(usize::try_from(u32::from_be_bytes(length)).unwrap_or(0))
    }

    /// Takes `wanted` bytes, which are there because the frame is whole.
    fn take(&mut self, wanted: usize) -> Bytes {
        self.bytes -= wanted;
        let in_one = self.segments.front().is_some_and(|first| first.len() >= wanted);
        let taken = if in_one {
            self.segments.front_mut().map(|first| first.split_to(wanted)).unwrap_or_default()
        } else {
            let mut gathered = BytesMut::with_capacity(wanted);
            while gathered.len() < wanted {
                let Some(first) = self.segments.front_mut() else { break };
                let part = first.split_to(first.len().min(wanted - gathered.len()));
                gathered.extend_from_slice(&part);
                if first.is_empty() {
                    self.segments.pop_front();
                }
            }
            gathered
        };
        if self.segments.front().is_some_and(BytesMut::is_empty) {
            self.segments.pop_front();
        }
        taken.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::server::wire::Surplus;

    fn intake(frame: usize, queue: usize) -> (Intake, Arc<ReadGate>) {
        let gate = ReadGate::new(usize::MAX, queue, Surplus::new(0));
        (Intake::new(frame, Arc::clone(&gate)), gate)
    }

    fn framed(payload: &[u8]) -> Vec<u8> {
        [&u32::try_from(payload.len()).unwrap().to_be_bytes()[..], payload].concat()
    }

    #[test]
    fn a_frame_over_the_limit_is_told_from_its_length_alone() {
        let (intake, _) = intake(10, 1000);
        assert_eq!(intake.push(&framed(&[1; 10])), Ok(()));
        assert_eq!(intake.push(&[0, 0, 0]), Ok(()));
        assert_eq!(intake.push(&[11]), Err(Overrun::Frame));
        assert_eq!(intake.push(&[1; 500]), Ok(()), "what follows is dropped");
        assert_eq!(intake.lock().bytes, 17);
    }

    #[tokio::test]
    async fn the_bytes_that_wait_are_bounded_and_given_back() {
        let (intake, gate) = intake(100, 250);
        let frame = framed(&[7; 96]);
        assert_eq!(intake.push(&frame), Ok(()));
        assert_eq!(intake.push(&frame), Ok(()));
        assert_eq!(intake.push(&frame), Err(Overrun::Queue));
        assert_eq!(intake.next().await.unwrap().len(), 96);
        assert_eq!(gate.waiting(), 200);
        drop(intake);
        assert_eq!(gate.waiting(), 0);
    }

    #[tokio::test]
    async fn what_is_whole_at_the_end_is_handed_out_and_the_rest_is_not() {
        let (intake, _) = intake(100, 1000);
        intake.push(&framed(b"whole")).unwrap();
        intake.push(&framed(b"broken")[..6]).unwrap();
        intake.finish();
        assert_eq!(&intake.next().await.unwrap()[..], b"whole");
        assert_eq!(intake.next().await, None);
    }

    #[test]
    fn the_count_holds_while_both_sides_are_at_work() {
        let (intake, gate) = intake(100, 1_000_000_000);
        let intake = Arc::new(intake);
        let taking = Arc::clone(&intake);
        let taker = std::thread::spawn(move || {
            futures::executor::block_on(async { while taking.next().await.is_some() {} });
        });
        let frame = framed(&[7; 50]);
        for _ in 0..200_000 {
            assert_eq!(intake.push(&frame), Ok(()));
        }
        intake.finish();
        taker.join().unwrap();
        assert_eq!(gate.waiting(), 0);
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9000), 0..12),
            cuts in proptest::collection::vec(1usize..9000, 1..40),
        ) {
            let (intake, gate) = intake(9000, usize::MAX);
            let stream: Vec<u8> = payloads.iter().flat_map(|payload| framed(payload)).collect();
            let mut rest = &stream[..];
            let mut cuts = cuts.iter().cycle();
            let mut seen = Vec::new();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                intake.push(now).unwrap();
                rest = later;
                if now.len() % 3 == 0 && intake.has_frame() {
                    seen.push(futures::executor::block_on(intake.next()).unwrap().to_vec());
                }
            }
            intake.finish();
            while let Some(frame) = futures::executor::block_on(intake.next()) {
                seen.push(frame.to_vec());
            }
            prop_assert_eq!(seen, payloads);
            prop_assert_eq!(gate.waiting(), 0);
        }
    }
}
