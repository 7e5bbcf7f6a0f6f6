//! What comes out equals what was put in, value by value, in every encoding.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

fn text_of(table: &FileEntry) -> Vec<String> {
    table.table().unwrap().columns.iter().map(|column| column.name.to_string()).collect()
}

/// Every encoding that has the characters, with and without its mark.
fn encoded(text: &str) -> Vec<(Encoding, Vec<u8>)> {
    let wide = |to: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(to).collect::<Vec<u8>>();
    let (little, big) = (wide(u16::to_le_bytes), wide(u16::to_be_bytes));
    vec![
        (Encoding::Utf8, text.as_bytes().to_vec()),
        (Encoding::Utf8, [b"\xef\xbb\xbf", text.as_bytes()].concat()),
        (Encoding::Utf16, little.clone()),
        (Encoding::Utf16, [b"\xff\xfe".as_slice(), &little].concat()),
        (Encoding::Utf16, [b"\xfe\xff".as_slice(), &big].concat()),
    ]
}

#[tokio::test]
async fn every_value_in_every_encoding() {
    let text = "id;Größe \"XL\"\"\";price;day;at;flag;amount;bytes\r\n\
        1;\"a;b \"\"c\"\" \r\n\td\";1.234,50;31.12.1899;01.02.2024 03:04:05;J;-1,5e3;AAEC/w==\r\n\
        2;\"\";-0,05;31.12.9999;31.12.9999 23:59:59;N;0;\r\n\
        3;;;;;;;\r\n\
        -9223372036854775808;𝄞 日本 ß;999.999.999.999.999.999.999.999.999.999.999.999,99;29.02.2024;;;;\"\"\r\n\
        9223372036854775807; x ;12-;\"\";\"\";\"\";\"\";\"\"";
    let text = text.replace("Größe \"XL\"\"\"", "\"Größe \"\"XL\"\"\"");
    let types = [
        ("id", "BIGINT"),
        ("price", "DECIMAL(38,2)"),
        ("day", "DATE"),
        ("at", "TIMESTAMP"),
        ("flag", "BOOLEAN"),
        ("amount", "DOUBLE PRECISION"),
        ("bytes", "BINARY"),
    ];
    for (encoding, bytes) in encoded(&text) {
        let mut items = typed("items", &types);
        items.csv = CsvConfig {
            delimiter: ';',
            encoding,
            decimal: ',',
            thousands: Some('.'),
            date: "%d.%m.%Y".into(),
            timestamp: "%d.%m.%Y %H:%M:%S".into(),
            booleans: ("J".into(), "N".into()),
            ..CsvConfig::default()
        };
        let bench = Bench::new(vec![items]);
        bench.put("items.csv", bytes);
        let extracted = bench.extract().await.unwrap();
        let entry = &extracted.files[0];
        assert_eq!(text_of(entry), ["id", "Größe \"XL\"", "price", "day", "at", "flag", "amount", "bytes"]);
        let digits = "99999999999999999999999999999999999999";
        let (whole, fraction) = digits.split_at(36);
        let largest = format!("{whole}.{fraction}");
        let expected = [
            row(&[
                Some("1"),
                Some("a;b \"c\" \r\n\td"),
                Some("1234.50"),
                Some("1899-12-31"),
                Some("2024-02-01T03:04:05"),
                Some("true"),
                Some("-1500"),
                Some("AAEC/w=="),
            ]),
            row(&[
                Some("2"),
                Some(""),
                Some("-0.05"),
                Some("9999-12-31"),
                Some("9999-12-31T23:59:59"),
                Some("false"),
                Some("0"),
                None,
            ]),
            row(&[Some("3"), None, None, None, None, None, None, None]),
            row(&[
                Some("-9223372036854775808"),
                Some("𝄞 日本 ß"),
                Some(&largest),
                Some("2024-02-29"),
                None,
                None,
                None,
                Some(""),
            ]),
            row(&[Some("9223372036854775807"), Some(" x "), Some("-12"), None, None, None, None, Some("")]),
        ];
        assert_eq!(bench.rows(entry), expected, "{encoding:?}");
    }
}

#[tokio::test]
async fn code_pages_of_windows_and_dos() {
    // Ä ö ß € ™ and a no-break space; Ä ö ß ı ¥ and a no-break space.
    for (encoding, bytes, expected) in [
        (Encoding::Windows1252, b"id,name\r\n1,\"\xc4\xf6\xdf\x80\x99\xa0\"\r\n".as_slice(), "Äöß€™\u{a0}"),
        (Encoding::Cp850, b"id,name\r\n1,\"\x8e\x94\xe1\xd5\xbe\xff\"\r\n\x1a", "Äößı¥\u{a0}"),
    ] {
        let mut items = table("items");
        items.csv.encoding = encoding;
        let bench = Bench::new(vec![items]);
        bench.put("items.csv", bytes);
        assert_eq!(bench.only().await, [row(&[Some("1"), Some(expected)])]);
    }
    // All bytes that have a character, but for the marks of the dialect.
    for (encoding, missing) in [(Encoding::Windows1252, &[0x81, 0x8d, 0x8f, 0x90, 0x9d][..]), (Encoding::Cp850, &[])] {
        let all: Vec<u8> = (1..=255).filter(|byte| !missing.contains(byte) && *byte != b'"').collect();
        let mut items = table("items");
        items.csv.encoding = encoding;
        let bench = Bench::new(vec![items]);
        bench.put("items.csv", [b"t\n\"".as_slice(), &all, b"\"\n"].concat());
        let rows = bench.only().await;
        let text = rows[0][0].as_ref().unwrap();
        assert_eq!(text.chars().count(), all.len());
        assert!(text.ends_with(if encoding == Encoding::Cp850 { '\u{a0}' } else { 'ÿ' }));
    }
}

