//! `packed.json`, version 1: the packed sizes and digests. Apart from the manifest because return files are packed by
//! the relay, which must not touch what the origin signed.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    digest::Sha256Digest,
    id::TransferId,
    manifest::{MANIFEST_NAME, MAX_FILES, Manifest, SIGNATURE_NAME},
    name::{FileName, InvalidName},
};

/// The name of the packed list in a transfer's folder.
pub const PACKED_NAME: &str = "packed.json";
/// The name of the MD5 list in a transfer's folder.
pub const MD5SUMS_NAME: &str = "MD5SUMS";
/// The suffix of a packed file.
pub const PACKED_SUFFIX: &str = ".bz2";
/// The suffix of a file that is still being written.
pub const PART_SUFFIX: &str = ".part";
/// The largest accepted packed list, in bytes.
pub const MAX_PACKED_LIST_BYTES: usize = 8 * 1024 * 1024;

/// Whether a plain file may not have this name, because the transfer's folder uses it for something else.
#[must_use]
pub fn is_reserved(name: &FileName) -> bool {
    let folded = name.case_folded();
    let own = [MANIFEST_NAME, SIGNATURE_NAME, PACKED_NAME, MD5SUMS_NAME];
    own.iter().any(|n| n.eq_ignore_ascii_case(&folded)) || folded.ends_with(PART_SUFFIX) || folded.starts_with('.')
}

/// The name a plain file travels under.
///
/// # Errors
/// [`InvalidName::TooLong`] where the name with both suffixes would be too long.
pub fn packed_name(plain: &FileName) -> Result<FileName, InvalidName> {
    let packed = plain.with_suffix(PACKED_SUFFIX)?;
    packed.with_suffix(PART_SUFFIX)?;
    Ok(packed)
}

/// Why a packed list was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InvalidPackedList {
    /// Over [`MAX_PACKED_LIST_BYTES`].
    #[error("the packed list is larger than {MAX_PACKED_LIST_BYTES} bytes")]
    TooLarge,
    /// Not JSON of this form.
    #[error("the packed list is not of the form of version 1")]
    Json(#[from] serde_json::Error),
    /// The bytes are not the ones this form has: something has rewritten them.
    #[error("the packed list was altered: its bytes are not in the form in which it is written")]
    NotCanonical,
    /// Fields that contradict each other or the manifest.
    #[error("the packed list does not fit: {0}")]
    Inconsistent(String),
}

/// The packed files of one transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackedList {
    /// Always 1.
    pub version: u32,
    /// The transfer.
    pub transfer: TransferId,
    /// SHA-256 of `manifest.json`.
    pub manifest: Sha256Digest,
    /// The packed files, in the manifest's order.
    pub files: Vec<PackedFile>,
}

/// One packed file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackedFile {
    /// The packed file's name, `<plain name>.bz2`.
    pub name: FileName,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of the packed bytes.
    pub sha256: Sha256Digest,
}

impl PackedList {
    /// Reads and checks a packed list. Nobody signs it, so its bytes must be exactly those that [`Self::to_bytes`] writes.
    ///
    /// # Errors
    /// [`InvalidPackedList`].
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidPackedList> {
        if bytes.len() > MAX_PACKED_LIST_BYTES {
            return Err(InvalidPackedList::TooLarge);
        }
        let list: Self = serde_json::from_slice(bytes)?;
        if list.version != 1 {
            return Err(InvalidPackedList::Inconsistent(format!("it is of version {}", list.version)));
        }
        if list.files.len() > MAX_FILES {
            return Err(InvalidPackedList::Inconsistent(format!("it names more than {MAX_FILES} files")));
        }
        let mut names = HashSet::new();
        if let Some(file) = list.files.iter().find(|f| !names.insert(f.name.case_folded())) {
            return Err(InvalidPackedList::Inconsistent(format!("it names {} twice", file.name)));
        }
        if let Some(file) = list.files.iter().find(|f| is_reserved(&f.name) || !f.name.as_str().ends_with(PACKED_SUFFIX)) {
            return Err(InvalidPackedList::Inconsistent(format!("{} is not the name of a packed file", file.name)));
        }
        if list.to_bytes()? == bytes { Ok(list) } else { Err(InvalidPackedList::NotCanonical) }
    }

    /// The bytes that are sent.
    ///
    /// # Errors
    /// Only where JSON cannot be written, which no value of this type causes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, InvalidPackedList> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Checks that this list is the one of `manifest`, whose digest is `manifest_digest`.
    ///
    /// # Errors
    /// [`InvalidPackedList::Inconsistent`] with the first difference.
    pub fn check_against(&self, manifest: &Manifest, manifest_digest: Sha256Digest) -> Result<(), InvalidPackedList> {
        let differs = |what: String| Err(InvalidPackedList::Inconsistent(what));
        if self.transfer != manifest.transfer {
            return differs(format!("it belongs to transfer {}, the manifest to {}", self.transfer, manifest.transfer));
        }
        if self.manifest != manifest_digest {
            return differs("it was written for another manifest".into());
        }
        let mut listed = self.files.iter();
        for sent in manifest.sent_files() {
            let expected = packed_name(&sent.name).map_err(|e| InvalidPackedList::Inconsistent(e.to_string()))?;
            match listed.next() {
                Some(file) if file.name == expected => {}
                Some(file) => return differs(format!("it names {} where the manifest has {expected}", file.name)),
                None => return differs(format!("{expected} is missing")),
            }
        }
        listed.next().map_or(Ok(()), |file| differs(format!("the manifest does not know {}", file.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (PackedList, Manifest, Sha256Digest) {
        let manifest = crate::manifest::tests::sample();
        let digest = Sha256Digest::of(&manifest.to_bytes().unwrap());
        let file = PackedFile { name: "items.csv.bz2".parse().unwrap(), size: 14, sha256: Sha256Digest::of(b"x") };
        (PackedList { version: 1, transfer: manifest.transfer, manifest: digest, files: vec![file] }, manifest, digest)
    }

    #[test]
    fn only_its_own_bytes_are_accepted() {
        let (list, manifest, digest) = sample();
        let bytes = list.to_bytes().unwrap();
        assert_eq!(PackedList::parse(&bytes).unwrap(), list);
        list.check_against(&manifest, digest).unwrap();
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 0x01;
            let same = PackedList::parse(&altered).is_ok_and(|l| l == list);
            assert!(!same, "byte {at} was altered unseen");
        }
        let spaced = [b" ".as_slice(), &bytes].concat();
        assert!(matches!(PackedList::parse(&spaced), Err(InvalidPackedList::NotCanonical)));
    }

    #[test]
    fn a_list_of_another_manifest_is_refused() {
        let (list, manifest, digest) = sample();
        let changed = |change: fn(&mut PackedList)| {
            let mut other = list.clone();
            change(&mut other);
            other.check_against(&manifest, digest).unwrap_err().to_string()
        };
        assert!(changed(|l| l.manifest = Sha256Digest::of(b"y")).contains("another manifest"));
        assert!(changed(|l| l.files.clear()).contains("is missing"));
        assert!(changed(|l| l.files[0].name = "other.csv.bz2".parse().unwrap()).contains("where the manifest has"));
        assert!(changed(|l| l.files.push(l.files[0].clone())).contains("does not know"));
    }
}
