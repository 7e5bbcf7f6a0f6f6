//! Whose a schema is.

use towpath_transfer::{Code, Disposition};

use super::{Bench, content, id, import_by, items, owner, scope};
use crate::import::{ImportScope, ImportTarget, OldRows::Removed};

pub(super) async fn all(bench: &dyn Bench) {
    a_schema_is_of_the_receiver_that_came_first(bench).await;
    an_import_that_was_given_up_takes_nothing(bench).await;
    a_schema_changes_hands_when_a_person_says_so(bench).await;
}

async fn refused(target: &dyn ImportTarget, scope: &ImportScope, by: &str) {
    let refused = target.begin(scope, id(9)).await.map(|_| ()).unwrap_err();
    assert_eq!((refused.code(), refused.disposition()), (Code::AppTaken, Disposition::Park));
    assert!(refused.report().contains(by), "{}", refused.report());
}

async fn a_schema_is_of_the_receiver_that_came_first(bench: &dyn Bench) {
    let mine = scope("first-come");
    import_by(bench.target(), &mine, 1, &items(), Removed, &[&[Some("1"), Some("a")]]).await.unwrap();
    // Another tenant's receiver, and one of the same tenant with another key.
    for other in [owner("other", 1), owner("acme", 2)] {
        let other = bench.target_of(other);
        refused(&*other, &mine, "tenant \"acme\"").await;
        assert_eq!(content(bench, &mine).await, ["1/a"]);
    }
    let other = bench.target_of(owner("other", 1));
    let theirs = scope("first-come-elsewhere");
    import_by(&*other, &theirs, 2, &items(), Removed, &[&[Some("2"), Some("b")]]).await.unwrap();
    refused(bench.target(), &theirs, "tenant \"other\"").await;
    import_by(bench.target(), &mine, 3, &items(), Removed, &[&[Some("3"), Some("c")]]).await.unwrap();
    assert_eq!(content(bench, &mine).await, ["3/c"]);
}

async fn an_import_that_was_given_up_takes_nothing(bench: &dyn Bench) {
    let scope = scope("given-up");
    drop(bench.target().begin(&scope, id(1)).await.unwrap());
    let other = bench.target_of(owner("other", 1));
    import_by(&*other, &scope, 2, &items(), Removed, &[]).await.unwrap();
    refused(bench.target(), &scope, "tenant \"other\"").await;
}

async fn a_schema_changes_hands_when_a_person_says_so(bench: &dyn Bench) {
    let (mine, unknown) = (scope("changes-hands"), scope("never-imported"));
    let new_key = bench.target_of(owner("acme", 2));
    assert_eq!(new_key.adopt(&unknown).await.unwrap_err().code(), Code::NotFound);
    import_by(bench.target(), &mine, 1, &items(), Removed, &[&[Some("1"), Some("a")]]).await.unwrap();
    assert!(!bench.target().adopt(&mine).await.unwrap(), "it was its own before");
    assert!(new_key.adopt(&mine).await.unwrap());
    assert!(!new_key.adopt(&mine).await.unwrap());
    let (open, ledger) = new_key.begin(&mine, id(1)).await.unwrap();
    drop(open);
    assert_eq!(ledger.this.map(|record| record.transfer), Some(id(1)), "what was imported stays imported");
    assert_eq!(content(bench, &mine).await, ["1/a"]);
    refused(bench.target(), &mine, "tenant \"acme\"").await;
}
