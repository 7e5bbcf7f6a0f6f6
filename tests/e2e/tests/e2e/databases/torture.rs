//! What is awkward in every database arrives as what it is, value by value, in both app databases.

use jiff::Timestamp;
use towpath_transfer::decimal::Decimal;

use super::{
    Installation, Target,
    erp::{Database, Erp, Way},
};

/// How a column is declared, in one word for all databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Id,
    Decimal,
    Text,
    Date,
    Moment,
    Instant,
    InstantInUtc,
    Flag,
    Bytes,
    Ratio,
    RatioOf15Digits,
}

const COLUMNS: [(&str, Kind); 10] = [
    ("id", Kind::Id),
    ("Größe (m²)", Kind::Decimal),
    ("select", Kind::Text),
    ("a \"b\" `c`", Kind::Text),
    ("Liefer Datum", Kind::Date),
    ("moment", Kind::Moment),
    ("instant", Kind::Instant),
    ("flag", Kind::Flag),
    ("bytes", Kind::Bytes),
    ("ratio", Kind::Ratio),
];

/// What a long text repeats, and how often: over a megabyte.
const PIECE: &str = "a\"b,c\r\nd;é ";
const PIECES: usize = 90_000;

/// A value as it is written into the ERP and expected in the app.
#[derive(Debug, Clone)]
enum Cell {
    Null,
    Plain(&'static str),
    Bytes(Vec<u8>),
    Long,
}

use Cell::{Null, Plain};

fn rows() -> Vec<[Cell; 10]> {
    let awkward = "He said \"hi\", then; left\r\nnext\tline \\. \\N \\\\ 'q' NULL %s";
    vec![
        [Plain("1"), Null, Null, Null, Null, Null, Null, Null, Null, Null],
        [
            Plain("-9223372036854775808"),
            Plain("0"),
            Plain(""),
            Plain(" "),
            Plain("1899-12-31"),
            Plain("1753-01-01 00:00:00"),
            Plain("1999-12-31 23:59:59+00:00"),
            Plain("false"),
            Cell::Bytes(Vec::new()),
            Plain("0"),
        ],
        [
            Plain("9223372036854775807"),
            Plain("9999999999999999999999999999.9999999999"),
            Plain(awkward),
            Plain("😀𝒳 漢字 e\u{301} ﷽ \u{7f} \u{85}"),
            Plain("9999-12-31"),
            Plain("9999-12-31 23:59:59.999999"),
            Plain("2038-01-18 03:14:07.25+00:00"),
            Plain("true"),
            Cell::Bytes((0..=255).collect()),
            Plain("-1.7976931348623157e308"),
        ],
        [
            Plain("2"),
            Plain("-0.0000000001"),
            Cell::Long,
            Plain(","),
            Plain("2024-02-29"),
            Plain("2024-02-29 12:00:00.5"),
            Plain("2024-03-31 01:30:00+00:00"),
            Plain("true"),
            Cell::Bytes(vec![0]),
            Plain("0.1"),
        ],
    ]
}

impl Erp {
    /// The columns, as this ERP can have them. Three things get lost on the way through ODBC drivers, as the docs say: with
    /// libsqliteodbc names that are not ASCII and digits of a floating-point number beyond the fifteenth, and with all three that
    /// a column of instants is one; it comes in UTC.
    fn columns(&self) -> Vec<(String, Kind)> {
        let odbc = self.way == Way::Odbc;
        let column = |(name, kind): &(&str, Kind)| {
            let name = if odbc && matches!(self.database, Database::Sqlite(_)) {
                name.replace('ö', "o").replace('ß', "ss").replace('²', "2")
            } else {
                (*name).to_owned()
            };
            let shown = match kind {
                Kind::Instant if odbc => Kind::InstantInUtc,
                Kind::Ratio if odbc && matches!(self.database, Database::Sqlite(_)) => Kind::RatioOf15Digits,
                other => *other,
            };
            (name, shown)
        };
        COLUMNS.iter().map(column).collect()
    }

