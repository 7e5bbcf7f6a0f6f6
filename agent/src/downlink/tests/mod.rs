//! The whole way of return files in memory, over a relay that may be stopped, wrong or hostile.

mod between;
mod crash;
mod hostile;
mod offers;
mod way;
pub(crate) mod world;
