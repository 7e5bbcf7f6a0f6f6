//! One connection in one read-only transaction.

use std::sync::Arc;

use odbc_api::{ColumnDescription, Connection, Cursor, CursorImpl, Error, ResultSetMetadata, handles::StatementImpl};
use towpath_transfer::{
    Clock, Code, Failure,
    manifest::{Column, Snapshot},
};

use super::{
    connect::{self, ConnectionString},
    dbms::Dbms,
    error,
    fetch::{self, NoRows, Out},
    stop::Killer,
    types::{self, Typed},
};
use crate::{
    config::{OdbcConfig, OdbcIsolation, TableConfig},
    extract::source::{SourceColumn, select::Dialect, sqlite},
};

/// A letter that only arrives where the text of a statement arrives as it was sent.
const PROBE: &str = "ö";
/// Why a statement of our own has failed that gives none.
const NO_ROW: &str = "it gave no row";

/// What the async side knows of a session.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) dbms: Dbms,
    pub(super) dialect: Dialect,
    pub(super) snapshot: Snapshot,
    pub(super) warnings: Vec<String>,
    pub(super) killer: Arc<Killer>,
}

/// One connection, for the thread it lives on.
pub(super) struct Session {
    connection: Connection<'static>,
    dbms: Dbms,
    dialect: Dialect,
    shown: String,
    /// Whether statements may hold other characters than those of ASCII.
    unicode: bool,
    /// The timeout of each statement that the driver is asked for, in seconds.
    timeout: Option<usize>,
    killer: Arc<Killer>,
    /// Whether there are tables that are not part of a snapshot.
    outside: bool,
}

impl Session {
    /// Connects and begins the transaction.
    pub(super) fn open(config: &OdbcConfig, clock: &dyn Clock) -> Result<(Self, Opened), Failure> {
        let string = ConnectionString(&config.connection);
        let shown = string.shown();
        let (connection, whole) = login(config, string, &shown)?;
        let failed = |error| error::failure(string.guess().as_ref(), &shown, "opening it", error);
        let name = connection.database_management_system_name().map_err(failed)?;
        let dbms = Dbms::of_name(&name);
        let quote = connection.identifier_quote_char().map_err(failed)?.unwrap_or(' ');
        let dialect = Dialect { quotes: (quote, quote), schema: dbms.schema(), literal: dbms.literal() };
        let killer = Killer::new(whole, None);
        let timeout = dbms.driver_timeout(config.statement_timeout);
        let mut session = Self { connection, dbms, dialect, shown, unicode: true, timeout, killer, outside: false };
        let mut warnings = Vec::new();
        session.prepare(&name, config, &mut warnings)?;
        let snapshot = session.begin(config.isolation, clock, &mut warnings)?;
        let opened = Opened { dbms: session.dbms.clone(), dialect, snapshot, warnings, killer: Arc::clone(&session.killer) };
        Ok((session, opened))
    }

    /// What is done while each statement is a transaction of its own.
    fn prepare(&mut self, name: &str, config: &OdbcConfig, warnings: &mut Vec<String>) -> Result<(), Failure> {
        for sql in self.dbms.prepare_session(name, config.statement_timeout) {
            self.run(&sql)?;
        }
        if let Some(sql) = self.dbms.echo(PROBE) {
            self.unicode = self.one(&sql)?.as_deref() == Some(PROBE);
        }
        if let Some((id, kill)) = self.dbms.kill()
            && let Some(id) = self.one(id)?
        {
            self.killer = Killer::new(self.killer.connection().to_owned(), Some(kill.replace('@', id.trim())));
        }
        let many = |counted: Result<Option<String>, Failure>| match counted {
            Ok(count) => count.is_some_and(|count| count.trim().parse::<u64>().is_ok_and(|count| count > 0)),
            // Not every login may look.
            Err(error) => {
                tracing::debug!(%error, "what the login may do could not be found out");
                false
            }
        };
        if let Some((sql, how)) = self.dbms.may_write()
            && many(self.one(sql))
        {
            let told = format!("the login of the ERP database {} may write ({how}); give it rights to read only", self.shown);
            warnings.push(told);
        }
        if let Some(sql) = self.dbms.outside_snapshot()
            && many(self.one(sql))
        {
            self.outside = true;
            warnings.push(format!(
                "the ERP database {} has tables whose engine knows no transactions; what is read of them is not of the snapshot (a \
                 source of kind \"mariadb\" tells which of the job's tables these are)",
                self.shown
            ));
        }
        let declared = ConnectionString(&config.connection).get("UseDeclareFetch");
        if self.dbms == Dbms::PostgreSql && declared == Some("0") {
            let told = "UseDeclareFetch=0 makes the ODBC driver of PostgreSQL hold each whole table in memory; leave it out";
            warnings.push(told.to_owned());
        }
        Ok(())
    }

