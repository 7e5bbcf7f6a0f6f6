//! The chain: each row's hash is over the row and the hash before it, in a form that anybody can compute again.
//!
//! The form is written down in docs/operations.md, "Audit trail".

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towpath_transfer::digest::Sha256Digest;

/// What every hash begins with, so that it is never one of something else.
const DOMAIN: &[u8] = b"towpath-audit@1\n";
/// The hash before the first row: 32 bytes of zero.
pub const FIRST: [u8; 32] = [0; 32];

/// A row as it is stored, whether it fits or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Its number, from 1 and without a gap.
    pub id: i64,
    /// When, in microseconds since 1970; RFC 3339 in JSON.
    #[serde(with = "rfc3339")]
    pub at: i64,
    /// Who: `operator`, `agent`, `receiver`, `relay`, or nothing.
    pub role: String,
    /// The end's name within its tenant, or the operator's.
    pub name: String,
    /// The fingerprint of the key that was proven or offered.
    pub key: String,
    /// Where it came from.
    pub address: String,
    /// Whose things.
    pub tenant: String,
    /// What: the word of an [`super::Action`].
    pub action: String,
    /// More of it, for people.
    pub detail: String,
    /// The transfer's id.
    pub transfer: String,
    /// `ok`, or an error code.
    pub result: String,
    /// The hash, in hexadecimal digits.
    pub hash: String,
}

impl Row {
    /// The hash that the row must have after one with the hash `before`.
    #[must_use]
    pub fn digest(&self, before: &Sha256Digest) -> Sha256Digest {
        let texts = [
            &self.role,
            &self.name,
            &self.key,
            &self.address,
            &self.tenant,
            &self.action,
            &self.detail,
            &self.transfer,
            &self.result,
        ];
        let mut form = Vec::with_capacity(512);
        form.extend_from_slice(DOMAIN);
        form.extend_from_slice(before.as_bytes());
        form.extend_from_slice(&self.id.to_be_bytes());
        form.extend_from_slice(&self.at.to_be_bytes());
        for text in texts {
            form.extend_from_slice(&(text.len() as u64).to_be_bytes());
            form.extend_from_slice(text.as_bytes());
        }
        Sha256Digest::of(&form)
    }
}

mod rfc3339 {
    use jiff::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _, ser::Error as _};

    pub(super) fn serialize<S: Serializer>(at: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        Timestamp::from_microsecond(*at).map_err(S::Error::custom)?.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        let at = Timestamp::deserialize(deserializer)?;
        if at.subsec_nanosecond() % 1_000 != 0 {
            return Err(D::Error::custom("a row's time has whole microseconds"));
        }
        Ok(at.as_microsecond())
    }
}

/// A place in the chain: a row's number and its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The row; 0 before the first one.
    pub id: i64,
    /// Its hash.
    pub hash: Sha256Digest,
}

impl Link {
    /// Before the first row.
    #[must_use]
    pub fn first() -> Self {
        Self { id: 0, hash: Sha256Digest::from_bytes(FIRST) }
    }

    /// What the row says that tells of rows that were removed.
    #[must_use]
    pub fn pruned_detail(&self, why: &str) -> String {
        format!("through {} {} {why}", self.id, self.hash)
    }

    fn of_pruned(detail: &str) -> Option<Self> {
        let mut words = detail.strip_prefix("through ")?.split(' ');
        Some(Self { id: words.next()?.parse().ok()?, hash: words.next()?.parse().ok()? })
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.hash, self.id)
    }
}

impl std::str::FromStr for Link {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('@').and_then(|(hash, id)| Some(Self { id: id.parse().ok()?, hash: hash.parse().ok()? }));
        parsed.ok_or_else(|| "a head is HASH@ID, as `towpath-relay audit verify` prints it".to_owned())
    }
}

/// The first place where a trail is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// The row.
    pub id: i64,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}: {}", self.id, self.why)
    }
}

/// Follows a chain row by row; holds one hash, however long the chain is.
#[derive(Debug, Clone)]
pub struct Verifier {
    anchor: Link,
    head: Link,
    expected: Option<Link>,
    met: bool,
    pruned: Option<Link>,
    rows: u64,
    lost: u64,
}

/// A trail that is what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The rows that were followed.
    pub rows: u64,
    /// The row before the first of them.
    pub after: Link,
    /// The last of them.
    pub head: Link,
    /// How many of them say that rows before them are lost.
    pub lost: u64,
}

impl Verifier {
    /// Begins after `anchor`. `expected` is a head that somebody has noted, which the chain must go through.
    #[must_use]
    pub fn new(anchor: Link, expected: Option<Link>) -> Self {
        Self { anchor, head: anchor, expected, met: expected.is_none_or(|link| link == anchor), pruned: None, rows: 0, lost: 0 }
    }

    /// The next row.
    ///
    /// # Errors
    /// What does not fit.
    pub fn take(&mut self, row: &Row) -> Result<(), Broken> {
        let id = self.head.id.saturating_add(1);
        if row.id != id {
            return Err(Broken { id, why: format!("is missing; row {} follows row {}", row.id, self.head.id) });
        }
        let hash = row.digest(&self.head.hash);
        if row.hash != hash.to_string() {
            return Err(Broken {
                id,
                why: "its hash does not follow from it and the row before: one of the two was changed".to_owned(),
            });
        }
        self.head = Link { id, hash };
        self.rows = self.rows.saturating_add(1);
        match self.expected {
            Some(expected) if expected.id == id && expected.hash != hash => {
                return Err(Broken { id, why: "its hash is not the one that was noted: the trail was written anew".to_owned() });
            }
            Some(expected) if expected.id == id => self.met = true,
            _ => {}
        }
        self.lost = self.lost.saturating_add(u64::from(row.action == super::Action::Lost.as_str()));
        if row.action == super::Action::Pruned.as_str() {
            self.pruned = Link::of_pruned(&row.detail);
        }
        Ok(())
    }

    /// After the last row.
    ///
    /// # Errors
    /// Where the end is missing, or the beginning was removed by somebody else than the relay.
    pub fn finish(self, whole: bool) -> Result<Verified, Broken> {
        if whole && self.anchor.id > 0 && self.pruned != Some(self.anchor) {
            let why = "the rows up to here were removed, and not by the relay: no later row says so".to_owned();
            return Err(Broken { id: self.anchor.id, why });
        }
        match self.expected {
            Some(expected) if !self.met && expected.id > self.head.id => {
                let why = format!("was noted and is not there: the trail ends with row {}", self.head.id);
                Err(Broken { id: expected.id, why })
            }
            Some(expected) if !self.met => {
                let why = "was noted and is not among these rows: they begin later, or it was another one".to_owned();
                Err(Broken { id: expected.id, why })
            }
            _ => Ok(Verified { rows: self.rows, after: self.anchor, head: self.head, lost: self.lost }),
        }
    }
}

/// The first line of an export: the place in the chain after which its rows come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preamble {
    /// The row before the first one that is exported.
    pub after: Link,
}

/// A row's time for people; the bare number where it is no time.
#[must_use]
pub fn time_text(micros: i64) -> String {
    Timestamp::from_microsecond(micros).map_or_else(|_| micros.to_string(), |at| at.to_string())
}
