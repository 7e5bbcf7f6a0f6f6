//! Tables that come as changes: what they build on, what their keys take away, and what the receipt says.

use towpath_transfer::{
    Code, TransferState,
    manifest::{Drift, SqlType},
    receipt::ReceiptStage,
};
use towpath_transport::files::{FaultFiles, FileOp};

use super::{CONTENT, imported, once, receipt, record, rejected, run_with};
use crate::testing::{Bench, Folder, Is, Plain, Sent, folder, id, sealed, sent, table};

fn of(is: Is, csv: &str, base: Option<u8>) -> Plain {
    Plain { is, base: base.map(id), ..table("items", csv) }
}

fn with(n: u8, tables: Vec<Plain>) -> Sent {
    Sent { tables, ..sent(n) }
}

async fn import(bench: &Bench, n: u8, tables: Vec<Plain>) {
    imported(bench, &bench.parts, "erp", id(n), &folder(&with(n, tables), &bench.erp)).await;
}

async fn refuse(bench: &Bench, n: u8, tables: Vec<Plain>) -> Code {
    rejected(bench, &bench.parts, "erp", id(n), &folder(&with(n, tables), &bench.erp)).await.code
}

const WHOLE: &str = "n,t\r\n1,a\r\n2,b\r\n3,c\r\n";

#[tokio::test]
async fn changes_and_keys_make_the_table_what_the_erp_has() {
    let bench = Bench::new().await;
    import(&bench, 1, vec![of(Is::Keyed, WHOLE, None)]).await;
    let drift = vec![Drift::Changed { column: "t".parse().unwrap(), from: SqlType::Date, to: SqlType::Text }];
    let changes = Plain { drift: drift.clone(), ..of(Is::Changes, "n,t\r\n2,x\r\n4,d\r\n2,y\r\n", Some(1)) };
    import(&bench, 2, vec![changes]).await;
    assert_eq!(bench.query("erp", "main", CONTENT).await, ["1/a", "2/y", "3/c", "4/d"]);
    let counted = &receipt(&bench, id(2)).rows[0];
    assert_eq!((counted.rows, &counted.drift), (4, &drift));
    // Rows 1 and 3 are gone at the ERP.
    let keys = of(Is::Keys, "n\r\n2\r\n4\r\n5\r\n", None);
    import(&bench, 3, vec![of(Is::Changes, "n,t\r\n5,e\r\n", Some(2)), table("other", WHOLE), keys]).await;
    assert_eq!(bench.query("erp", "main", CONTENT).await, ["2/y", "4/d", "5/e"]);
    let counted: Vec<u64> = receipt(&bench, id(3)).rows.iter().map(|rows| rows.rows).collect();
    assert_eq!(counted, [3, 3]);
    // Without a base the changes are all there is.
    import(&bench, 4, vec![of(Is::Changes, "n,t\r\n9,z\r\n", None)]).await;
    assert_eq!(bench.query("erp", "main", CONTENT).await, ["9/z"]);
}

#[tokio::test]
async fn changes_need_exactly_what_they_build_on() {
    let bench = Bench::new().await;
    let changes = |base| vec![of(Is::Changes, "n,t\r\n4,d\r\n", Some(base))];
    assert_eq!(refuse(&bench, 1, changes(9)).await, Code::BaseMissing);
    import(&bench, 2, vec![of(Is::Keyed, WHOLE, None)]).await;
    assert_eq!(refuse(&bench, 3, changes(1)).await, Code::BaseMissing);
    import(&bench, 4, changes(2)).await;
    // After a merge the table is what that merge has left.
    assert_eq!(refuse(&bench, 5, changes(2)).await, Code::BaseMissing);
    // A merged table is not the content of the file that was merged last, however alike that is.
    assert_eq!(refuse(&bench, 6, vec![of(Is::Keyed, "n,t\r\n4,d\r\n", Some(4))]).await, Code::BaseMissing);
    // The app has lost a row.
    let _ = bench.query("erp", "main", "DELETE FROM items WHERE n = '1'").await;
    assert_eq!(refuse(&bench, 7, changes(4)).await, Code::BaseMissing);
    // Without a key it is another table.
    import(&bench, 8, vec![table("items", WHOLE)]).await;
    assert_eq!(refuse(&bench, 9, changes(8)).await, Code::BaseMissing);
    assert_eq!(bench.query("erp", "main", "SELECT count(*) || '' FROM items").await, ["3"]);
}

#[tokio::test]
async fn a_key_that_the_app_lacks_means_that_a_base_is_missing() {
    let bench = Bench::new().await;
    import(&bench, 1, vec![of(Is::Keyed, WHOLE, None)]).await;
    let changes = of(Is::Changes, "n,t\r\n4,d\r\n", Some(1));
    let keys = of(Is::Keys, "n\r\n1\r\n4\r\n7\r\n", None);
    assert_eq!(refuse(&bench, 2, vec![changes, keys]).await, Code::BaseMissing);
    assert_eq!(bench.query("erp", "main", "SELECT count(*) || '' FROM items").await, ["3"]);
}

#[tokio::test]
async fn two_rows_of_one_key_and_keys_that_lie_are_rejected() {
    let bench = Bench::new().await;
    assert_eq!(refuse(&bench, 1, vec![of(Is::Keyed, "n,t\r\n1,a\r\n1,b\r\n", None)]).await, Code::ContentInvalid);
    import(&bench, 2, vec![of(Is::Keyed, WHOLE, None)]).await;
    let changes = of(Is::Changes, "n,t\r\n4,d\r\n", Some(2));
    let doubled = of(Is::Keys, "n\r\n1\r\n1\r\n", None);
    assert_eq!(refuse(&bench, 3, vec![changes.clone(), doubled]).await, Code::ContentInvalid);
    // Keys are compared with the manifest as tables are.
    let keys = of(Is::Keys, "n\r\n1\r\n4\r\n", None);
    let sent = with(4, vec![changes.clone(), keys.clone()]);
    let lie = sealed(&crate::testing::manifest(&sent), &[changes, Plain { csv: "n\r\n1\r\n5\r\n".into(), ..keys }], &bench.erp);
    let code = rejected(&bench, &bench.parts, "erp", id(4), &lie).await.code;
    assert!(matches!(code, Code::ContentInvalid | Code::DigestMismatch), "{code}");
    assert_eq!(bench.query("erp", "main", CONTENT).await.len(), 3);
}

#[tokio::test]
async fn drift_and_rows_survive_a_stop_before_the_receipt() {
    let bench = Bench::new().await;
    let plan = once(FileOp::Rename, |path| path.ends_with("imported.json"));
    let files = FaultFiles::new(bench.files.clone(), plan);
    let parts = bench.parts_with(|parts| parts.files = std::sync::Arc::new(files));
    let drift = vec![Drift::Added { column: "t".parse().unwrap(), to: SqlType::Text }];
    let whole: Folder = folder(&with(1, vec![Plain { drift: drift.clone(), ..of(Is::Keyed, WHOLE, None) }]), &bench.erp);
    bench.land("erp", id(1), &whole);
    let key = Bench::key("erp", id(1));
    let seen = run_with(&bench, &parts, std::slice::from_ref(&key), || ()).await;
    assert!(seen.contains(&"retrying"), "{seen:?}");
    assert_eq!(record(&bench, &key).await.state, TransferState::Imported);
    let receipt = receipt(&bench, id(1));
    assert_eq!((receipt.stage, receipt.rows[0].rows, &receipt.rows[0].drift), (ReceiptStage::Imported, 3, &drift));
}
