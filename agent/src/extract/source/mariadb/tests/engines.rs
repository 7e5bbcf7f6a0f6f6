//! Tables that are not of the snapshot.

use super::*;

const TABLES: &str = "CREATE TABLE items (id INT, x INT) ENGINE = InnoDB; CREATE TABLE old_items (id INT) ENGINE = MyISAM;
    CREATE TABLE aria_items (id INT) ENGINE = Aria; CREATE TABLE memory_items (id INT) ENGINE = MEMORY;
    CREATE VIEW good AS SELECT items.id FROM items JOIN (SELECT x FROM items) q;
    CREATE VIEW bad AS SELECT g.id FROM good g LEFT JOIN (SELECT id FROM old_items) q ON TRUE;
    CREATE FUNCTION counted() RETURNS INT READS SQL DATA RETURN (SELECT COUNT(*) FROM old_items);
    CREATE FUNCTION plain(a INT) RETURNS INT NO SQL RETURN a + 1;";

async fn warnings(snapshot: &mut dyn SourceSnapshot, table: &TableConfig) -> (bool, String) {
    snapshot.columns(table).await.unwrap();
    // A second look says nothing new.
    snapshot.columns(table).await.unwrap();
    let warnings = snapshot.warnings();
    assert!(warnings.len() <= 1, "{warnings:?}");
    (snapshot.snapshot().consistent, warnings.into_iter().next().unwrap_or_default())
}

#[tokio::test]
async fn tables_without_snapshots_are_found_wherever_they_hide() {
    let place = Place::new();
    let name = &place.database.name;
    place.database.run(TABLES);
    place.database.run_as(
        "root",
        &format!(
            "CREATE USER all_{name} IDENTIFIED BY '{PASSWORD}'; GRANT SELECT, SHOW VIEW, EXECUTE ON {name}.* TO all_{name}; \
             GRANT SELECT ON mysql.proc TO all_{name};"
        ),
    );
    let config = ServerConfig { user: format!("all_{name}"), ..place.config() };
    for table in [
        whole("items"),
        whole("good"),
        query("SELECT * FROM items"),
        query("SELECT 'old_items' AS text, plain(id) AS p FROM good"),
    ] {
        assert_eq!(warnings(open(config.clone()).await.unwrap().as_mut(), &table).await, (true, String::new()), "{table:?}");
    }
    for (table, said) in [
        (whole("old_items"), "old_items is kept by the engine MyISAM"),
        (whole("aria_items"), "aria_items is kept by the engine Aria"),
        (whole("memory_items"), "memory_items is kept by the engine MEMORY"),
        (whole("bad"), "old_items is kept by the engine MyISAM"),
        (query("SELECT i.id FROM items i WHERE id IN (SELECT id FROM `old_items`)"), "old_items is kept by the engine MyISAM"),
        (query("SELECT id FROM bad"), "old_items is kept by the engine MyISAM"),
        (query("SELECT counted() AS c"), "old_items is kept by the engine MyISAM"),
    ] {
        let (consistent, warning) = warnings(open(config.clone()).await.unwrap().as_mut(), &table).await;
        assert!(!consistent && warning.contains(said) && warning.contains(table.name.as_str()), "{table:?}: {warning}");
    }
}

#[tokio::test]
async fn what_the_login_may_not_look_into_is_said() {
    let place = Place::new();
    let name = &place.database.name;
    place.database.run(TABLES);
    place.database.run_as(
        "root",
        &format!(
            "CREATE USER only_{name} IDENTIFIED BY '{PASSWORD}'; GRANT SELECT ON {name}.good TO only_{name}; \
             GRANT EXECUTE ON FUNCTION {name}.counted TO only_{name};"
        ),
    );
    let config = ServerConfig { user: format!("only_{name}"), ..place.config() };
    for (table, said) in [
        (whole("good"), "may not look into the view"),
        (query("SELECT id FROM good"), "may not look into the view"),
        (query("SELECT counted() AS c"), "may not look into the function"),
    ] {
        let mut snapshot = open(config.clone()).await.unwrap();
        let (consistent, warning) = warnings(snapshot.as_mut(), &table).await;
        assert!(!consistent && warning.contains(said), "{table:?}: {warning}");
    }
    place.database.run_as("root", &format!("GRANT SHOW VIEW ON {name}.good TO only_{name}"));
    let mut snapshot = open(config).await.unwrap();
    let (_, warning) = warnings(snapshot.as_mut(), &whole("good")).await;
    assert!(warning.contains(&format!("may not look at {name}.items")), "{warning}");
}
