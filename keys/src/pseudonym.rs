//! Pseudonyms: values of personal data leave the host as keyed hashes only, equal ones as equal ones.

use std::{fmt, io, path::Path};

use ring::hmac;
use towpath_transfer::{Code, Entropy, Failure, digest::Sha256Digest, failure::Result};
use zeroize::Zeroizing;

use crate::{
    file::{self, Access, Existing},
    random,
};

/// Length of the key, in bytes: that of the hash, as RFC 2104 recommends.
pub const KEY_BYTES: usize = 32;
/// Hexadecimal digits of a pseudonym: 128 bits, so that among 10^15 values no two have the same by chance.
pub const PSEUDONYM_DIGITS: usize = 32;

/// The largest key file that is read, in bytes: the digits and a line's end.
const MAX_FILE_BYTES: u64 = 2 * KEY_BYTES as u64 + 2;
/// What is hashed to name a key.
const NAMED: &[u8] = b"towpath pseudonym key";

/// The key of one host's pseudonyms.
///
/// A pseudonym is the first 128 bits of HMAC-SHA-256 (RFC 2104, FIPS 180-4) over a value's text, in lower-case hexadecimal. Whoever
/// has the key can find out by trial which value a pseudonym stands for; without it nobody can, however few values there may be.
#[derive(Clone)]
pub struct PseudonymKey(hmac::Key);

impl PseudonymKey {
    /// Takes a key's bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Reads the key at `path`, or makes one there if there is none: 64 hexadecimal digits, mode 0600. One that is there is never
    /// replaced, not even where another program makes it in the same moment.
    ///
    /// # Errors
    /// [`Code::KeyPermissions`] when group or others have any access, with the command that mends it; [`Code::KeyInvalid`] when
    /// the file is something else; [`Code::FileFailed`]; [`Code::DiskFull`].
    pub fn load_or_create(path: &Path, entropy: &dyn Entropy) -> Result<Self> {
        if let Some(key) = Self::load(path)? {
            return Ok(key);
        }
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        entropy.fill(bytes.as_mut_slice());
        let mut text = Zeroizing::new(String::with_capacity(2 * KEY_BYTES + 1));
        push_hex(bytes.as_slice(), &mut text);
        text.push('\n');
        let tag = random::hex::<8>(entropy);
        match file::write(path, text.as_bytes(), Access::Private, Existing::Keep, &tag) {
            Ok(()) => Ok(Self::from_bytes(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::load(path)?
                .ok_or_else(|| Failure::retry(Code::FileFailed, format!("{} came and went while it was made", path.display()))),
            Err(error) => Err(file::write_failed(path, error)),
        }
    }

    fn load(path: &Path) -> Result<Option<Self>> {
        let Some(text) = file::read(path, Access::Private, MAX_FILE_BYTES)? else { return Ok(None) };
        let invalid = || {
            let form = format!("it holds {} hexadecimal digits and nothing else", 2 * KEY_BYTES);
            Failure::park(Code::KeyInvalid, format!("{} is not a key of pseudonyms: {form}", path.display()))
        };
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        let digits = text.trim_ascii_end();
        if digits.len() != 2 * KEY_BYTES {
            return Err(invalid());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let value = |digit: &u8| char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            let [high, low] = pair else { return Err(invalid()) };
            *byte = value(high).ok_or_else(invalid)? << 4 | value(low).ok_or_else(invalid)?;
        }
        Ok(Some(Self::from_bytes(&bytes)))
    }

    /// Appends the pseudonym of a value: [`PSEUDONYM_DIGITS`] hexadecimal digits.
    pub fn push_pseudonym(&self, value: &str, out: &mut String) {
        let tag = hmac::sign(&self.0, value.as_bytes());
        push_hex(tag.as_ref().get(..PSEUDONYM_DIGITS / 2).unwrap_or_default(), out);
    }

    /// What tells this key from others and says nothing else of it.
    #[must_use]
    pub fn fingerprint(&self) -> Sha256Digest {
        Sha256Digest::of(hmac::sign(&self.0, NAMED).as_ref())
    }
}

/// Never shows the key.
impl fmt::Debug for PseudonymKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PseudonymKey({})", self.fingerprint())
    }
}

fn push_hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        for digit in [byte >> 4, byte & 0xf] {
            out.extend(char::from_digit(digit.into(), 16));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use towpath_transfer::clock::SeededEntropy;

    use super::*;

    fn pseudonym(key: &PseudonymKey, value: &str) -> String {
        let mut out = String::new();
        key.push_pseudonym(value, &mut out);
        out
    }

    #[test]
    fn a_pseudonym_is_the_beginning_of_an_hmac() {
        // `printf Meier | openssl dgst -sha256 -mac HMAC -macopt hexkey:0101…01`
        let key = PseudonymKey::from_bytes(&[1; KEY_BYTES]);
        assert_eq!(pseudonym(&key, "Meier"), "fd05d5da367b52b404d7fed84181abcf");
        assert_eq!(pseudonym(&key, ""), "2e72eb6626e1d4f7fc6dff111585898f");
        assert_ne!(pseudonym(&PseudonymKey::from_bytes(&[2; KEY_BYTES]), "Meier"), pseudonym(&key, "Meier"));
        assert!(!format!("{key:?}").contains("0101"));
    }

    #[test]
    fn a_key_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pseudonym_key");
        let made = PseudonymKey::load_or_create(&path, &SeededEntropy::new(1)).unwrap();
        let again = PseudonymKey::load_or_create(&path, &SeededEntropy::new(2)).unwrap();
        assert_eq!(made.fingerprint(), again.fingerprint());
        assert_eq!(pseudonym(&made, "x"), pseudonym(&again, "x"));
        let other = PseudonymKey::load_or_create(&folder.path().join("other"), &SeededEntropy::new(2)).unwrap();
        assert_ne!(other.fingerprint(), made.fingerprint());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_damaged_or_open_key_is_refused_and_stays() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pseudonym_key");
        let long = "0".repeat(67);
        let wrong = "g".repeat(64);
        for text in ["", "abc\n", &long, &wrong] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let failure = PseudonymKey::load_or_create(&path, &SeededEntropy::new(1)).unwrap_err();
            assert_eq!(failure.code(), Code::KeyInvalid, "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(&path, "0".repeat(64)).unwrap();
        assert!(PseudonymKey::load_or_create(&path, &SeededEntropy::new(1)).is_ok());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let failure = PseudonymKey::load_or_create(&path, &SeededEntropy::new(1)).unwrap_err();
        assert_eq!(failure.code(), Code::KeyPermissions);
        let nowhere = folder.path().join("none/pseudonym_key");
        assert_eq!(PseudonymKey::load_or_create(&nowhere, &SeededEntropy::new(1)).unwrap_err().code(), Code::FileFailed);
    }

    #[test]
    fn of_several_that_make_it_at_once_all_have_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pseudonym_key");
        let made: Vec<Sha256Digest> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|seed| {
                    let path = &path;
                    scope.spawn(move || PseudonymKey::load_or_create(path, &SeededEntropy::new(seed)).unwrap().fingerprint())
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(made.iter().all(|one| *one == made[0]), "{made:?}");
    }
}
