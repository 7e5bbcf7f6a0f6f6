//! Whether the login may write, though nothing here ever does.

use sqlx::Row as _;
use towpath_transfer::Failure;

use super::session::Session;

/// Sentences for people about rights that an extract does not need. On a standby nobody can write, and nothing is said.
pub(super) async fn warnings(session: &mut Session) -> Result<Vec<String>, Failure> {
    let doing = "looking for the rights of the login";
    let rows = session.query(doing, RIGHTS.to_owned()).await?;
    let text = |index: usize| {
        let found = rows.first().ok_or(sqlx::Error::RowNotFound).and_then(|row| row.try_get::<Option<String>, _>(index));
        found.map_err(|error| session.server.failure(doing, error))
    };
    let is = |index: usize| text(index).map(|found| found.as_deref() == Some("true"));
    if is(0)? {
        return Ok(Vec::new());
    }
    let user = text(1)?.unwrap_or_default();
    if is(2)? {
        return Ok(vec![format!(
            "the login {user} is a superuser and may do everything (pg_roles); give the extract a login that may only read"
        )]);
    }
    let mut found = Vec::new();
    if let (Some(count), Some(one)) = (text(3)?.filter(|count| count != "0"), text(4)?) {
        found.push(format!(
            "the login {user} may write to {count} tables, {one} among them (has_table_privilege); \
             give the extract a login that may only read"
        ));
    }
    if let Some(schema) = text(5)? {
        found.push(format!(
            "the login {user} may make tables in schema {schema} (has_schema_privilege); take the right CREATE from it or from PUBLIC"
        ));
    }
    if is(6)? {
        found.push(format!("the login {user} may make schemas (has_database_privilege); take the right CREATE from it"));
    }
    Ok(found)
}

/// One row: standby, user, superuser, tables that may be written to, one of them, a schema and the database in which things may be
/// made. The functions count what comes by membership, and by PUBLIC.
const RIGHTS: &str = "\
    SELECT pg_catalog.pg_is_in_recovery()::text, current_user::text, \
    (SELECT rolsuper::text FROM pg_catalog.pg_roles WHERE rolname = current_user), t.count::text, t.one, \
    (SELECT min(nspname::text) FROM pg_catalog.pg_namespace \
     WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND pg_catalog.has_schema_privilege(oid, 'CREATE')), \
    pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')::text \
    FROM (SELECT count(*) AS count, min(c.oid::pg_catalog.regclass::text) AS one FROM pg_catalog.pg_class c \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'p', 'v', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
     AND (pg_catalog.has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') \
      OR pg_catalog.has_any_column_privilege(c.oid, 'INSERT, UPDATE'))) t";
