//! Warnings about logins that may do more, or see less, than an extract needs.

use super::*;

async fn warnings(bench: &PostgresBench, user: &str) -> Vec<String> {
    open(ServerConfig { user: user.to_owned(), ..bench.config() }).await.unwrap().warnings()
}

/// A login of this database's own; its name is the database's with a suffix.
fn login(bench: &PostgresBench, suffix: &str, rights: &str) -> String {
    let name = format!("{}_{suffix}", bench.database.name);
    let rights = rights.replace("LOGIN", &name);
    bench.database.run_as("postgres", &format!("CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'; {rights}"));
    name
}

#[tokio::test]
async fn each_way_to_write_is_told() {
    let bench = PostgresBench::new();
    bench.database.run("CREATE TABLE \"Ä b\" (id int, name text); CREATE TABLE other (id int)");
    for (suffix, rights, told) in [
        ("super", "ALTER ROLE LOGIN SUPERUSER", "is a superuser"),
        ("table", "GRANT DELETE ON \"Ä b\" TO LOGIN", "may write to 1 tables, \"Ä b\" among them"),
        ("column", "GRANT UPDATE (name) ON \"Ä b\" TO LOGIN", "may write to 1 tables"),
        ("all", "GRANT pg_write_all_data TO LOGIN", "may write to 2 tables"),
        ("schema", "CREATE SCHEMA extra; GRANT CREATE ON SCHEMA extra TO LOGIN", "may make tables in schema extra"),
    ] {
        let user = login(&bench, suffix, rights);
        let found = warnings(&bench, &user).await;
        assert_eq!(found.len(), 1, "{suffix}: {found:?}");
        assert!(found[0].contains(told) && found[0].contains(&user), "{found:?}");
    }
    let user = login(&bench, "database", &format!("GRANT CREATE ON DATABASE {} TO LOGIN", bench.database.name));
    assert!(warnings(&bench, &user).await[0].contains("may make schemas"));
    assert!(warnings(&bench, READER).await.is_empty());
    let reader = login(&bench, "reader", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO LOGIN");
    assert!(warnings(&bench, &reader).await.is_empty());
}

#[tokio::test]
async fn rows_that_a_policy_hides_are_told() {
    let bench = PostgresBench::new();
    bench.database.run(
        "CREATE TABLE open (id int); CREATE TABLE closed (id int); INSERT INTO closed VALUES (1), (2); \
         ALTER TABLE closed ENABLE ROW LEVEL SECURITY; CREATE POLICY one ON closed USING (id = 1)",
    );
    let mut snapshot = bench.open().await;
    snapshot.columns(&conformance::whole("open")).await.unwrap();
    assert!(snapshot.warnings().is_empty());
    for _ in 0..2 {
        snapshot.columns(&conformance::whole("closed")).await.unwrap();
    }
    let warnings = snapshot.warnings();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("rows of table closed"), "{warnings:?}");
}

#[tokio::test]
async fn null_may_stand_where_nobody_forbids_it() {
    let bench = PostgresBench::new();
    bench.database.run(
        "CREATE DOMAIN money_of AS numeric(12,2) NOT NULL; CREATE DOMAIN price AS money_of; \
         CREATE TABLE parent (id int NOT NULL, p price); CREATE TABLE child () INHERITS (parent); \
         CREATE TABLE alone (id int NOT NULL, p price); CREATE VIEW seen AS SELECT * FROM alone; \
         CREATE VIEW computed AS SELECT (p * 2)::numeric(14,2) AS twice FROM alone; \
         CREATE TABLE parts (id int NOT NULL, p price) PARTITION BY RANGE (id)",
    );
    let mut snapshot = bench.open().await;
    for (table, nullable) in [("parent", true), ("alone", false), ("seen", true), ("parts", false)] {
        let columns = snapshot.columns(&conformance::whole(table)).await.unwrap();
        assert_eq!(columns[0].nullable, nullable, "{table}");
        assert!(columns[1].nullable, "{table}");
        assert_eq!(columns[1].sql_type.to_string(), "DECIMAL(12,2)", "{table}");
    }
    let joined = conformance::query("SELECT b.id, b.p FROM alone a LEFT JOIN alone b ON false");
    let columns = snapshot.columns(&joined).await.unwrap();
    assert!(columns[0].nullable);
    assert_eq!(columns[1].sql_type.to_string(), "DECIMAL(12,2)");
    let computed = snapshot.columns(&conformance::whole("computed")).await.unwrap();
    assert_eq!(computed[0].sql_type.to_string(), "DECIMAL(14,2)");
    let computed = conformance::query("SELECT p * 2 FROM alone");
    assert_eq!(snapshot.columns(&computed).await.unwrap()[0].sql_type.to_string(), "TEXT");
}
