//! Receipts: small documents in which one party signs for what it has done with a transfer.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    digest::Sha256Digest,
    failure::Code,
    id::{AgentName, TenantName, TransferId, TransferKey},
    manifest::{Drift, Label},
    public_key::Fingerprint,
    state::{Direction, Outcome, Rejection},
};

/// The largest accepted receipt, in bytes.
pub const MAX_RECEIPT_BYTES: usize = 2 * 1024 * 1024;
/// The largest accepted armoured SSHSIG, in bytes.
pub const MAX_SIGNATURE_BYTES: usize = 8 * 1024;

/// What the signer has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReceiptStage {
    /// The relay holds every file, whole.
    Accepted,
    /// The receiver has imported every table.
    Imported,
    /// The end it is for has taken nothing of it, and says why.
    Rejected,
    /// The agent has delivered every file to the ERP, and what was to follow has succeeded.
    Delivered,
}

impl ReceiptStage {
    /// The stage's one word, also in file names: `<word>.json` and `<word>.json.sig`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Imported => "imported",
            Self::Rejected => "rejected",
            Self::Delivered => "delivered",
        }
    }
}

/// Rows of one table, as the signer counted them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableRows {
    /// The table.
    pub table: Label,
    /// The rows that the app's table has after the import; on a `rejected` receipt those of the file.
    pub rows: u64,
    /// How its columns have changed with this import.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub drift: Vec<Drift>,
}

impl TableRows {
    /// A table whose columns have not changed.
    #[must_use]
    pub fn new(table: Label, rows: u64) -> Self {
        Self { table, rows, drift: Vec::new() }
    }
}

/// One receipt, version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Always 1.
    pub version: u32,
    /// The transfer.
    pub transfer: TransferId,
    /// The tenant it belongs to.
    pub tenant: TenantName,
    /// The agent at its ERP end.
    pub agent: AgentName,
    /// Which way it travels.
    pub direction: Direction,
    /// What the signer has done.
    pub stage: ReceiptStage,
    /// SHA-256 of the `manifest.json` the signer has seen; absent where it could not be read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub manifest: Option<Sha256Digest>,
    /// Rows per table.
    pub rows: Vec<TableRows>,
    /// Why, on a `rejected` receipt and nowhere else.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Rejection>,
    /// When, by the signer's clock.
    pub time: Timestamp,
    /// The key that signs.
    pub signer: Fingerprint,
}

/// Why a receipt was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InvalidReceipt {
    /// Over [`MAX_RECEIPT_BYTES`].
    #[error("the receipt is larger than {MAX_RECEIPT_BYTES} bytes")]
    TooLarge,
    /// Not JSON of this form.
    #[error("the receipt is not of the form of version 1")]
    Json(#[from] serde_json::Error),
    /// Fields that contradict each other.
    #[error("the receipt contradicts itself: {0}")]
    Inconsistent(&'static str),
}

impl Receipt {
    /// Reads and checks a receipt. The signature is the caller's affair.
    ///
    /// # Errors
    /// [`InvalidReceipt`].
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidReceipt> {
        if bytes.len() > MAX_RECEIPT_BYTES {
            return Err(InvalidReceipt::TooLarge);
        }
        let receipt: Self = serde_json::from_slice(bytes)?;
        if receipt.version != 1 {
            return Err(InvalidReceipt::Inconsistent("its version is not 1"));
        }
        if receipt.reason.is_some() != (receipt.stage == ReceiptStage::Rejected) {
            return Err(InvalidReceipt::Inconsistent("a reason belongs to rejected and to nothing else"));
        }
        let way = match receipt.stage {
            ReceiptStage::Accepted | ReceiptStage::Rejected => receipt.direction,
            ReceiptStage::Imported => Direction::Uplink,
            ReceiptStage::Delivered => Direction::Downlink,
        };
        if way != receipt.direction {
            return Err(InvalidReceipt::Inconsistent("its stage does not exist in its direction"));
        }
        if receipt.manifest.is_none() && receipt.stage != ReceiptStage::Rejected {
            return Err(InvalidReceipt::Inconsistent("it names no manifest"));
        }
        Ok(receipt)
    }

    /// The bytes that are signed and sent.
    ///
    /// # Errors
    /// Only where JSON cannot be written, which no value of this type causes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, InvalidReceipt> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Whose transfer this is.
    #[must_use]
    pub fn key(&self) -> TransferKey {
        TransferKey { tenant: self.tenant.clone(), agent: self.agent.clone(), id: self.transfer }
    }

    /// How the transfer ended, where this receipt ends it.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match (self.stage, &self.reason) {
            (ReceiptStage::Imported, _) => Some(Outcome::Imported),
            (ReceiptStage::Delivered, _) => Some(Outcome::Delivered),
            (ReceiptStage::Rejected, Some(reason)) => Some(Outcome::Rejected(reason.clone())),
            (ReceiptStage::Rejected, None) => {
                Some(Outcome::Rejected(Rejection { code: Code::ReceiptInvalid, detail: "without a reason".into() }))
            }
            (ReceiptStage::Accepted, _) => None,
        }
    }
}

