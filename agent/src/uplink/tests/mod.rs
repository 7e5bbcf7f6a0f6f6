//! The stages over parts in memory.

mod crash;
mod dropped;
mod receipts;
mod scheduled;
mod way;
pub(crate) mod world;
