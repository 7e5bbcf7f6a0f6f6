//! What happened in a simulation, in order and by its own time. Two runs of one seed tell the same, byte for byte.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use towpath_transfer::{Clock as _, TransferId, clock::ManualClock, digest::Sha256Hasher};

/// A story's lines beyond these are counted and not kept.
pub const MAX_LINES: usize = 200_000;

/// The story of one seed. Clones share it.
#[derive(Debug, Clone)]
pub struct Story {
    clock: ManualClock,
    told: Arc<Mutex<Told>>,
    traced: bool,
}

#[derive(Default)]
struct Told {
    lines: Vec<String>,
    left_out: usize,
    names: BTreeMap<TransferId, String>,
    calls: u64,
    trace: Sha256Hasher,
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Told").field("lines", &self.lines.len()).finish_non_exhaustive()
    }
}

impl Story {
    /// An empty story by this clock. Where it is `traced`, it tells every call across a seam.
    #[must_use]
    pub fn new(clock: ManualClock, traced: bool) -> Self {
        Self { clock, told: Arc::default(), traced }
    }

    /// Tells something.
    pub fn tell(&self, what: impl Display) {
        let at = self.clock.monotonic();
        let mut told = self.lock();
        if told.lines.len() < MAX_LINES {
            let line = format!("{:>6}.{:03} s  {what}", at.as_secs(), at.subsec_millis());
            told.lines.push(line);
        } else {
            told.left_out += 1;
        }
    }

    /// Notes a call across a seam, which is too much to be told and must be the same in the same order all the same.
    pub fn trace(&self, what: impl Display) {
        if self.traced {
            self.tell(format_args!("    {what}"));
        }
        let at = self.clock.monotonic();
        let mut told = self.lock();
        told.calls += 1;
        told.trace.update(format!("{} {what}\n", at.as_micros()).as_bytes());
    }

    /// What a transfer is called in the story: short, where it was given a name.
    #[must_use]
    pub fn name(&self, id: TransferId) -> String {
        self.lock().names.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }

    /// Gives a transfer a name, unless it has one.
    pub fn call(&self, id: TransferId, name: impl FnOnce(usize) -> String) {
        let mut told = self.lock();
        let number = told.names.len() + 1;
        told.names.entry(id).or_insert_with(|| name(number));
    }

    /// Everything that was told, and the digest of every call that was made.
    #[must_use]
    pub fn text(&self) -> String {
        let told = self.lock();
        let mut text = told.lines.join("\n");
        text.push('\n');
        if told.left_out > 0 {
            let _ = writeln!(text, "… and {} lines more", told.left_out);
        }
        let _ = writeln!(text, "{} calls across the seams, SHA-256 {}", told.calls, told.trace.clone().finish());
        text
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use towpath_transfer::clock::SeededEntropy;

    use super::*;

    #[test]
    fn it_tells_when_what_happened_and_ends_with_a_digest_of_the_rest() {
        let clock = ManualClock::new("2026-03-01T02:00:00Z".parse().unwrap());
        let story = Story::new(clock.clone(), false);
        let id = TransferId::new(&clock, &SeededEntropy::new(1));
        assert_eq!(story.name(id), id.to_string());
        story.call(id, |number| format!("U{number}"));
        story.call(id, |number| format!("U{number}"));
        clock.advance(Duration::from_millis(61_005));
        story.tell(format_args!("{} is planned", story.name(id)));
        let before = story.text();
        assert!(before.starts_with("    61.005 s  U1 is planned\n0 calls"), "{before}");
        story.trace("something");
        assert_ne!(story.text(), before);
    }

    #[test]
    fn a_story_has_an_end() {
        let story = Story::new(ManualClock::new("2026-03-01T02:00:00Z".parse().unwrap()), false);
        (0..=MAX_LINES).for_each(|n| story.tell(n));
        assert!(story.text().contains("\n… and 1 lines more\n"));
    }
}
