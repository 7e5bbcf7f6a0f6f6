//! What shows Towpath at work without a real ERP: a sample wholesaler's database and the profile that extracts it.

pub mod erp;
