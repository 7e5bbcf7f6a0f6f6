//! Every failure, caused.

use std::io::ErrorKind;

use towpath_transport::files::{FaultFiles, FileFault, FileOp};

use super::*;

#[tokio::test]
async fn what_is_wrong_in_a_file_is_named_and_parked() {
    let types = [("price", "DECIMAL(9,2)"), ("day", "DATE"), ("flag", "BOOLEAN")];
    for (text, said) in [
        ("price,day\n1,2024-01-01\n1\n", "line 3: there are 1 fields; the table has 2 columns"),
        ("price,day\n1,2024-01-01,x\n", "line 2: there are 3 fields; the table has 2 columns"),
        ("price,day\n\n1,2024-01-01\n", "line 2: the line is empty, and others follow"),
        ("price,day\n\"1\n2\",\n", "line 2, column price: \"1\\n2\" is not a number"),
        ("price,day\n1,2024-01-01\n1.555,\n", "line 3, column price: \"1.555\" has more digits after the point"),
        ("price,day\n1,31.12.2024\n", "line 2, column day: \"31.12.2024\" is not of the form \"%Y-%m-%d\""),
        ("price,flag\n1,yes\n", "line 2, column flag: \"yes\" is not \"true\" or \"false\""),
        ("price,x\n1,a\0b\n", "line 2, column x: the text holds a NUL character"),
        ("price,x\n1,\"a\n", "line 3, field 2: the file ends within a quoted field"),
        ("price,x\n1,a\"b\n", "line 2, field 2: a quote stands within a field"),
        ("", "line 1: the file is empty; its first line should name the columns"),
    ] {
        let used = types.iter().filter(|(name, _)| text.contains(name) || text.is_empty()).copied().collect::<Vec<_>>();
        let bench = Bench::new(vec![typed("items", &used)]);
        bench.put("items.csv", text);
        let failure = bench.fails().await;
        assert_eq!((failure.code(), failure.disposition()), (Code::ErpValue, Disposition::Park), "{}", failure.report());
        assert!(failure.message().starts_with("table items, file /erp/out/items.csv, line "), "{failure}");
        assert!(failure.message().contains(said), "{failure}");
    }
}

#[tokio::test]
async fn bytes_without_a_character_are_named() {
    for (encoding, bytes, said) in [
        (Encoding::Utf8, b"a,b\n1,x\xe4\n".as_slice(), "line 2, field 2: the byte 0xE4 is no character of UTF-8"),
        (Encoding::Windows1252, b"a,b\n1,2\n3,\x90\n", "line 3, field 2: the byte 0x90 is no character of Windows-1252"),
        (Encoding::Cp850, b"\xef\xbb\xbfa,b\n", "line 1, field 1: the file begins with the byte order mark of UTF-8"),
        (Encoding::Utf16, b"a\0\n\0x", "line 2, field 1: half a character"),
    ] {
        let mut items = table("items");
        items.csv.encoding = encoding;
        let bench = Bench::new(vec![items]);
        bench.put("items.csv", bytes);
        let failure = bench.fails().await;
        assert_eq!((failure.code(), failure.disposition()), (Code::ErpValue, Disposition::Park));
        assert!(failure.message().contains(said), "{failure}");
    }
}

#[tokio::test]
async fn a_key_is_never_empty_and_secrets_stay_out_of_messages() {
    let mut items = typed("items", &[("tax", "BIGINT")]);
    items.key = vec!["no".into()];
    items.pseudonymise = vec!["tax".into()];
    let bench = Bench::new(vec![items]);
    bench.put("items.csv", "no,tax\n1,2\n,3\n");
    let failure = bench.fails().await;
    assert!(failure.message().contains("line 3, column no: it is empty"), "{failure}");
    for value in ["4711-secret", "99999999999999999999"] {
        bench.put("items.csv", format!("no,tax\n1,{value}\n"));
        let failure = bench.fails().await;
        assert_eq!(failure.code(), Code::ErpValue);
        assert!(failure.message().contains("line 2, column tax: ") && !failure.report().contains(value), "{failure}");
    }
    // What is counted is what is sent, also where empty fields stand in quotes.
    bench.put("items.csv", "no,tax\n1,\"\"\n2,\n3,7\n");
    let rows = bench.only().await;
    assert_eq!(rows.iter().map(|row| row[1].is_some()).collect::<Vec<_>>(), [false, false, true]);
}

