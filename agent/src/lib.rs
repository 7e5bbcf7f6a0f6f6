//! The program on the ERP host: extracts tables, packs and signs them, pushes them to the relay and keeps them until
//! the receiver has signed for the import.

pub mod config;
