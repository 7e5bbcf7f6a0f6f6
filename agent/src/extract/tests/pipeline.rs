use super::*;

fn text(rows: &Rows, row: usize, column: usize) -> Option<&str> {
    rows[row][column].as_deref()
}

#[tokio::test]
async fn values_types_and_names_arrive_exactly() {
    let place = Place::new(
        r#"CREATE TABLE "Artikel ""Größe"" (select)" (
            "order" INTEGER NOT NULL PRIMARY KEY, "Preis €" DECIMAL(12,2), gewicht NUMERIC(9,3) NOT NULL, ratio DOUBLE,
            active BOOLEAN, since DATE, at TIME, changed DATETIME, picture BLOB, note, "select" VARCHAR(10));
        INSERT INTO "Artikel ""Größe"" (select)" VALUES
            (1, 12.50, 1, 0.1, 1, '9999-12-31', '07:30', '2024-02-29 23:59:59.5', x'00ff', 'a,"b' || char(13,10) || 'ß', ''),
            (9223372036854775807, '-0.05', 1.125, 1e300, 0, '1753-01-01', '00:00:00', '1899-12-30T00:00:00', x'', 17, NULL),
            (-9223372036854775808, NULL, 0.001, NULL, NULL, NULL, NULL, NULL, NULL, 2.5, ' x ');"#,
    )
    .await;
    let name = "Artikel \"Größe\" (select)";
    let extracted = place.extract(vec![whole(name)]).await.unwrap();
    let entry = &extracted.files[0];
    assert_eq!(
        types(entry),
        [
            "BIGINT",
            "DECIMAL(12,2)",
            "DECIMAL(9,3)",
            "DOUBLE PRECISION",
            "BOOLEAN",
            "DATE",
            "TIME",
            "TIMESTAMP",
            "BINARY",
            "TEXT",
            "TEXT"
        ]
    );
    let nullable: Vec<bool> = table(entry).columns.iter().map(|column| column.nullable).collect();
    assert_eq!(nullable.iter().filter(|nullable| !**nullable).count(), 2);
    assert!(!nullable[0] && !nullable[2]);
    let rows = read(&place.folder, entry);
    let shown: Vec<Vec<&str>> =
        rows.iter().map(|row| row.iter().map(|field| field.as_deref().unwrap_or("NULL")).collect()).collect();
    assert_eq!(shown[0], ["-9223372036854775808", "NULL", "0.001", "NULL", "NULL", "NULL", "NULL", "NULL", "NULL", "2.5", " x "]);
    assert_eq!(
        shown[1],
        ["1", "12.5", "1", "0.1", "true", "9999-12-31", "07:30:00", "2024-02-29T23:59:59.5", "AP8=", "a,\"b\r\nß", ""]
    );
    assert_eq!(
        shown[2],
        [
            "9223372036854775807",
            "-0.05",
            "1.125",
            "1e300",
            "false",
            "1753-01-01",
            "00:00:00",
            "1899-12-30T00:00:00",
            "",
            "17",
            "NULL"
        ]
    );
    let sums: Vec<String> = table(entry).totals.iter().map(|total| total.sum.to_string()).collect();
    assert_eq!(sums, ["0", "12.45", "2.126"]);
    assert!(extracted.snapshot.consistent);
    assert_eq!(extracted.snapshot.isolation, "serializable");
    manifest(&extracted).to_bytes().unwrap();
}

#[tokio::test]
async fn a_type_in_the_configuration_wins() {
    let place = Place::new(
        "CREATE TABLE t (factor VARCHAR(40), flag INTEGER, amount DECIMAL);
        INSERT INTO t VALUES ('12345678901234567890.0123456789', 1, 1.5), (' -0012345678901234567890.5 ', 0, 2), ('.25', NULL, 0.125);",
    )
    .await;
    let types_of = [("factor", "DECIMAL(30,10)"), ("flag", "BOOLEAN"), ("amount", "DECIMAL(38,6)")];
    let extracted = place.extract(vec![typed(whole("t"), &types_of), typed(query("untyped", "SELECT amount FROM t"), &[])]).await;
    let extracted = extracted.unwrap();
    let rows = read(&place.folder, &extracted.files[0]);
    assert_eq!(text(&rows, 1, 0), Some("-12345678901234567890.5"));
    assert_eq!(text(&rows, 0, 1), Some("true"));
    let totals = &table(&extracted.files[0]).totals;
    assert_eq!(totals[0].sum.to_string(), "-0.2376543211");
    assert_eq!(totals[1].sum.to_string(), "3.625");
    // Without digits in its type a decimal travels as the text that it is.
    assert_eq!(types(&extracted.files[1]), ["TEXT"]);
    assert_eq!(text(&read(&place.folder, &extracted.files[1]), 0, 0), Some("1.5"));
}

