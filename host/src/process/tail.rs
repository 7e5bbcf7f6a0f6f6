//! The end of a text of any length.

/// Keeps the last bytes of what is written to it.
#[derive(Debug)]
pub(super) struct Tail {
    limit: usize,
    kept: Vec<u8>,
    dropped: u64,
}

impl Tail {
    /// Keeps the last `limit` bytes; holds twice as many for a while.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, kept: Vec::new(), dropped: 0 }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let skipped = bytes.len().saturating_sub(self.limit);
        self.kept.extend_from_slice(bytes.get(skipped..).unwrap_or_default());
        self.dropped += skipped as u64;
        if self.kept.len() > self.limit.saturating_mul(2) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let over = self.kept.len().saturating_sub(self.limit);
        self.kept.drain(..over);
        self.dropped += over as u64;
    }

    /// What is kept, with a line about what is not. Bytes that are no UTF-8 are replaced.
    pub(super) fn text(&mut self) -> String {
        self.cut();
        let text = String::from_utf8_lossy(&self.kept);
        if self.dropped == 0 { text.into_owned() } else { format!("[{} earlier bytes are not kept]\n{text}", self.dropped) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_kept() {
        let mut tail = Tail::new(4);
        tail.push(b"ab");
        assert_eq!(tail.text(), "ab");
        tail.push(b"cdef");
        tail.push(b"ghijklmnop\xff");
        assert_eq!(tail.text(), "[13 earlier bytes are not kept]\nnop\u{fffd}");
        for _ in 0..100 {
            tail.push(b"xyz");
        }
        assert!(tail.kept.len() <= 8);
    }
}
