//! What states and events say of a transfer.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    digest::Sha256Digest,
    failure::Code,
    name::{FileName, RemotePath},
};

/// Which way a transfer travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the ERP to the app.
    Uplink,
    /// From the app to the ERP.
    Downlink,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uplink => "uplink",
            Self::Downlink => "downlink",
        })
    }
}

/// The two digests that name exactly what travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// SHA-256 of `manifest.json`.
    pub manifest: Sha256Digest,
    /// SHA-256 of `packed.json`.
    pub packed: Sha256Digest,
}

/// Why the end that a transfer is for has refused it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rejection {
    /// The operator error code.
    pub code: Code,
    /// One sentence for a person.
    pub detail: String,
}

/// How a transfer ended, by the word of whoever it was for: the receiver, or the agent on the way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "result", rename_all = "lowercase", deny_unknown_fields)]
pub enum Outcome {
    /// Every table is in the app database.
    Imported,
    /// Every return file was delivered to the ERP, and what is to follow has succeeded.
    Delivered,
    /// Nothing of it is in the app database, or nothing of it was delivered.
    Rejected(Rejection),
}

/// A file that `complete` named and that is not there as named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MissingFile {
    /// The file's name in the transfer's folder.
    pub name: FileName,
    /// What is wrong with it, in a few words.
    pub problem: String,
}

/// What the app server has for the relay to fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Announced {
    /// Where `manifest.json` lies, counted from the landing's folder; every other file of the transfer lies beside it.
    #[schema(value_type = String, max_length = 1024, pattern = "^(.*/)?manifest\\.json$")]
    pub path: RemotePath,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub manifest: Sha256Digest,
}

/// A delivered file and the name it has in the delivery folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlacedFile {
    /// Its name in the manifest.
    pub name: FileName,
    /// Its name in the delivery folder: the same, unless another file has that one.
    pub placed: FileName,
}