    fn declared(&self, kind: Kind) -> &'static str {
        match (&self.database, kind) {
            (_, Kind::Id) => "BIGINT NOT NULL PRIMARY KEY",
            (_, Kind::Decimal) => "DECIMAL(38,10)",
            (Database::MariaDb(..), Kind::Text) => "LONGTEXT",
            (_, Kind::Text) => "TEXT",
            (_, Kind::Date) => "DATE",
            (Database::Postgres(..), Kind::Moment) => "TIMESTAMP(6)",
            (Database::MariaDb(..), Kind::Moment) => "DATETIME(6)",
            (Database::Sqlite(_), Kind::Moment) => "TIMESTAMP",
            (Database::MariaDb(..), Kind::Instant | Kind::InstantInUtc) => "TIMESTAMP(6) NULL",
            (_, Kind::Instant | Kind::InstantInUtc) => "TIMESTAMPTZ",
            (_, Kind::Flag) => "BOOLEAN",
            (Database::Postgres(..), Kind::Bytes) => "BYTEA",
            (_, Kind::Bytes) => "BLOB",
            (Database::MariaDb(..), Kind::Ratio | Kind::RatioOf15Digits) => "DOUBLE",
            (_, Kind::Ratio | Kind::RatioOf15Digits) => "DOUBLE PRECISION",
        }
    }

    fn cell(&self, kind: Kind, cell: &Cell) -> String {
        match (kind, cell) {
            (_, Cell::Null) => "NULL".to_owned(),
            (_, Cell::Long) => self.repeated(PIECE, PIECES),
            (_, Cell::Bytes(bytes)) => self.bytes(bytes),
            // SQLite would make a floating-point number of a decimal that is no text.
            (Kind::Decimal, Cell::Plain(text)) if matches!(self.database, Database::Sqlite(_)) => format!("'{text}'"),
            (Kind::Instant | Kind::InstantInUtc, Cell::Plain(text)) if matches!(self.database, Database::MariaDb(..)) => {
                self.text(text.trim_end_matches("+00:00"))
            }
            (Kind::Id | Kind::Decimal | Kind::Ratio | Kind::RatioOf15Digits | Kind::Flag, Cell::Plain(text)) => {
                (*text).to_owned()
            }
            (_, Cell::Plain(text)) => self.text(text),
        }
    }

    fn fill(&self) {
        let columns: Vec<String> =
            self.columns().iter().map(|(name, kind)| format!("{} {}", self.name(name), self.declared(*kind))).collect();
        // SQLite's affinity NUMERIC would round what is written as text.
        let columns = columns
            .join(", ")
            .replace("DECIMAL(38,10)", if matches!(self.database, Database::Sqlite(_)) { "TEXT" } else { "DECIMAL(38,10)" });
        self.run(&format!("CREATE TABLE torture ({columns})"));
        for row in rows() {
            let values: Vec<String> = row.iter().zip(COLUMNS).map(|(cell, (_, kind))| self.cell(kind, cell)).collect();
            self.run(&format!("INSERT INTO torture VALUES ({})", values.join(", ")));
        }
        let wide: Vec<String> = (0..300).map(|n| format!("c{n} INTEGER")).collect();
        let values: Vec<String> = (0..300).map(|n| n.to_string()).collect();
        self.run(&format!("CREATE TABLE wide ({})", wide.join(", ")));
        self.run(&format!("INSERT INTO wide VALUES ({})", values.join(", ")));
        self.run(&format!("CREATE TABLE {} (id BIGINT, price DECIMAL(12,2))", self.name("Leere Tabelle")));
    }

    /// What an administrator says where the database says too little.
    fn tables(&self) -> String {
        let mut types = vec![];
        if self.way == Way::Odbc || !matches!(self.database, Database::Postgres(..)) {
            types.push("flag = \"BOOLEAN\"");
        }
        if matches!(self.database, Database::Sqlite(_)) {
            types.push(if self.way == Way::Odbc {
                "\"Grosse (m2)\" = \"DECIMAL(38,10)\""
            } else {
                "\"Größe (m²)\" = \"DECIMAL(38,10)\""
            });
        }
        let types = if types.is_empty() { String::new() } else { format!("[job.table.types]\n{}\n", types.join("\n")) };
        format!(
            "[[job.table]]\nname = \"torture\"\n{types}[[job.table]]\nname = \"wide\"\n[[job.table]]\nname = \"Leere Tabelle\"\n"
        )
    }
}

