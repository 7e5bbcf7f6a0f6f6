//! The thread on which one connection lives.

use std::{
    sync::{Arc, mpsc},
    thread,
};

use tokio::{runtime::Handle, sync::oneshot};
use towpath_transfer::{Clock, Code, Failure, manifest::Column};

use super::{
    fetch::Out,
    session::{Opened, Session},
};
use crate::{
    config::{OdbcConfig, TableConfig},
    extract::source::{RowSink, SourceColumn},
};

/// Where the answer to a piece of work goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Failure>>;

/// What came of connecting.
pub(super) type Connected = Result<Opened, Failure>;

/// Something for the thread to do.
pub(super) enum Work {
    /// The columns of a table.
    Columns { table: Box<TableConfig>, reply: Reply<Vec<SourceColumn>> },
    /// All rows of a statement, whose results are `columns`.
    Rows { sql: String, doing: String, columns: Vec<Column>, into: RowSink, reply: Reply<()> },
    /// The first row of a statement, as text.
    Ask { sql: String, doing: String, reply: Reply<Vec<Option<String>>> },
}

/// The thread. It ends when it has done what it was asked for and nobody can ask any more.
pub(super) struct Worker {
    pub(super) work: mpsc::Sender<Work>,
    /// Tells the end.
    pub(super) ended: oneshot::Receiver<()>,
}

/// Starts the thread. It connects, tells so, works, and ends when nobody can ask it any more.
///
/// # Errors
/// `internal` where there can be no thread.
pub(super) fn start(config: OdbcConfig, clock: Arc<dyn Clock>) -> Result<(Worker, oneshot::Receiver<Connected>), Failure> {
    let (work, from) = mpsc::channel();
    let (tell, opened) = oneshot::channel();
    // Rows wait for their writer, who lives in the runtime.
    let runtime = Handle::current();
    let (end, ended) = oneshot::channel();
    // A thread of the runtime would hold up the end of the process for as long as the driver blocks.
    let thread = thread::Builder::new().name("odbc".to_owned()).spawn(move || {
        run(&config, clock.as_ref(), &runtime, tell, &from);
        // Whether somebody waits for it or not.
        let _ = end.send(());
    });
    thread.map_err(|error| Failure::retry(Code::Internal, "there is no thread for an ODBC driver").caused_by(error))?;
    Ok((Worker { work, ended }, opened))
}

fn run(config: &OdbcConfig, clock: &dyn Clock, runtime: &Handle, tell: oneshot::Sender<Connected>, work: &mpsc::Receiver<Work>) {
    let session = match Session::open(config, clock) {
        Ok((session, opened)) => {
            if tell.send(Ok(opened)).is_err() {
                return;
            }
            session
        }
        Err(failure) => {
            // Whoever has given up waiting does not want to know.
            drop(tell.send(Err(failure)));
            return;
        }
    };
    for work in work {
        // An answer that nobody waits for any more is dropped.
        match work {
            Work::Columns { table, reply } => {
                let answer = session.columns(&table);
                session.finished();
                drop(reply.send(answer));
            }
            Work::Rows { sql, doing, columns, mut into, reply } => {
                let answer = session.rows(&sql, &doing, &columns, &mut Out { sink: &mut into, runtime });
                session.finished();
                drop(into);
                drop(reply.send(answer));
            }
            Work::Ask { sql, doing, reply } => {
                let answer = session.first_row(&sql, &doing);
                session.finished();
                drop(reply.send(answer));
            }
        }
    }
    session.close();
}
