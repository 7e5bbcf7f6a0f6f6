//! Names and numbers that identify: tenants, agents, jobs, transfers.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::clock::{Clock, Entropy};

/// The longest tenant, agent, receiver or job name, in bytes.
pub const MAX_SLUG_BYTES: usize = 63;

/// A name that is not `[a-z0-9]([a-z0-9-]*[a-z0-9])?` of at most [`MAX_SLUG_BYTES`] bytes, or that is a device of Windows: it is a
/// folder at every end, and a [`crate::FileName`] on the way.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{what} {given:?} is not a valid name: use 1 to {MAX_SLUG_BYTES} lower-case letters, digits and inner hyphens, and no name of a \
     device such as con or com1"
)]
pub struct InvalidSlug {
    what: &'static str,
    given: String,
}

fn check_slug(what: &'static str, text: &str) -> Result<(), InvalidSlug> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let fits = (1..=MAX_SLUG_BYTES).contains(&text.len());
    let plain = text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-');
    if fits && plain && !crate::name::is_device(text) {
        return Ok(());
    }
    let given = text.chars().take(MAX_SLUG_BYTES + 1).collect();
    Err(InvalidSlug { what, given })
}

macro_rules! slug {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String, pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidSlug;

            fn from_str(text: &str) -> Result<Self, InvalidSlug> {
                check_slug($what, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidSlug;

            fn try_from(text: String) -> Result<Self, InvalidSlug> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

slug! {
    /// One customer's instance. Nothing crosses tenants.
    TenantName, "tenant name"
}
slug! {
    /// An agent or a receiver, unique within its tenant.
    AgentName, "agent name"
}
slug! {
    /// One ERP company on an agent's host.
    JobName, "job name"
}
slug! {
    /// What return files are, such as `recommended-orders`: the agent's configuration says for each kind where it is delivered
    /// and what follows.
    ReturnKind, "kind"
}

/// How an enrolled end logs in over SFTP: `<tenant>.<name>`, unique on the relay because a dot is in neither name.
#[must_use]
pub fn sftp_user(tenant: &TenantName, agent: &AgentName) -> String {
    format!("{tenant}.{agent}")
}

/// A transfer's identity: a UUIDv7 (RFC 9562), so that ids sort by the time they were made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")]
pub struct TransferId(Uuid);

/// Text that is not a lower-case, hyphenated UUIDv7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a transfer id is a lower-case UUID of version 7, such as 01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5b")]
pub struct InvalidTransferId;

impl TransferId {
    /// A new id from the given time and randomness.
    #[must_use]
    pub fn new(clock: &dyn Clock, entropy: &dyn Entropy) -> Self {
        let mut random = [0u8; 10];
        entropy.fill(&mut random);
        let millis = u64::try_from(clock.now().as_millisecond()).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }
}

impl FromStr for TransferId {
    type Err = InvalidTransferId;

    /// Accepts exactly the form that [`fmt::Display`] writes, so that one transfer has one name.
    fn from_str(text: &str) -> Result<Self, InvalidTransferId> {
        let id = Uuid::try_parse(text).map_err(|_| InvalidTransferId)?;
        let canonical = id.get_version_num() == 7 && id.hyphenated().to_string() == text;
        if canonical { Ok(Self(id)) } else { Err(InvalidTransferId) }
    }
}

impl TryFrom<String> for TransferId {
    type Error = InvalidTransferId;

    fn try_from(text: String) -> Result<Self, InvalidTransferId> {
        text.parse()
    }
}

impl From<TransferId> for String {
    fn from(id: TransferId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The position of a transfer among all of one agent's transfers of one direction; starts at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct Sequence(pub u64);

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A transfer's full name on a machine that serves several tenants and agents. A transfer id alone never selects
/// anything: a hostile agent can choose another's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferKey {
    /// The tenant that owns the transfer.
    pub tenant: TenantName,
    /// The agent at its ERP end.
    pub agent: AgentName,
    /// The transfer.
    pub id: TransferId,
}

impl fmt::Display for TransferKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tenant, self.agent, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, SeededEntropy};

    #[test]
    fn slugs_refuse_what_could_be_a_path_or_another_name_or_a_device() {
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", "ä", "a b", "..", "con", "nul", "com1", &"a".repeat(64)] {
            assert!(bad.parse::<TenantName>().is_err(), "{bad:?}");
        }
        for good in ["a", "acme", "erp-1", &"a".repeat(63)] {
            assert!(good.parse::<TenantName>().is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_transfer_id_has_one_spelling() {
        let id = TransferId::new(&ManualClock::new(jiff::Timestamp::UNIX_EPOCH), &SeededEntropy::new(1));
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        assert!(text.to_uppercase().parse::<TransferId>().is_err());
        assert!(text.replace('-', "").parse::<TransferId>().is_err());
        assert!("550e8400-e29b-41d4-a716-446655440000".parse::<TransferId>().is_err());
    }
}
