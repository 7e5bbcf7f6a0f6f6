//! The bytes of a dropped file as text, a block at a time: no byte without a character, and nothing replaced.

use std::io::{self, Read as _};

use encoding_rs::{Decoder, DecoderResult, UTF_16BE, UTF_16LE, WINDOWS_1252};
use oem_cp::code_table::DECODING_TABLE_CP850;
use thiserror::Error;
use towpath_transfer::digest::{Sha256Digest, Sha256Hasher};
use towpath_transport::files::ReadFile;

use crate::config::Encoding;

/// Bytes that are read in one go.
pub(super) const BLOCK_BYTES: usize = 64 * 1024;

/// Bytes for which Windows-1252 has no character (<https://www.unicode.org/Public/MAPPINGS/VENDORS/MICSFT/WINDOWS/CP1252.TXT>);
/// browsers make control characters of them.
const UNDEFINED_1252: [u8; 5] = [0x81, 0x8d, 0x8f, 0x90, 0x9d];
/// The character with which programs of DOS end a text file.
const DOS_END: u8 = 0x1a;

const UTF8_MARK: &[u8] = &[0xef, 0xbb, 0xbf];
const UTF16_LE_MARK: &[u8] = &[0xff, 0xfe];
const UTF16_BE_MARK: &[u8] = &[0xfe, 0xff];

/// Why there is no further text.
#[derive(Debug, Error)]
pub(super) enum Broken {
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are none of the encoding, and what is wrong with them.
    #[error("{0}")]
    Bytes(String),
}

/// A file that is read as text from its start to its end.
pub(super) struct Text {
    file: Box<dyn ReadFile>,
    encoding: Encoding,
    /// For the encodings that keep a state.
    decoder: Option<Decoder>,
    raw: Vec<u8>,
    begun: bool,
    ended: bool,
    /// Found after text that is still good.
    broken: Option<Broken>,
    hasher: Sha256Hasher,
    read: u64,
}

impl Text {
    pub(super) fn new(file: Box<dyn ReadFile>, encoding: Encoding) -> Self {
        let raw = Vec::with_capacity(BLOCK_BYTES);
        let hasher = Sha256Hasher::new();
        Self { file, encoding, decoder: None, raw, begun: false, ended: false, broken: None, hasher, read: 0 }
    }

    /// Puts the next block of text into `out`, of whole characters; false at the end of the file.
    ///
    /// # Errors
    /// [`Broken`], only once everything before it was given out.
    pub(super) fn next(&mut self, out: &mut String) -> Result<bool, Broken> {
        out.clear();
        while out.is_empty() {
            if let Some(broken) = self.broken.take() {
                return Err(broken);
            }
            if self.ended {
                return Ok(false);
            }
            self.fill()?;
            if !std::mem::replace(&mut self.begun, true) {
                self.take_mark()?;
            }
            self.broken = match self.encoding {
                Encoding::Utf8 => self.utf8(out),
                Encoding::Utf16 => self.by_decoder(out, "UTF-16"),
                Encoding::Windows1252 => self.windows_1252(out),
                Encoding::Cp850 => self.cp850(out),
            };
        }
        Ok(true)
    }

    /// The digest of all bytes, and how many they were.
    pub(super) fn finish(self) -> (Sha256Digest, u64) {
        (self.hasher.finish(), self.read)
    }

    /// Reads on behind what was left over, until the block is full or the file ends.
    fn fill(&mut self) -> io::Result<()> {
        let left = self.raw.len();
        let room = BLOCK_BYTES.saturating_sub(left) as u64;
        let count = self.file.by_ref().take(room).read_to_end(&mut self.raw)?;
        self.ended = (count as u64) < room;
        self.hasher.update(self.raw.get(left..).unwrap_or_default());
        self.read += count as u64;
        Ok(())
    }

