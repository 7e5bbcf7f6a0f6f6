//! What goes wrong, each by causing it.

use std::process::Command;

use super::*;
use crate::extract::source::Feed;

/// A query that keeps the server busy for minutes before its first row.
const LONG: &str = "SELECT COUNT(*) AS i FROM seq_1_to_1000000000 a WHERE MD5(a.seq) = '0'";
/// A query of very many rows.
const MANY: &str = "SELECT seq AS i FROM seq_1_to_300000000";

fn number() -> [Column; 1] {
    [Column { name: "i".parse().unwrap(), sql_type: SqlType::BigInt, nullable: true }]
}

async fn refused(config: ServerConfig, code: Code, disposition: Disposition) -> Failure {
    let failure = open(config).await.unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (code, disposition), "{failure:?}");
    failure
}

#[tokio::test]
async fn logins_that_are_refused() {
    let place = Place::new();
    let config = place.config();
    let wrong = tempfile::tempdir().unwrap();
    let path = wrong.path().join("password");
    std::fs::write(&path, "wrong").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let bad = ServerConfig { password: Some(Secret::File(path)), ..config.clone() };
    let failure = refused(bad, Code::ErpRefused, Disposition::Park).await;
    assert!(failure.message().contains(&format!("{} at localhost:", place.database.name)), "{failure}");
    refused(ServerConfig { password: None, ..config.clone() }, Code::ErpRefused, Disposition::Park).await;
    refused(ServerConfig { user: "nobody".to_owned(), ..config.clone() }, Code::ErpRefused, Disposition::Park).await;
    // A login that may not see the database, and one that would see it if it were there.
    let hidden = ServerConfig { user: WRITER.to_owned(), database: "mysql".to_owned(), ..config.clone() };
    refused(hidden, Code::ErpRefused, Disposition::Park).await;
    refused(ServerConfig { database: "no_such_database".to_owned(), ..config.clone() }, Code::ErpMissing, Disposition::Retry)
        .await;
    refused(ServerConfig { port: 1, ..config.clone() }, Code::ErpMissing, Disposition::Retry).await;
    let no_file = Some(Secret::File("/no/such/file".into()));
    refused(ServerConfig { password: no_file, ..config.clone() }, Code::SecretUnusable, Disposition::Retry).await;
    let no_ca = ServerConfig { tls: Tls::Verify, ca: Some("/no/such/ca".into()), ..config };
    refused(no_ca, Code::ConfigInvalid, Disposition::Park).await;
}

#[tokio::test]
async fn tls_is_checked() {
    let place = Place::new();
    let name = &place.database.name;
    let verified = ServerConfig { tls: Tls::Verify, ca: Some(place.database.ca.clone()), ..place.config() };
    let cipher = query("SELECT variable_value AS c FROM information_schema.session_status WHERE variable_name = 'SSL_CIPHER'");
    for (config, encrypted) in
        [(verified.clone(), true), (place.config(), true), (ServerConfig { tls: Tls::Off, ..place.config() }, false)]
    {
        let mut snapshot = open(config).await.unwrap();
        let columns = to_wire(&snapshot.columns(&cipher).await.unwrap());
        let found = rows(snapshot.as_mut(), &cipher, &columns).await.remove(0).remove(0).unwrap();
        assert_eq!(!found.is_empty(), encrypted, "{found:?}");
    }
    // Nobody vouches for the server's certificate.
    refused(ServerConfig { ca: None, ..verified.clone() }, Code::ErpRefused, Disposition::Park).await;
    place.database.run_as(
        "root",
        &format!("CREATE USER tls_{name} IDENTIFIED BY '{PASSWORD}' REQUIRE SSL; GRANT SELECT ON {name}.* TO tls_{name}"),
    );
    let user = format!("tls_{name}");
    open(ServerConfig { user: user.clone(), ..verified }).await.unwrap();
    refused(ServerConfig { user, tls: Tls::Off, ..place.config() }, Code::ErpRefused, Disposition::Park).await;
}