#[tokio::test]
async fn queries_have_the_types_of_their_columns() {
    let place = Place::new(
        "CREATE TABLE items (id INTEGER PRIMARY KEY, price DECIMAL(12,2) NOT NULL, picture BLOB, loose, day DATE);
        CREATE VIEW cheap AS SELECT id, price FROM items WHERE price < 2;
        INSERT INTO items VALUES (1, 1.25, x'01', 'a', '2024-01-01'), (2, 2.50, NULL, 'b', NULL), (3, 0.75, NULL, NULL, NULL);",
    )
    .await;
    let sql = "WITH x AS (SELECT * FROM items)\nSELECT price AS \"Preis\", picture, loose, day, count(*) OVER () AS n, id FROM x \
               ORDER BY id DESC; -- the newest first\n ; ";
    // A comment after the semicolon is part of the query; it is the operator's to leave out.
    let sql = sql.replace("; -- the newest first\n ; ", " -- the newest first\n ; ");
    let tables = vec![
        query("by query", &sql),
        whole("cheap"),
        typed(query("sums", "SELECT sum(price) AS s FROM items"), &[("s", "DECIMAL(20,2)")]),
    ];
    let extracted = place.extract(tables).await.unwrap();
    let [first, cheap, sums] = extracted.files.as_slice() else { panic!("three tables") };
    assert_eq!(types(first)[..4], ["DECIMAL(12,2)", "BINARY", "TEXT", "DATE"]);
    assert_eq!(types(first)[5], "BIGINT");
    let rows = read(&place.folder, first);
    assert_eq!(rows.iter().map(|row| row[5].as_deref().unwrap()).collect::<Vec<_>>(), ["3", "2", "1"]);
    assert_eq!(text(&rows, 0, 4), Some("3"));
    assert_eq!(types(cheap), ["BIGINT", "DECIMAL(12,2)"]);
    assert_eq!(read(&place.folder, cheap).len(), 2);
    assert_eq!(read(&place.folder, sums), [[Some("4.5".to_owned())]]);
}

#[tokio::test]
async fn no_rows_many_columns_and_long_texts() {
    let columns: Vec<String> = (0..300).map(|n| format!("c{n} {}", ["INTEGER", "DECIMAL(9,2)", "TEXT"][n % 3])).collect();
    let values: Vec<String> = (0..300).map(|n| ["7", "1.25", "'x'"][n % 3].to_owned()).collect();
    let place = Place::new(&format!(
        "CREATE TABLE empty (a INTEGER, b DECIMAL(5,2), c TEXT);
        CREATE TABLE wide ({});
        INSERT INTO wide VALUES ({values}), ({values});
        CREATE TABLE long (t TEXT);
        INSERT INTO long SELECT printf('%.*c', 1000000, char(96 + value)) FROM (SELECT 1 AS value UNION SELECT 2 UNION SELECT 3);",
        columns.join(", "),
        values = values.join(", ")
    ))
    .await;
    let extracted = place.extract(vec![whole("empty"), whole("wide"), whole("long")]).await.unwrap();
    let [empty, wide, long] = extracted.files.as_slice() else { panic!("three tables") };
    assert!(read(&place.folder, empty).is_empty());
    assert_eq!(
        table(empty).totals.iter().map(|t| (t.count, t.sum.to_string())).collect::<Vec<_>>(),
        [(0, "0".into()), (0, "0".into())]
    );
    assert_eq!(read(&place.folder, wide)[1].len(), 300);
    assert_eq!(table(wide).totals.len(), 200);
    assert!(table(wide).totals.iter().all(|total| ["14", "2.5"].contains(&total.sum.to_string().as_str())));
    let texts = read(&place.folder, long);
    assert_eq!(texts.iter().map(|row| row[0].as_ref().unwrap().len()).collect::<Vec<_>>(), [1_000_000; 3]);
}

#[tokio::test]
async fn events_tell_each_file_once_it_is_whole() {
    let place = Place::new("CREATE TABLE a (x INTEGER); INSERT INTO a VALUES (1), (2); CREATE TABLE b (y TEXT);").await;
    let (events, mut heard) = mpsc::channel(100);
    let extracted =
        extract(&parts(), place.request(vec![whole("a"), whole("b")]), events, CancellationToken::new()).await.unwrap();
    let mut all = Vec::new();
    while let Ok(event) = heard.try_recv() {
        if let ExtractEvent::FileFinished(file) = &event {
            assert_eq!(packed_digest(&place.folder, file.name.as_str()), (file.size, file.sha256));
        }
        all.push(event);
    }
    assert_eq!(place.listed(), ["a.csv.bz2", "b.csv.bz2"]);
    let name = |name: &str| name.parse().unwrap();
    let expected = |at: usize, table: &str, rows| {
        let (file, packed) = (&extracted.files[at], &extracted.packed[at]);
        let finished =
            ExtractEvent::TableFinished { table: name(table), rows, bytes: file.size, packed: packed.size, unchanged: false };
        let started = ExtractEvent::TableStarted { table: name(table) };
        [started, ExtractEvent::Rows { table: name(table), rows }, ExtractEvent::FileFinished(packed.clone()), finished]
    };
    assert_eq!(all, [expected(0, "a", 2), expected(1, "b", 0)].concat());
}

