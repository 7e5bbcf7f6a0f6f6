//! Real database servers for tests: PostgreSQL and MariaDB, started here, on loopback, in a folder of their own.
//!
//! `cargo xtask test` starts one of each and names it in the environment ([`Postgres::VARIABLE`], [`MariaDb::VARIABLE`]), so that
//! all tests share it. A test that is run by hand starts one for itself. Each test makes a database of its own and shares nothing
//! with others. A server ends when its value is dropped, and when the process that has started it ends in whatever way.
//!
//! A server program that is not installed is a panic that says what to install: no test is left out for it.

#![expect(clippy::panic, reason = "a test cannot go on without its server")]
#![expect(clippy::disallowed_methods, reason = "waiting for another program to start takes real time")]

mod mariadb;
mod postgres;
mod process;

pub use self::{
    mariadb::{MariaDb, MariaDbDatabase},
    postgres::{Postgres, PostgresDatabase},
};

/// The password of every login that the servers have; they listen on loopback only and last as long as the tests.
pub const PASSWORD: &str = "for tests; only";
/// A login that may read everything and write nothing.
pub const READER: &str = "reader";
/// A login that may do everything within its database.
pub const WRITER: &str = "writer";