/// A receipt's exact bytes and the armoured SSHSIG (namespace `towpath-receipt@1`) over them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedReceipt {
    /// The receipt's JSON, byte for byte as signed.
    #[schema(max_length = 2_097_152)]
    pub receipt: String,
    /// The armoured signature.
    #[schema(max_length = 8192)]
    pub signature: String,
}

impl SignedReceipt {
    /// Reads the receipt, still without regard to the signature.
    ///
    /// # Errors
    /// [`InvalidReceipt`].
    pub fn parse(&self) -> Result<Receipt, InvalidReceipt> {
        if self.signature.len() > MAX_SIGNATURE_BYTES {
            return Err(InvalidReceipt::TooLarge);
        }
        Receipt::parse(self.receipt.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Receipt {
        Receipt {
            version: 1,
            transfer: "01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5b".parse().unwrap(),
            tenant: "acme".parse().unwrap(),
            agent: "erp".parse().unwrap(),
            direction: Direction::Uplink,
            stage: ReceiptStage::Imported,
            manifest: Some(Sha256Digest::of(b"m")),
            rows: vec![TableRows::new("items".parse().unwrap(), 3)],
            reason: None,
            time: Timestamp::UNIX_EPOCH,
            signer: "SHA256:ZkAslGjFiUHdGf/WUL8rQvkib4PTvQatUV0OUQSncCA".parse().unwrap(),
        }
    }

    #[test]
    fn a_receipt_survives_its_bytes_and_contradictions_are_refused() {
        let bytes = sample().to_bytes().unwrap();
        assert_eq!(Receipt::parse(&bytes).unwrap(), sample());
        let reason = Some(Rejection { code: Code::BaseMissing, detail: "no base".into() });
        for bad in [
            Receipt { reason: reason.clone(), ..sample() },
            Receipt { stage: ReceiptStage::Rejected, ..sample() },
            Receipt { manifest: None, ..sample() },
            Receipt { version: 2, ..sample() },
            Receipt { direction: Direction::Downlink, ..sample() },
            Receipt { stage: ReceiptStage::Delivered, ..sample() },
        ] {
            assert!(Receipt::parse(&bad.to_bytes().unwrap()).is_err(), "{bad:?}");
        }
        let delivered = Receipt { stage: ReceiptStage::Delivered, direction: Direction::Downlink, ..sample() };
        assert_eq!(Receipt::parse(&delivered.to_bytes().unwrap()).unwrap().outcome(), Some(Outcome::Delivered));
        let rejected = Receipt { stage: ReceiptStage::Rejected, reason: reason.clone(), manifest: None, ..sample() };
        assert_eq!(rejected.outcome(), reason.map(Outcome::Rejected));
    }
}