    /// Begins the transaction that stays open until the end.
    fn begin(&self, asked: OdbcIsolation, clock: &dyn Clock, warnings: &mut Vec<String>) -> Result<Snapshot, Failure> {
        let snapshots = match self.dbms {
            Dbms::SqlServer => {
                let state = self.one("SELECT CAST(snapshot_isolation_state AS INT) FROM sys.databases WHERE name = DB_NAME()")?;
                state.as_deref() == Some("1")
            }
            _ => false,
        };
        let Some(begin) = self.dbms.begin(asked, snapshots) else {
            let told = format!(
                "isolation = \"snapshot\" is not to be had of the ERP database {}: {}",
                self.shown,
                match self.dbms {
                    Dbms::SqlServer =>
                        "it does not allow SNAPSHOT isolation (ALTER DATABASE ... SET ALLOW_SNAPSHOT_ISOLATION ON)",
                    _ => "only SQL Server has it; leave `isolation` out",
                }
            );
            return Err(Failure::park(Code::ConfigInvalid, told));
        };
        begin.session.iter().try_for_each(|sql| self.run(sql))?;
        if !self.dbms.begins_by_sql() {
            self.connection.set_autocommit(false).map_err(|error| self.failed("beginning a transaction", error))?;
        }
        begin.transaction.iter().try_for_each(|sql| self.run(sql))?;
        let state = self.dbms.state().map(|sql| self.one(sql)).transpose()?.flatten();
        let state = state.map_or_else(String::new, |state| format!(", {}", state.trim()));
        warnings.extend(begin.warning.map(ToOwned::to_owned));
        Ok(Snapshot {
            id: format!("{} at {}{state}", self.dbms.shown(), clock.now()),
            isolation: begin.isolation.to_owned(),
            consistent: begin.consistent && !self.outside,
        })
    }

    fn failed(&self, doing: &str, error: Error) -> Failure {
        if error::is_vague(&error) && self.connection.is_dead().unwrap_or(false) {
            return error::gone(&self.shown, doing, error);
        }
        error::failure(Some(&self.dbms), &self.shown, doing, error)
    }

    fn run(&self, sql: &str) -> Result<(), Failure> {
        self.execute(sql, "opening it").map(drop)
    }

    fn one(&self, sql: &str) -> Result<Option<String>, Failure> {
        Ok(self.first_row(sql, "opening it")?.into_iter().next().flatten())
    }