#[tokio::test]
async fn no_rows_no_header_no_quotes_and_no_final_line_end() {
    for (bytes, expected) in [
        ("a,b", vec![]),
        ("a,b\r\n", vec![]),
        ("a,b\r\n1,2", vec![row(&[Some("1"), Some("2")])]),
        ("a,b\n1,2\n\n\n", vec![row(&[Some("1"), Some("2")])]),
        ("a,b\r1,2\r", vec![row(&[Some("1"), Some("2")])]),
    ] {
        let bench = Bench::new(vec![table("items")]);
        bench.put("items.csv", bytes);
        assert_eq!(bench.only().await, expected, "{bytes:?}");
    }
    let mut items = table("items");
    items.csv.header = false;
    items.csv.columns = vec!["no".into(), "pipe".into()];
    items.csv.quote = None;
    items.csv.delimiter = '\t';
    let bench = Bench::new(vec![items.clone()]);
    bench.put("items.csv", "1\t12\" \"pipe\"\n2\t\n");
    assert_eq!(bench.only().await, [row(&[Some("1"), Some("12\" \"pipe\"")]), row(&[Some("2"), None])]);
    bench.put("items.csv", "");
    assert!(bench.only().await.is_empty());
    // The configured names stand for those of the file.
    items.csv.header = true;
    let bench = Bench::new(vec![items]);
    bench.put("items.csv", "x\ty\n1\t2\n");
    let extracted = bench.extract().await.unwrap();
    assert_eq!(text_of(&extracted.files[0]), ["no", "pipe"]);
    assert_eq!(bench.rows(&extracted.files[0]).len(), 1);
    // One column: an empty line is a row.
    let bench = Bench::new(vec![table("items")]);
    bench.put("items.csv", "a\n\n\"\"\nx\n");
    assert_eq!(bench.only().await, [row(&[None]), row(&[Some("")]), row(&[Some("x")])]);
}

#[tokio::test]
async fn long_texts_many_columns_and_many_rows() {
    let long = "ä\"\r\n;".repeat(200_000);
    let bench = Bench::new(vec![table("items")]);
    bench.put("items.csv", format!("t\n\"{}\"\nend\n", long.replace('"', "\"\"")));
    assert!(long.len() > 1_000_000);
    assert_eq!(bench.only().await, [row(&[Some(&long)]), row(&[Some("end")])]);

    let names: Vec<String> = (0..300).map(|n| format!("Spalte {n}")).collect();
    let values: Vec<String> = (0..300).map(|n| format!("v{n}")).collect();
    let bench = Bench::new(vec![table("items")]);
    bench.put("items.csv", format!("{}\n{}\n", names.join(","), values.join(",")));
    assert_eq!(bench.only().await, [values.into_iter().map(Some).collect::<Vec<_>>()]);

    let bench = Bench::new(vec![typed("items", &[("id", "BIGINT"), ("half", "DECIMAL(9,1)")])]);
    let lines: String = (1..=20_000).map(|n| format!("{n},{}.5\r\n", n / 2)).collect();
    bench.put("items.csv", format!("id,half\r\n{lines}"));
    let extracted = bench.extract().await.unwrap();
    let totals = &extracted.files[0].table().unwrap().totals;
    assert_eq!(totals.iter().map(|total| total.sum.to_string()).collect::<Vec<_>>(), ["200010000", "100010000"]);
}

#[tokio::test]
async fn files_of_a_table_are_read_in_the_order_of_their_names() {
    let mut items = table("items");
    items.files = Some("items*.csv".into());
    items.omit = vec!["b".into()];
    let bench = Bench::new(vec![items]);
    for (name, text) in [("items-2.csv", "a,b\n2,x"), ("items-10.csv", "a,b\n10,x\n"), ("items.csv", "a,b\n0,x\n")] {
        bench.put(name, text);
    }
    for other in [".items.csv", "items.csv.part", "items-9.csv.TMP", "Items.csv", "sales.csv"] {
        bench.put(other, "not ours");
    }
    bench.files.create_dir_all(&bench.path("items-folder.csv")).unwrap();
    assert_eq!(bench.only().await, ["10", "2", "0"].map(|a| row(&[Some(a)])));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Both ways of reading agree with a writer that is not ours.
    #[test]
    fn what_another_program_writes_is_read_as_it_was(
        rows in (1_usize..4).prop_flat_map(|width| vec(vec("[a\"\r\n;,\t ä𝄞]{0,6}", width), 0..20)),
        delimiter in select(vec![b',', b';', b'\t', b'|']),
        always in any::<bool>(),
        lf in any::<bool>(),
    ) {
        let style = if always { csv::QuoteStyle::Always } else { csv::QuoteStyle::Necessary };
        let end = if lf { csv::Terminator::Any(b'\n') } else { csv::Terminator::CRLF };
        let mut writer = csv::WriterBuilder::new().delimiter(delimiter).quote_style(style).terminator(end).from_writer(Vec::new());
        let width = rows.first().map_or(1, Vec::len);
        writer.write_record((0..width).map(|at| format!("c{at}"))).unwrap();
        rows.iter().for_each(|row| writer.write_record(row).unwrap());
        let mut items = table("items");
        items.csv.delimiter = delimiter.into();
        let bench = Bench::new(vec![items]);
        bench.put("items.csv", writer.into_inner().unwrap());
        let found = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(bench.only());
        // That writer tells an empty field of a row from an empty line, and not from NULL.
        let value = |text: &String| (always || width == 1 || !text.is_empty()).then(|| text.clone());
        prop_assert_eq!(found, rows.iter().map(|row| row.iter().map(value).collect::<Vec<_>>()).collect::<Vec<_>>());
    }
}