    /// Takes the byte order mark away, and refuses one of another encoding.
    fn take_mark(&mut self) -> Result<(), Broken> {
        let begins = |mark: &[u8]| self.raw.starts_with(mark);
        let is_utf16 = begins(UTF16_LE_MARK) || begins(UTF16_BE_MARK);
        let wrong = |found: &str| Err(Broken::Bytes(format!("the file begins with the byte order mark of {found}")));
        let mark = match self.encoding {
            Encoding::Utf8 if is_utf16 => return wrong("UTF-16"),
            Encoding::Utf8 if begins(UTF8_MARK) => UTF8_MARK.len(),
            Encoding::Utf16 => {
                let big = begins(UTF16_BE_MARK);
                self.decoder = Some(if big { UTF_16BE } else { UTF_16LE }.new_decoder_without_bom_handling());
                if begins(UTF8_MARK) {
                    return wrong("UTF-8");
                }
                if is_utf16 { UTF16_LE_MARK.len() } else { 0 }
            }
            Encoding::Windows1252 | Encoding::Cp850 if is_utf16 => return wrong("UTF-16"),
            Encoding::Windows1252 | Encoding::Cp850 if begins(UTF8_MARK) => return wrong("UTF-8"),
            _ => 0,
        };
        if self.encoding == Encoding::Windows1252 {
            self.decoder = Some(WINDOWS_1252.new_decoder_without_bom_handling());
        }
        self.raw.drain(..mark);
        Ok(())
    }

    fn utf8(&mut self, out: &mut String) -> Option<Broken> {
        let wrong = match std::str::from_utf8(&self.raw) {
            Ok(text) => {
                out.push_str(text);
                self.raw.clear();
                return None;
            }
            Err(wrong) => wrong,
        };
        let good = self.raw.drain(..wrong.valid_up_to()).collect();
        out.push_str(&String::from_utf8(good).unwrap_or_default());
        // A character whose other bytes are in the next block.
        if wrong.error_len().is_none() && !self.ended {
            return None;
        }
        Some(no_character(self.raw.first().copied(), "UTF-8"))
    }

    fn windows_1252(&mut self, out: &mut String) -> Option<Broken> {
        let undefined = self.raw.iter().position(|byte| UNDEFINED_1252.contains(byte));
        let Some(at) = undefined else { return self.by_decoder(out, "Windows-1252") };
        let byte = self.raw.get(at).copied();
        self.raw.truncate(at);
        self.by_decoder(out, "Windows-1252").or_else(|| Some(no_character(byte, "Windows-1252")))
    }

    /// Every byte has a character in this code page.
    fn cp850(&mut self, out: &mut String) -> Option<Broken> {
        let ends = self.raw.last() == Some(&DOS_END);
        if ends {
            self.raw.pop();
        }
        let high = |byte: u8| DECODING_TABLE_CP850.get(usize::from(byte & 0x7f)).copied();
        out.extend(self.raw.iter().filter_map(|byte| if byte.is_ascii() { Some(char::from(*byte)) } else { high(*byte) }));
        self.raw.clear();
        if ends && !self.ended {
            // Only the last one of the file says that it ends.
            self.raw.push(DOS_END);
        }
        None
    }

    fn by_decoder(&mut self, out: &mut String, name: &str) -> Option<Broken> {
        let decoder = self.decoder.as_mut()?;
        let mut at = 0;
        loop {
            let rest = self.raw.get(at..).unwrap_or_default();
            // Where the need cannot be told the text is decoded in several goes.
            out.reserve(decoder.max_utf8_buffer_length_without_replacement(rest.len()).unwrap_or(BLOCK_BYTES));
            let (result, read) = decoder.decode_to_string_without_replacement(rest, out, self.ended);
            at += read;
            match result {
                DecoderResult::InputEmpty => break,
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(..) => {
                    self.raw.clear();
                    return Some(Broken::Bytes(format!("half a character stands there, which is not {name}")));
                }
            }
        }
        self.raw.clear();
        None
    }
}