#[tokio::test]
async fn an_unchanged_table_sends_no_bytes() {
    let place =
        Place::new("CREATE TABLE a (x INTEGER); INSERT INTO a VALUES (1); CREATE TABLE b (y TEXT); INSERT INTO b VALUES ('v');")
            .await;
    let before = manifest(&place.extract(vec![whole("a"), whole("b")]).await.unwrap());
    place.run("UPDATE b SET y = 'w'").await;
    let mut request = place.request(vec![whole("a"), whole("b")]);
    request.previous = Some(before.clone());
    let (events, mut heard) = mpsc::channel(100);
    let again = extract(&parts(), request.clone(), events, CancellationToken::new()).await.unwrap();
    assert!(again.files[0].unchanged && again.files[0].base == Some(before.transfer));
    assert_eq!(again.files[0].sha256, before.files[0].sha256);
    assert!(!again.files[1].unchanged && again.files[1].base.is_none());
    assert_eq!(place.listed(), ["b.csv.bz2"]);
    assert_eq!(again.packed.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["b.csv.bz2"]);
    let mut finished = Vec::new();
    while let Ok(event) = heard.try_recv() {
        match event {
            ExtractEvent::FileFinished(file) => assert_eq!(file.name.as_str(), "b.csv.bz2"),
            ExtractEvent::TableFinished { unchanged, packed, .. } => finished.push((unchanged, packed > 0)),
            _ => {}
        }
    }
    assert_eq!(finished, [(true, false), (false, true)]);
    manifest(&again).to_bytes().unwrap();
    // The same bytes under another type are not the same table.
    request.job.tables = vec![typed(whole("a"), &[("x", "DECIMAL(9,0)")]), whole("b")];
    let retyped = run(request).await.unwrap();
    assert_eq!(retyped.files[0].sha256, before.files[0].sha256);
    assert!(!retyped.files[0].unchanged);
}

#[tokio::test]
async fn a_transfers_folder_is_cleared_and_a_persons_is_not() {
    let place = Place::new("CREATE TABLE a (x INTEGER); INSERT INTO a VALUES (1);").await;
    let left = ["gone.csv.bz2", "a.csv.bz2", ".a.csv.bz2.7.tmp", ".manifest.json.tmp", "manifest.json", "notes.csv"];
    for name in left {
        std::fs::write(place.folder.join(name), "old").unwrap();
    }
    std::fs::create_dir(place.folder.join("receipts")).unwrap();
    let extracted = place.extract(vec![whole("a")]).await.unwrap();
    assert_eq!(place.listed(), ["a.csv.bz2", "manifest.json", "notes.csv", "receipts"]);
    read(&place.folder, &extracted.files[0]);

    for name in ["mine.csv.bz2", ".a.csv.3.tmp", ".mine.tmp"] {
        std::fs::write(place.folder.join(name), "old").unwrap();
    }
    let plain = run(ExtractRequest { form: Form::Plain, ..place.request(vec![whole("a")]) }).await.unwrap();
    assert!(plain.packed.is_empty());
    let kept = [".mine.tmp", "a.csv", "a.csv.bz2", "manifest.json", "mine.csv.bz2", "notes.csv", "receipts"];
    assert_eq!(place.listed(), kept);
    let bytes = std::fs::read(place.folder.join("a.csv")).unwrap();
    assert_eq!(bytes, b"x\r\n1\r\n");
    read_plain(&bytes, &plain.files[0]);
}

#[tokio::test]
async fn a_check_prepares_every_query_and_reads_nothing() {
    let place = Place::new("CREATE TABLE a (x INTEGER, y DECIMAL(9,2));").await;
    let tables = vec![whole("a"), whole("missing"), query("bad", "SELEC 1"), typed(whole("A"), &[("z", "TEXT")])];
    let job = JobConfig { tables: tables[..3].to_vec(), ..place.request(tables.clone()).job };
    let checks = check_source(&job, &parts().files, parts().clock, &CancellationToken::new()).await.unwrap();
    assert!(checks.snapshot.consistent && checks.warnings.is_empty());
    let checks = checks.tables;
    assert_eq!(checks[0].file.as_str(), "a.csv");
    assert_eq!(checks[0].columns.as_ref().unwrap().len(), 2);
    assert_eq!(checks[1].columns.as_ref().unwrap_err().code(), Code::ErpQuery);
    assert!(checks[2].columns.as_ref().unwrap_err().report().contains("SELEC"));
    let job = JobConfig { tables: tables[3..].to_vec(), ..job };
    let checks = check_source(&job, &parts().files, parts().clock, &CancellationToken::new()).await.unwrap();
    assert_eq!(checks.tables[0].columns.as_ref().unwrap_err().code(), Code::ConfigInvalid);
    assert!(place.listed().is_empty());
}