#[tokio::test]
async fn a_right_that_is_missing_is_told() {
    let place = Place::new();
    let name = &place.database.name;
    place.database.run("CREATE TABLE seen (i INT); CREATE TABLE hidden (i INT)");
    place.database.run_as(
        "root",
        &format!("CREATE USER some_{name} IDENTIFIED BY '{PASSWORD}'; GRANT SELECT ON {name}.seen TO some_{name}"),
    );
    let mut snapshot = open(ServerConfig { user: format!("some_{name}"), ..place.config() }).await.unwrap();
    snapshot.columns(&whole("seen")).await.unwrap();
    for table in [whole("hidden"), query("SELECT * FROM hidden")] {
        let failure = snapshot.columns(&table).await.unwrap_err();
        assert_eq!((failure.code(), failure.disposition()), (Code::ErpRefused, Disposition::Park));
        assert!(failure.message().contains(table.name.as_str()), "{failure}");
    }
}

#[tokio::test]
async fn queries_that_cannot_be_read_are_told() {
    let place = Place::new();
    for (sql, said) in [
        ("SELECT ? AS a", "parameters"),
        ("SET @a = 1", "refused"),
        ("SELECT 1 AS a FROM nowhere", "refused"),
        ("SELECT 1.5 AS a, 2.5 AS a", "refused"),
    ] {
        let failure = place.open().await.columns(&query(sql)).await.unwrap_err();
        assert_eq!((failure.code(), failure.disposition()), (Code::ErpQuery, Disposition::Park));
        assert!(failure.message().contains(said), "{failure}");
    }
}

/// What reading with a second for each statement ends with; on a slow machine an earlier statement may take the second.
async fn given_up(place: &Place, table: &TableConfig) -> Failure {
    let reading = async {
        let mut snapshot = open(ServerConfig { statement_timeout: Duration::from_secs(1), ..place.config() }).await?;
        let (mut sink, _feed) = RowSink::new(1);
        snapshot.rows(&all_of(table, &number()), &mut sink).await
    };
    reading.await.unwrap_err()
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_ended_by_the_server() {
    let place = Place::new();
    let failure = given_up(&place, &query(LONG)).await;
    assert_eq!((failure.code(), failure.disposition()), (Code::ErpLocked, Disposition::Retry));
    assert!(failure.message().contains("statement_timeout"), "{failure}");
}

#[tokio::test]
async fn a_locked_table_is_waited_for_and_given_up() {
    let place = Place::new();
    place.database.run("CREATE TABLE t (i INT)");
    let other = MySqlConnectOptions::new().socket(&place.database.socket).username(WRITER).password(PASSWORD);
    let mut other = other.database(&place.database.name).connect().await.unwrap();
    sqlx::raw_sql("LOCK TABLES t WRITE").execute(&mut other).await.unwrap();
    let failure = given_up(&place, &whole("t")).await;
    assert_eq!((failure.code(), failure.disposition()), (Code::ErpLocked, Disposition::Retry));
}

#[tokio::test]
async fn a_table_that_was_altered_after_the_snapshot_is_tried_again() {
    let place = Place::new();
    place.database.run("CREATE TABLE t (i INT); INSERT INTO t VALUES (1)");
    let mut snapshot = place.open().await;
    place.database.run("ALTER TABLE t ADD COLUMN j INT, ALGORITHM = COPY");
    let (mut sink, _feed) = RowSink::new(1);
    let failure = snapshot.rows(&all_of(&whole("t"), &number()), &mut sink).await.unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::ErpLocked, Disposition::Retry), "{failure:?}");
}

#[tokio::test]
async fn what_is_given_up_is_ended_at_the_server() {
    let place = Place::new();
    for closed in [true, false] {
        for sql in [LONG, MANY] {
            let mut snapshot = place.open().await;
            let (mut sink, _feed) = RowSink::new(1);
            {
                let (table, columns) = (query(sql), number());
                let read = all_of(&table, &columns);
                let reading = snapshot.rows(&read, &mut sink);
                tokio::select! {
                    biased;
                    ended = reading => panic!("{ended:?}"),
                    () = place.until_at_work(1) => {}
                }
            }
            if closed {
                snapshot.close().await;
            } else {
                drop(snapshot);
            }
            place.until_at_work(0).await;
        }
    }
}