fn no_character(byte: Option<u8>, encoding: &str) -> Broken {
    Broken::Bytes(format!("the byte 0x{:02X} is no character of {encoding}", byte.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, path::Path};

    use towpath_transport::files::{FileStore as _, MemoryFiles};

    use super::*;

    fn decode(bytes: &[u8], encoding: Encoding) -> Result<String, String> {
        let files = MemoryFiles::new();
        let path = Path::new("/f");
        files.create(path).unwrap().write_all(bytes).unwrap();
        let mut text = Text::new(files.open(path).unwrap(), encoding);
        let (mut all, mut block) = (String::new(), String::new());
        loop {
            match text.next(&mut block) {
                Ok(true) => all.push_str(&block),
                Ok(false) => break,
                Err(broken) => return Err(format!("{all}|{broken}")),
            }
        }
        assert_eq!(text.finish(), (Sha256Digest::of(bytes), bytes.len() as u64));
        Ok(all)
    }

    #[test]
    fn each_encoding_with_and_without_mark() {
        let said = "aÄ€;𝄞\r\n";
        let utf16 = |to: fn(u16) -> [u8; 2]| said.encode_utf16().flat_map(to).collect::<Vec<u8>>();
        let (little, big) = (utf16(u16::to_le_bytes), utf16(u16::to_be_bytes));
        for (bytes, encoding) in [
            (said.as_bytes().to_vec(), Encoding::Utf8),
            ([UTF8_MARK, said.as_bytes()].concat(), Encoding::Utf8),
            (little.clone(), Encoding::Utf16),
            ([UTF16_LE_MARK, &little].concat(), Encoding::Utf16),
            ([UTF16_BE_MARK, &big].concat(), Encoding::Utf16),
        ] {
            assert_eq!(decode(&bytes, encoding).as_deref(), Ok(said), "{encoding:?}");
        }
        assert_eq!(decode(b"\x80\xc4\xdf\x99\xff", Encoding::Windows1252).as_deref(), Ok("€Äß™ÿ"));
        assert_eq!(decode(b"\x8e\xe1\xd5\x9b\xff", Encoding::Cp850).as_deref(), Ok("Äßıø\u{a0}"));
        for encoding in [Encoding::Utf8, Encoding::Utf16, Encoding::Windows1252, Encoding::Cp850] {
            assert_eq!(decode(b"", encoding).as_deref(), Ok(""));
        }
    }

    #[test]
    fn characters_across_blocks_stay_whole() {
        let said = "x".to_owned() + &"€𝄞".repeat(BLOCK_BYTES / 4);
        assert_eq!(decode(said.as_bytes(), Encoding::Utf8).unwrap(), said);
        let wide: Vec<u8> = said.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(decode(&wide, Encoding::Utf16).unwrap(), said);
        let narrow = vec![0x80; 3 * BLOCK_BYTES];
        assert_eq!(decode(&narrow, Encoding::Windows1252).unwrap(), "€".repeat(3 * BLOCK_BYTES));
        assert_eq!(decode(&narrow, Encoding::Cp850).unwrap(), "Ç".repeat(3 * BLOCK_BYTES));
    }

    #[test]
    fn what_is_no_character_is_told_after_what_is_one() {
        for (bytes, encoding, said) in [
            (b"ab\xff".as_slice(), Encoding::Utf8, "ab|the byte 0xFF is no character of UTF-8"),
            (b"ab\xe2\x82", Encoding::Utf8, "ab|the byte 0xE2 is no character of UTF-8"),
            (b"ab\xc0\x80", Encoding::Utf8, "ab|the byte 0xC0 is no character of UTF-8"),
            (b"\xff\xfea\0", Encoding::Utf8, "|the file begins with the byte order mark of UTF-16"),
            (b"\xef\xbb\xbfa", Encoding::Windows1252, "|the file begins with the byte order mark of UTF-8"),
            (b"\xef\xbb\xbfa", Encoding::Utf16, "|the file begins with the byte order mark of UTF-8"),
            (b"\xfe\xff\0a", Encoding::Cp850, "|the file begins with the byte order mark of UTF-16"),
            (b"ab\x81c", Encoding::Windows1252, "ab|the byte 0x81 is no character of Windows-1252"),
            (b"ab\x9d", Encoding::Windows1252, "ab|the byte 0x9D is no character of Windows-1252"),
            (b"a\0b", Encoding::Utf16, "a|half a character stands there, which is not UTF-16"),
            (b"a\0\x00\xd8b\0", Encoding::Utf16, "a|half a character stands there, which is not UTF-16"),
            (b"a\0\x00\xdc", Encoding::Utf16, "a|half a character stands there, which is not UTF-16"),
        ] {
            assert_eq!(decode(bytes, encoding).unwrap_err(), said);
        }
    }

    #[test]
    fn the_mark_at_the_end_of_a_dos_file_is_no_text() {
        assert_eq!(decode(b"a\r\n\x1a", Encoding::Cp850).as_deref(), Ok("a\r\n"));
        assert_eq!(decode(b"a\x1ab", Encoding::Cp850).as_deref(), Ok("a\u{1a}b"));
        let mut edge = vec![b'a'; BLOCK_BYTES - 1];
        edge.push(DOS_END);
        assert_eq!(decode(&edge, Encoding::Cp850).unwrap().len(), BLOCK_BYTES - 1);
        edge.push(b'b');
        assert_eq!(decode(&edge, Encoding::Cp850).unwrap().len(), BLOCK_BYTES + 1);
        assert_eq!(decode(b"a\x1a", Encoding::Windows1252).as_deref(), Ok("a\u{1a}"));
    }
}
