//! What never leaves: columns that are left out, values behind pseudonyms, and NUL characters.

use towpath_transfer::{Disposition, manifest::Mode};

use super::{
    app::{Chain, incremental},
    *,
};
use crate::config::{NulPolicy, Overlap};

const PEOPLE: &str = "CREATE TABLE people (no BIGINT PRIMARY KEY, name TEXT, iban TEXT, born DATE, changed BIGINT);
    INSERT INTO people VALUES (8472913, 'Wilhelmine Käfer', 'DE02120300000000202051', '1961-05-04', 1),
        (8472914, NULL, '', '1999-01-01', 2);
    CREATE TABLE orders (id INTEGER PRIMARY KEY, customer VARCHAR(20), contact TEXT);
    INSERT INTO orders VALUES (1, '8472913', 'Wilhelmine Käfer'), (2, '8472914', 'Käfer');";

/// What must not be found anywhere.
const PLAIN: [&str; 5] = ["8472913", "8472914", "Wilhelmine", "Käfer", "DE0212"];

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

fn people() -> TableConfig {
    TableConfig {
        omit: names(&["born"]),
        pseudonymise: names(&["no", "name", "iban"]),
        ..incremental("people", &["no"], &["changed"], Overlap::Equal)
    }
}

fn orders() -> TableConfig {
    TableConfig { pseudonymise: names(&["customer", "contact"]), ..whole("orders") }
}

