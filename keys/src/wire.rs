//! The data types of SSH (RFC 4251 section 5) that keys and signatures are made of.

/// Reads one value after the other; every method answers `None` where the bytes are not of the expected form.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Exactly the given bytes.
    pub(crate) fn literal(&mut self, expected: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(expected)?;
        Some(())
    }

    pub(crate) fn uint32(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*bytes))
    }

    pub(crate) fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.uint32()?).ok()?;
        let (value, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(value)
    }

    /// A positive integer in its one shortest form, without the leading zero byte that only carries the sign.
    pub(crate) fn positive_mpint(&mut self) -> Option<&'a [u8]> {
        let value = self.string()?;
        match value {
            [0, rest @ ..] if rest.first().is_some_and(|next| *next >= 0x80) => Some(rest),
            [1..=0x7f, ..] => Some(value),
            _ => None,
        }
    }

    /// Nothing may follow.
    pub(crate) fn finish(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// Appends a `string`. A length beyond 32 bits cannot occur: every value written here has a limit far below.
pub(crate) fn put_string(out: &mut Vec<u8>, value: &[u8]) {
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
}

/// Appends a positive `mpint`, given as big-endian bytes.
pub(crate) fn put_mpint(out: &mut Vec<u8>, value: &[u8]) {
    let start = value.iter().position(|byte| *byte != 0).unwrap_or(value.len());
    let digits = value.get(start..).unwrap_or_default();
    if digits.first().is_some_and(|byte| *byte >= 0x80) {
        let mut padded = Vec::with_capacity(digits.len() + 1);
        padded.push(0);
        padded.extend_from_slice(digits);
        put_string(out, &padded);
    } else {
        put_string(out, digits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_one_form() {
        // Examples of RFC 4251 section 5, and forms that it forbids.
        let read = |bytes: &[u8]| {
            let mut out = Vec::new();
            put_string(&mut out, bytes);
            Reader::new(&out).positive_mpint().map(<[u8]>::to_vec)
        };
        assert_eq!(read(&[0x00, 0x80]), Some(vec![0x80]));
        assert_eq!(read(&[0x09, 0xa3]), Some(vec![0x09, 0xa3]));
        for bad in [&[][..], &[0], &[0, 0], &[0, 0x7f], &[0x80], &[0xed, 0xcc]] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
        for value in [&[0x80u8][..], &[0, 0, 1, 0, 1], &[0x7f]] {
            let mut out = Vec::new();
            put_mpint(&mut out, value);
            let mut reader = Reader::new(&out);
            let digits = reader.positive_mpint().unwrap();
            assert!(value.ends_with(digits) && reader.finish().is_some());
        }
    }

    #[test]
    fn nothing_is_read_beyond_the_end() {
        assert_eq!(Reader::new(&[0, 0, 0]).uint32(), None);
        assert_eq!(Reader::new(&[0, 0, 0, 2, 1]).string(), None);
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 1]).string(), None);
        assert_eq!(Reader::new(b"x").finish(), None);
        assert_eq!(Reader::new(b"SSHSI").literal(b"SSHSIG"), None);
    }
}