    fn execute(&self, sql: &str, doing: &str) -> Result<Option<CursorImpl<StatementImpl<'_>>>, Failure> {
        self.check_text(sql, doing)?;
        let failed = |error| self.failed(doing, error);
        let mut statement = self.connection.preallocate().map_err(failed)?;
        if let Some(seconds) = self.timeout
            && let Err(error) = statement.set_query_timeout_sec(seconds)
        {
            tracing::debug!(%error, "the ODBC driver knows no statement timeout");
        }
        statement.into_cursor(sql, ()).map_err(failed)
    }

    /// A statement that would arrive as another one is not sent.
    fn check_text(&self, sql: &str, doing: &str) -> Result<(), Failure> {
        if self.unicode || sql.is_ascii() {
            return Ok(());
        }
        let why = "its ODBC driver takes statements in ASCII only, and a name or the query has other characters";
        Err(error::refused(&self.shown, doing, why))
    }

    /// The first row of a statement, as text.
    pub(super) fn first_row(&self, sql: &str, doing: &str) -> Result<Vec<Option<String>>, Failure> {
        let no_row = || error::refused(&self.shown, doing, NO_ROW);
        let mut cursor = self.execute(sql, doing)?.ok_or_else(no_row)?;
        let failed = |error| self.failed(doing, error);
        let width = u16::try_from(cursor.num_result_cols().map_err(failed)?).unwrap_or(0);
        let mut row = cursor.next_row().map_err(failed)?.ok_or_else(no_row)?;
        fetch::texts(&mut row, width).map_err(|error| error::of_rows(&self.dbms, &self.shown, doing, error))
    }

    /// The columns of a table; reads no rows.
    pub(super) fn columns(&self, table: &TableConfig) -> Result<Vec<SourceColumn>, Failure> {
        let doing = format!("preparing table {}", table.name);
        let sql = self.dialect.all_columns(table);
        self.check_text(&sql, &doing)?;
        let failed = |error| self.failed(&doing, error);
        let mut prepared = self.connection.prepare(&sql).map_err(failed)?;
        let width = u16::try_from(prepared.num_result_cols().map_err(failed)?).unwrap_or(0);
        if width == 0 {
            return Err(error::refused(&self.shown, &doing, "the query gives no columns"));
        }
        // A driver that does not count parameters says so when the query is run.
        if prepared.num_params().is_ok_and(|parameters| parameters > 0) {
            return Err(error::refused(&self.shown, &doing, "the query has parameters"));
        }
        let mut columns = Vec::with_capacity(width.into());
        for number in 1..=width {
            let (name, typed, nullable) = self.describe(&mut prepared, number).map_err(failed)?;
            self.check_text(&name, &doing)?;
            columns.push(SourceColumn { name, sql_type: typed.sql_type, nullable });
        }
        drop(prepared);
        if self.dbms == Dbms::Sqlite {
            self.declared(table, &sql, &doing, &mut columns)?;
        }
        Ok(columns)
    }

    fn describe(&self, of: &mut impl ResultSetMetadata, number: u16) -> Result<(String, Typed, bool), Error> {
        let mut description = ColumnDescription::default();
        of.describe_col(number, &mut description)?;
        let unsigned = self.dbms == Dbms::MySql && of.column_is_unsigned(number)?;
        let typed = types::of(&self.dbms, description.data_type, unsigned);
        Ok((String::from_utf16_lossy(&description.name), typed, description.could_be_nullable()))
    }

    /// What SQLite itself says of a table's columns; its driver knows neither DECIMAL nor NOT NULL.
    fn declared(&self, table: &TableConfig, sql: &str, doing: &str, columns: &mut [SourceColumn]) -> Result<(), Failure> {
        self.run("PRAGMA query_only = 0")?;
        let names: Vec<String> = (1..=columns.len()).map(|n| format!("c{n}")).collect();
        let found = self.types_by_view(&sqlite::create_view(VIEW, &names, sql), doing);
        self.run("PRAGMA query_only = 1")?;
        let not_null = match table.query {
            Some(_) => Vec::new(),
            None => self.all_texts(&sqlite::not_null(table.name.as_str()), doing)?,
        };
        for (column, declared) in columns.iter_mut().zip(found?) {
            column.sql_type = sqlite::types::of_declared(&declared);
            column.nullable = !not_null.contains(&column.name);
        }
        Ok(())
    }

    fn types_by_view(&self, create: &str, doing: &str) -> Result<Vec<String>, Failure> {
        self.execute(create, doing)?;
        let types = self.all_texts(&sqlite::types_of_view(VIEW), doing)?;
        self.execute(&sqlite::drop_view(VIEW), doing)?;
        Ok(types)
    }

    /// The first column of all rows.
    fn all_texts(&self, sql: &str, doing: &str) -> Result<Vec<String>, Failure> {
        let Some(mut cursor) = self.execute(sql, doing)? else { return Ok(Vec::new()) };
        let mut texts = Vec::new();
        while let Some(mut row) = cursor.next_row().map_err(|error| self.failed(doing, error))? {
            let row = fetch::texts(&mut row, 1).map_err(|error| error::of_rows(&self.dbms, &self.shown, doing, error))?;
            texts.push(row.into_iter().next().flatten().unwrap_or_default());
        }
        Ok(texts)
    }

    /// All rows of a statement whose results are `columns`.
    pub(super) fn rows(&self, sql: &str, doing: &str, columns: &[Column], out: &mut Out<'_>) -> Result<(), Failure> {
        let no_rows = || error::refused(&self.shown, doing, "the query gives no rows");
        let mut cursor = self.execute(sql, doing)?.ok_or_else(no_rows)?;
        let failed = |error| self.failed(doing, error);
        let width = u16::try_from(cursor.num_result_cols().map_err(failed)?).unwrap_or(0);
        if usize::from(width) != columns.len() {
            let why = format!("it gives {width} columns and not {}", columns.len());
            return Err(error::refused(&self.shown, doing, &why));
        }
        let mut typed = Vec::with_capacity(columns.len());
        for (number, column) in (1..=width).zip(columns) {
            typed.push(match self.dbms {
                Dbms::Sqlite => types::of_sqlite(column.sql_type),
                _ => self.describe(&mut cursor, number).map_err(failed)?.1,
            });
        }
        // The driver of MariaDB reads the rest of a result before it lets it go.
        let read = fetch::rows(cursor, &typed, out, &|| self.killer.kill());
        read.map_err(|error| match error {
            NoRows::Driver(error) => self.failed(doing, error),
            error => error::of_rows(&self.dbms, &self.shown, doing, error),
        })
    }

    /// A piece of work is done.
    pub(super) fn finished(&self) {
        self.killer.finished();
    }

    /// Ends the transaction, in which nothing was changed.
    pub(super) fn close(self) {
        // A connection that is lost has no transaction any more.
        if let Err(error) = self.connection.rollback() {
            tracing::debug!(%error, "ending the transaction of the ERP database failed");
        }
    }
}

/// The view by which SQLite tells types; it is gone again before anything else is asked.
const VIEW: &str = "towpath_columns";

/// Connects; tells with which string. Where only the database itself says which driver it is, it is asked and the connection made
/// again with the driver's settings.
fn login(config: &OdbcConfig, string: ConnectionString<'_>, shown: &str) -> Result<(Connection<'static>, String), Failure> {
    let password = match &config.password {
        Some(secret) => Some(towpath_keys::read_secret(secret, &format!("the password of the ERP database {shown}"))?),
        None => None,
    };
    let whole = |dbms: Option<&Dbms>| string.whole(dbms, config.user.as_deref(), password.as_deref());
    let guess = string.guess();
    let failed = |error| error::failure(guess.as_ref(), shown, "connecting", error);
    let first = whole(guess.as_ref());
    let connection = connect::connect(&first).map_err(failed)?;
    if guess.is_some() {
        return Ok((connection, first));
    }
    let name = connection.database_management_system_name().map_err(failed)?;
    let second = whole(Some(&Dbms::of_name(&name)));
    if second == first {
        return Ok((connection, first));
    }
    drop(connection);
    Ok((connect::connect(&second).map_err(failed)?, second))
}