/// Every byte that an extract has left, with the manifest that names it.
fn everything(chain: &Chain, manifest: &Manifest) -> String {
    let files = chain.place.listed().into_iter().map(|name| std::fs::read(chain.place.folder.join(name)).unwrap());
    let bytes: Vec<u8> = files.flatten().chain(manifest.to_bytes().unwrap()).collect();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn personal_values_are_in_no_file_and_equal_ones_have_equal_pseudonyms() {
    let mut chain = Chain::new(PEOPLE, vec![people(), orders()]).await;
    let first = chain.send().await;
    chain.place.run("UPDATE people SET changed = 3 WHERE no = 8472913").await;
    chain.later(Duration::from_secs(8 * 24 * 3_600));
    let second = chain.send().await;
    assert_eq!(second.files[1].name.as_str(), "people.keys.csv");
    for manifest in [&first, &second] {
        let all = everything(&chain, manifest);
        for plain in PLAIN {
            assert!(!all.contains(plain), "{plain}");
        }
        assert!(!all.contains("1961-05-04") && !all.contains("born"));
    }
    let (people, orders) = (chain.app.rows("people"), chain.app.rows("orders"));
    assert_eq!((people.len(), people[0].len()), (2, 4));
    // The customer of the orders is the number of the person, though one is a number and the other a text.
    for order in &orders {
        assert_eq!(people.iter().filter(|person| person[0] == order[1]).count(), 1);
    }
    let contact = orders[0][2].as_deref().unwrap();
    assert!(contact.len() == 32 && contact.bytes().all(|b| b.is_ascii_hexdigit()), "{contact}");
    assert!(people.iter().any(|person| person[1].as_deref() == Some(contact)));
    assert!(people.iter().any(|person| person[1].is_none()), "NULL stays NULL");
    let told = table(&first.files[0]);
    assert_eq!(told.pseudonymised.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["no", "name", "iban"]);
    assert_eq!(types(&first.files[0]), ["TEXT", "TEXT", "TEXT", "BIGINT"]);
    assert_eq!(told.pseudonym_key, Some(chain.pseudonyms.fingerprint()));
    assert_eq!(told.totals.len(), 1);
    // With another key nothing of the app can be gone on with.
    chain.pseudonyms = towpath_keys::PseudonymKey::from_bytes(&[8; 32]);
    let other = chain.send().await;
    assert_eq!(table(&other.files[0]).mode, Mode::Replace);
    assert!(!other.files[1].unchanged);
    assert_ne!(chain.app.rows("orders")[0][2].as_deref(), Some(contact));
}

#[tokio::test]
async fn a_refused_value_behind_a_pseudonym_is_not_shown() {
    let mut chain = Chain::new(
        "CREATE TABLE people (no TEXT, born DATE); INSERT INTO people VALUES ('SECRET-1', '4.5.1961');",
        vec![TableConfig { pseudonymise: names(&["no", "born"]), ..whole("people") }],
    )
    .await;
    let told = |failure: Failure| {
        assert_eq!((failure.code(), failure.disposition()), (Code::ErpValue, Disposition::Park));
        let report = format!("{} {failure:?}", failure.report());
        assert!(!report.contains("SECRET") && !report.contains("1961"), "{report}");
        failure.message().to_owned()
    };
    let message = told(chain.read(false).await.unwrap_err());
    assert!(message.contains("column born, row 1: a value that is not shown is not a DATE"), "{message}");
    chain.tables[0] = typed(chain.tables[0].clone(), &[("no", "DECIMAL(5,2)")]);
    assert!(told(chain.read(false).await.unwrap_err()).contains("is not a DECIMAL(5,2)"));
    chain.place.run("UPDATE people SET no = 'SECRET-' || char(0)").await;
    chain.tables[0].types.clear();
    assert!(told(chain.read(false).await.unwrap_err()).contains("holds a NUL character"));
    chain.place.run("UPDATE people SET no = 12345678.125").await;
    chain.tables[0] = typed(chain.tables[0].clone(), &[("no", "DECIMAL(9,1)")]);
    let failure = chain.read(false).await.unwrap_err();
    assert!(!failure.report().contains("12345678"), "{}", failure.report());
}

#[tokio::test]
async fn the_key_of_pseudonyms_is_made_only_where_it_is_needed() {
    let place = Place::new("CREATE TABLE a (x TEXT); INSERT INTO a VALUES ('Meier');").await;
    let path = place.folder.with_file_name("pseudonym_key");
    let entropy: Arc<dyn towpath_transfer::Entropy> = Arc::new(towpath_transfer::clock::SeededEntropy::new(1));
    let with = || ExtractParts { pseudonyms: Arc::new(KeyFile { path: path.clone(), entropy: Arc::clone(&entropy) }), ..parts() };
    let extract_with = async |table: TableConfig| {
        let (events, _) = mpsc::channel(1);
        extract(&with(), place.request(vec![table]), events, CancellationToken::new()).await
    };
    extract_with(whole("a")).await.unwrap();
    assert!(!path.exists());
    let hidden = || TableConfig { pseudonymise: names(&["x"]), ..whole("a") };
    let first = extract_with(hidden()).await.unwrap();
    assert!(path.exists());
    assert_eq!(extract_with(hidden()).await.unwrap().files[0].sha256, first.files[0].sha256);
    std::fs::write(&path, "nonsense").unwrap();
    assert_eq!(extract_with(hidden()).await.unwrap_err().code(), Code::KeyInvalid);
}

#[tokio::test]
async fn nul_characters_stop_or_are_replaced_and_counted() {
    let sql = "CREATE TABLE a (id INTEGER, t TEXT, b BLOB, n BIGINT);
        INSERT INTO a VALUES (1, 'a' || char(0) || char(0) || 'b', x'00', 1), (2, char(0), x'', 2), (3, 'c', NULL, 3);";
    let mut chain = Chain::new(sql, vec![whole("a")]).await;
    assert_eq!(chain.read(false).await.unwrap_err().code(), Code::ErpValue);
    chain.tables[0].nul = NulPolicy::Replace;
    let sent = chain.send().await;
    assert_eq!(table(&sent.files[0]).nul_replaced, 2);
    let texts: Vec<Option<String>> = chain.app.rows("a").into_iter().map(|row| row[1].clone()).collect();
    assert_eq!(texts, [Some("a\u{fffd}\u{fffd}b".to_owned()), Some("\u{fffd}".to_owned()), Some("c".to_owned())]);
    // Bytes have no characters, and a number none to replace.
    assert_eq!(chain.app.rows("a")[0][2].as_deref(), Some("AA=="));
    chain.place.run("UPDATE a SET n = '4' || char(0) WHERE id = 3").await;
    assert_eq!(chain.read(false).await.unwrap_err().code(), Code::ErpValue);
    chain.place.run("UPDATE a SET n = 3; UPDATE a SET t = CAST(x'00ff' AS TEXT) WHERE id = 3").await;
    let failure = chain.read(false).await.unwrap_err();
    assert!(failure.message().contains("not UTF-8"), "{failure}");
}