#[tokio::test]
async fn columns_that_differ_between_files_or_from_the_configuration() {
    let mut items = table("items");
    items.files = Some("items*.csv".into());
    let bench = Bench::new(vec![items.clone()]);
    bench.put("items-1.csv", "a,b\n1,2\n");
    bench.put("items-2.csv", "a,c\n1,2\n");
    let failure = bench.fails().await;
    assert_eq!((failure.code(), failure.disposition()), (Code::ErpQuery, Disposition::Park));
    assert!(
        failure.message().contains("column 2 of /erp/out/items-2.csv is \"c\", that of /erp/out/items-1.csv is \"b\""),
        "{failure}"
    );
    items.csv.columns = vec!["a".into()];
    let mut bench = Bench::new(vec![items]);
    bench.put("items.csv", "a,b\n1,2\n");
    assert!(bench.fails().await.message().contains("its files have 2 columns, and the configuration names 1"));
    bench.tables = vec![table("items"), TableConfig { files: Some("i*.csv".into()), ..table("others") }];
    let failure = bench.fails().await;
    assert_eq!(failure.code(), Code::ConfigInvalid);
    assert!(failure.message().contains("the file items.csv belongs to table items and to table others"), "{failure}");
    let zoned = "TIMESTAMP WITH TIME ZONE";
    for (format, sql_type, said) in [("%Y-%m-%d %H:%M", zoned, "needs an offset"), ("%Y-%m-%d %H:%M %z", "TIMESTAMP", "no place")]
    {
        let mut items = typed("items", &[("a", sql_type)]);
        items.csv.timestamp = format.into();
        bench.tables = vec![items];
        let failure = bench.fails().await;
        assert!(failure.code() == Code::ConfigInvalid && failure.message().contains(said), "{failure}");
    }
}

/// Fails, or changes something, before the `n`th operation of a kind on what lies under a name.
fn before(
    bench: &Bench,
    op: FileOp,
    name: &'static str,
    n: usize,
    mut act: impl FnMut() -> Option<FileFault> + Send + 'static,
) -> Arc<dyn FileStore> {
    let mut seen = 0;
    let plan = move |this: FileOp, path: &Path| {
        seen += usize::from(this == op && path.ends_with(name));
        if this == op && path.ends_with(name) && seen == n { act() } else { None }
    };
    Arc::new(FaultFiles::new(Arc::new(bench.files.clone()), Box::new(plan)))
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_tried_again() {
    // Other bytes of the same length: by the time; longer ones: by the length; and the second reading notices what the first did not.
    for (op, n) in
        [(FileOp::Read, 1), (FileOp::Read, 3), (FileOp::Stat, 1), (FileOp::Stat, 2), (FileOp::Stat, 3), (FileOp::Stat, 4)]
    {
        for text in ["a,b\n3,4\n", "a,b\n1,2\n3,4\n"] {
            let bench = Bench::new(vec![table("items")]);
            bench.put("items.csv", "a,b\n1,2\n");
            let (files, clock) = (bench.files.clone(), bench.clock.clone());
            let change = move || {
                clock.advance(Duration::from_secs(1));
                write_whole(&files, Path::new("/erp/out/items.csv"), text.as_bytes()).unwrap();
                None
            };
            let files = before(&bench, op, "items.csv", n, change);
            let failure = bench.extract_after(None, files).await.unwrap_err();
            assert_eq!((failure.code(), failure.disposition()), (Code::ErpLocked, Disposition::Retry), "{}", failure.report());
            assert!(failure.message().contains("was changed while it was read"), "{failure}");
            assert_eq!(bench.extract().await.unwrap().files.len(), 1);
        }
    }
}

#[tokio::test]
async fn bytes_that_change_without_a_trace_are_found_by_the_second_reading() {
    let bench = Bench::new(vec![table("items")]);
    bench.put("items.csv", "a,b\n1,2\n");
    // The clock stands still, and the length is the same.
    let files = bench.files.clone();
    let change = move || {
        write_whole(&files, Path::new("/erp/out/items.csv"), b"a,b\n3,4\n").unwrap();
        None
    };
    // Header, rows, totals: the file is opened three times after its length was asked.
    let files = before(&bench, FileOp::Open, "items.csv", 4, change);
    let failure = bench.extract_after(None, files).await.unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::ErpLocked, Disposition::Retry), "{}", failure.report());
    assert!(failure.message().contains("its bytes are others"), "{failure}");
}

#[tokio::test]
async fn a_disk_that_fails_is_tried_again_and_a_right_that_is_missing_is_told() {
    let bench = Bench::new(vec![table("items")]);
    bench.put("items.csv", "a,b\n1,2\n");
    for (op, name, kind, code, disposition) in [
        (FileOp::List, "out", ErrorKind::PermissionDenied, Code::ErpRefused, Disposition::Park),
        (FileOp::List, "out", ErrorKind::TimedOut, Code::ErpMissing, Disposition::Retry),
        (FileOp::Open, "items.csv", ErrorKind::PermissionDenied, Code::ErpMissing, Disposition::Retry),
        (FileOp::Read, "items.csv", ErrorKind::TimedOut, Code::ErpMissing, Disposition::Retry),
        (FileOp::CreateDir, "archive", ErrorKind::PermissionDenied, Code::FileFailed, Disposition::Park),
    ] {
        let files = before(&bench, op, name, 1, move || Some(FileFault::Before(kind)));
        let failure = bench.extract_after(None, files).await.unwrap_err();
        assert_eq!((failure.code(), failure.disposition()), (code, disposition), "{op:?} {}", failure.report());
    }
    let failure = Bench { config: FolderConfig { folder: "/none".into(), ..bench.config.clone() }, ..bench }.fails().await;
    assert_eq!((failure.code(), failure.disposition()), (Code::ErpMissing, Disposition::Retry));
    assert!(failure.message().contains("/none"), "{failure}");
}
