//! What can be typed of what a tenant may have.

use std::{fmt::Display, str::FromStr};

use clap::Args as ClapArgs;
use towpath_host::{Bytes, Pause};

use crate::registry::LimitsChange;

/// What a tenant may have.
#[derive(Debug, ClapArgs)]
pub(super) struct LimitArgs {
    /// What it may have in the spool, such as 50GiB; by default spool.tenant_limit of the configuration. Less than it has already
    /// refuses new uploads and removes nothing.
    #[arg(long, value_name = "SIZE")]
    quota: Option<Setting<Bytes>>,
    /// Room in the spool that is kept for it and that other tenants cannot use up, such as 5GiB; by default none.
    #[arg(long, value_name = "SIZE")]
    reserve: Option<Setting<Bytes>>,
    /// How long a transfer's files stay after its end, such as 30d; by default spool.retention of the configuration.
    #[arg(long, value_name = "TIME")]
    retention: Option<Setting<Pause>>,
    /// How many ended transfers the journal keeps of it, with their receipts; by default uplink.journal_keeps of the configuration.
    #[arg(long, value_name = "NUMBER")]
    journal_keeps: Option<Setting<u64>>,
}

/// A value of its own, or the word `default`.
#[derive(Debug, Clone, Copy)]
enum Setting<T> {
    Default,
    To(T),
}

impl<T: FromStr<Err: Display>> FromStr for Setting<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "default" => Ok(Self::Default),
            own => own.parse().map(Self::To).map_err(|e: T::Err| format!("{e}; or default")),
        }
    }
}

impl<T> Setting<T> {
    fn own<U>(self, to: impl Fn(T) -> U) -> Option<U> {
        match self {
            Self::Default => None,
            Self::To(own) => Some(to(own)),
        }
    }
}

impl LimitArgs {
    pub(super) fn change(self) -> LimitsChange {
        LimitsChange {
            quota: self.quota.map(|quota| quota.own(|bytes| bytes.0)),
            reserve: self.reserve.map(|reserve| reserve.own(|bytes| bytes.0)),
            retention: self.retention.map(|retention| retention.own(|pause| pause.0)),
            journal_keeps: self.journal_keeps.map(|keeps| keeps.own(|number| number)),
        }
    }
}
