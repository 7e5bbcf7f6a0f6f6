//! The suite of every source, and the torture tables, against the drivers that Debian has: psqlodbc, MariaDB Connector/ODBC and
//! SQLite's. What a driver cannot do stands here by name.

mod benches;
mod failures;
mod mariadb;
mod postgres;
mod sqlite;