/// Whether the app shows the value that the ERP has.
fn same(kind: Kind, expected: &Cell, found: Option<&str>) -> bool {
    let (text, found) = match (expected, found) {
        (Cell::Null, None) => return true,
        (Cell::Null, Some(_)) | (_, None) => return false,
        (Cell::Long, Some(found)) => return found == PIECE.repeat(PIECES),
        (Cell::Bytes(bytes), Some(found)) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            return found == format!("\\x{hex}");
        }
        (Cell::Plain(text), Some(found)) => (*text, found),
    };
    match kind {
        Kind::Decimal => found.parse::<Decimal>().unwrap() == text.parse().unwrap(),
        Kind::Ratio => found.parse::<f64>().unwrap().to_bits() == text.parse::<f64>().unwrap().to_bits(),
        Kind::RatioOf15Digits => {
            let digits = |text: &str| format!("{:.14e}", text.parse::<f64>().unwrap());
            // Rounded to 15 digits, the largest number of all is too large.
            digits(found) == digits(text) || (text.contains("e308") && found == "-Infinity")
        }
        Kind::Flag => matches!((text, found), ("true", "1" | "true" | "t") | ("false", "0" | "false" | "f")),
        Kind::Moment => found.parse::<jiff::civil::DateTime>().unwrap() == text.parse().unwrap(),
        Kind::Instant => {
            // PostgreSQL writes an offset of whole hours without minutes.
            let found = if found.ends_with("+00") { format!("{found}:00") } else { found.to_owned() };
            found.parse::<Timestamp>().unwrap() == text.parse().unwrap()
        }
        Kind::InstantInUtc => found.parse::<jiff::civil::DateTime>().unwrap() == text.trim_end_matches("+00:00").parse().unwrap(),
        Kind::Id | Kind::Text | Kind::Date | Kind::Bytes => text == found,
    }
}

fn arrives(erp: &Erp, target: Target) {
    erp.fill();
    let installation = Installation::new(&erp.job(&erp.tables()), target);
    installation.send();
    let columns = erp.columns();
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    let mut expected = rows();
    let id = |row: &[Cell; 10]| match &row[0] {
        Plain(text) => text.parse::<i64>().unwrap(),
        _ => unreachable!("every row has an id"),
    };
    expected.sort_by_key(id);
    let found = installation.rows("torture", &names, "id");
    assert_eq!(found.len(), expected.len());
    for (number, (expected, found)) in expected.iter().zip(&found).enumerate() {
        for ((name, kind), (expected, found)) in columns.iter().zip(expected.iter().zip(found)) {
            let shown: String = format!("{found:?}").chars().take(200).collect();
            assert!(same(*kind, expected, found.as_deref()), "row {number}, column {name}: {shown}");
        }
    }
    let wide: Vec<String> = (0..300).map(|n| format!("c{n}")).collect();
    let wide: Vec<&str> = wide.iter().map(String::as_str).collect();
    // PostgreSQL's functions take 100 arguments at most.
    for (part, columns) in wide.chunks(60).enumerate() {
        let found = installation.rows("wide", columns, "c0");
        let expected: Vec<Option<String>> = (part * 60..part * 60 + columns.len()).map(|n| Some(n.to_string())).collect();
        assert_eq!(found, [expected]);
    }
    assert!(installation.rows("Leere Tabelle", &["id", "price"], "id").is_empty());
    // The same again travels as unchanged.
    installation.send();
    assert_eq!(installation.rows("torture", &["id"], "id").len(), expected.len());
}

macro_rules! torture {
    ($($name:ident: $erp:expr => $target:expr;)+) => {
        $(#[test]
        fn $name() {
            arrives(&$erp, $target);
        })+
    };
}

torture! {
    postgres_to_sqlite: Erp::postgres(Way::Native) => Target::Sqlite;
    postgres_to_postgres: Erp::postgres(Way::Native) => Target::Postgres;
    mariadb_to_sqlite: Erp::mariadb(Way::Native) => Target::Sqlite;
    mariadb_to_postgres: Erp::mariadb(Way::Native) => Target::Postgres;
    sqlite_to_sqlite: Erp::sqlite(Way::Native) => Target::Sqlite;
    sqlite_to_postgres: Erp::sqlite(Way::Native) => Target::Postgres;
    odbc_of_postgres_to_sqlite: Erp::postgres(Way::Odbc) => Target::Sqlite;
    odbc_of_mariadb_to_postgres: Erp::mariadb(Way::Odbc) => Target::Postgres;
    odbc_of_sqlite_to_postgres: Erp::sqlite(Way::Odbc) => Target::Postgres;
}
