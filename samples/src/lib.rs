//! What shows Towpath at work without a real ERP: a sample wholesaler's database, the profile that extracts it, and the
//! demo that runs the three programs over it.

pub mod demo;
pub mod erp;
pub mod ports;
pub mod roles;