#[tokio::test]
async fn a_statement_that_somebody_kills_is_tried_again() {
    let place = Place::new();
    for kill in ["KILL QUERY", "KILL CONNECTION"] {
        let mut snapshot = place.open().await;
        let (mut sink, _feed) = RowSink::new(1);
        let (table, columns) = (query(LONG), number());
        let read = all_of(&table, &columns);
        let killing = async {
            place.until_at_work(1).await;
            let found = format!(
                "SELECT id FROM information_schema.processlist WHERE db = '{}' AND id <> CONNECTION_ID()",
                place.database.name
            );
            let id = place.database.run_as("root", &found);
            place.database.run_as("root", &format!("{kill} {}", id.trim()));
        };
        let (ended, ()) = tokio::join!(snapshot.rows(&read, &mut sink), killing);
        let failure = ended.unwrap_err();
        assert_eq!(failure.disposition(), Disposition::Retry);
        assert!(matches!(failure.code(), Code::Cancelled | Code::ErpMissing), "{failure:?}");
        snapshot.close().await;
        place.until_at_work(0).await;
    }
}

#[tokio::test]
async fn a_server_that_goes_away_in_the_middle_is_told() {
    let place = Place::on(MariaDb::start());
    let process = place.server.process().unwrap();
    let mut snapshot = place.open().await;
    let (mut sink, mut feed) = RowSink::new(1);
    let (table, columns) = (query(MANY), number());
    let read = all_of(&table, &columns);
    let ending = async {
        assert!(matches!(feed.recv().await, Some(Feed::Rows(_))));
        assert!(Command::new("kill").args(["-KILL", &process.to_string()]).status().unwrap().success());
        while feed.recv().await.is_some() {}
    };
    let reading = async move {
        let ended = snapshot.rows(&read, &mut sink).await;
        drop(sink);
        snapshot.close().await;
        ended
    };
    let (ended, ()) = tokio::join!(reading, ending);
    let failure = ended.unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::ErpMissing, Disposition::Retry));
}

/// A reader that packs for longer than the server's own `net_write_timeout` does not lose its connection; and a login that is
/// not known to the library is told as such.
#[tokio::test]
async fn a_server_with_other_settings_than_ours() {
    let place = Place::on(MariaDb::start());
    let name = &place.database.name;
    place.database.run_as(
        "root",
        &format!(
            "SET GLOBAL net_write_timeout = 1, GLOBAL sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES', GLOBAL time_zone = '-05:00'; \
             INSTALL SONAME 'auth_ed25519'; CREATE USER ed IDENTIFIED VIA ed25519 USING PASSWORD('{PASSWORD}'); GRANT SELECT ON {name}.* TO ed"
        ),
    );
    let failure = refused(ServerConfig { user: "ed".to_owned(), ..place.config() }, Code::ErpRefused, Disposition::Park).await;
    assert!(failure.message().contains("mysql_native_password"), "{failure}");
    let mut snapshot = place.open().await;
    // More than fits into the sockets between.
    let long = query("SELECT seq AS i, REPEAT('x', 10000) AS x FROM seq_1_to_4000");
    let (mut sink, mut feed) = RowSink::new(2);
    let (table, columns) = (&long, to_wire(&snapshot.columns(&long).await.unwrap()));
    let read = all_of(table, &columns);
    let reading = async move {
        let ended = snapshot.rows(&read, &mut sink).await;
        sink.finish().await.unwrap();
        ended
    };
    let taking = async {
        // The server's clock tells how long it has waited for us.
        let asked = format!(
            "SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{name}' AND state LIKE 'Writing to net%' AND time_ms > 3000"
        );
        while place.database.run_as("root", &asked).trim() != "1" {
            tokio::task::yield_now().await;
        }
        let mut taken = 0;
        while let Some(Feed::Rows(batch)) = feed.recv().await {
            taken += batch.values().count();
        }
        taken
    };
    let (ended, taken) = tokio::join!(reading, taking);
    ended.unwrap();
    assert_eq!(taken, 8_000);
}
