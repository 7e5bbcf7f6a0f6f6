//! MariaDB and MySQL as a source: one read-only transaction with a consistent snapshot, rows by the binary protocol.

mod columns;
mod engines;
mod error;
mod grants;
mod literal;
mod session;
mod totals;
mod types;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{Column as _, Row as _};
use tokio_util::sync::CancellationToken;
use towpath_transfer::{Clock, Failure, manifest::Snapshot};

use self::{literal::DIALECT, session::Session, types::Kind};
use super::{Read, RowSink, Source, SourceColumn, SourceSnapshot, TableTotals};
use crate::config::{ServerConfig, TableConfig};

/// A database of a MariaDB or MySQL server.
#[derive(Debug)]
pub(crate) struct MariaDbSource {
    config: ServerConfig,
    clock: Arc<dyn Clock>,
}

impl MariaDbSource {
    /// The server is connected to when the source is opened.
    pub(crate) fn new(config: ServerConfig, clock: Arc<dyn Clock>) -> Self {
        Self { config, clock }
    }
}

#[async_trait]
impl Source for MariaDbSource {
    async fn open(&self, _: &CancellationToken) -> Result<Box<dyn SourceSnapshot>, Failure> {
        let mut session = Session::open(&self.config, Arc::clone(&self.clock)).await?;
        let watch = session.watch();
        let beginning = async {
            let warnings = grants::warnings(&mut session).await;
            let snapshot = session.begin().await?;
            Ok((warnings, snapshot))
        };
        let (warnings, snapshot) = watch.over("taking the snapshot", beginning).await?;
        Ok(Box::new(MariaDbSnapshot { session, snapshot, warnings }))
    }
}

#[derive(Debug)]
struct MariaDbSnapshot {
    session: Session,
    snapshot: Snapshot,
    warnings: Vec<String>,
}

#[async_trait]
impl SourceSnapshot for MariaDbSnapshot {
    fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    async fn columns(&mut self, table: &TableConfig) -> Result<Vec<SourceColumn>, Failure> {
        let watch = self.session.watch();
        let looking = async {
            let columns = columns::of(&mut self.session, table).await?;
            Ok((columns, engines::outside(&mut self.session, table).await?))
        };
        let (columns, outside) = watch.over("preparing a table", looking).await?;
        for warning in outside {
            self.snapshot.consistent = false;
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
        Ok(columns)
    }

    async fn rows(&mut self, read: &Read<'_>, sink: &mut RowSink) -> Result<(), Failure> {
        let doing = format!("reading table {}", read.table.name);
        self.session.watch().over(&doing, rows(&mut self.session, &doing, read, sink)).await
    }

    async fn totals(&mut self, read: &Read<'_>) -> Result<TableTotals, Failure> {
        self.session.watch().over("summing a table", totals::of(&mut self.session, read)).await
    }

    async fn close(&mut self) {
        self.session.close().await;
    }
}

async fn rows(session: &mut Session, doing: &str, read: &Read<'_>, sink: &mut RowSink) -> Result<(), Failure> {
    let shown = session.shown().to_owned();
    let mut rows = session.fetch(doing, DIALECT.rows(read))?;
    let mut columns = Vec::new();
    let mut scratch = String::new();
    while let Some(row) = rows.next(doing).await? {
        if columns.len() != row.len() {
            if row.len() != read.columns.len() || !columns.is_empty() {
                return Err(error::refused(&shown, doing, "the rows have other columns than before"));
            }
            let kinds = row.columns().iter().map(|column| Kind::of(column.type_info()));
            columns = kinds.zip(read.columns).map(|(kind, column)| (kind, column.sql_type)).collect();
        }
        types::push(&row, &columns, &mut scratch, sink).map_err(|error| error::failure(&shown, doing, error))?;
        sink.end_row().await?;
    }
    Ok(())
}
