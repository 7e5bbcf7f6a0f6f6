//! Every rule of the oracle is proven to see what it is for: something is broken on purpose, and found within a few seeds.

use towpath_simulation::{
    Options,
    broken::{Broken, Wrong},
    run,
};

/// Within so many seeds it must be found. Nothing else goes wrong in them, so that each is cheap.
const SEEDS: u64 = 16;

/// The first complaint, which must say `what`.
#[track_caller]
fn found(wrong: Wrong, what: &str) {
    let complaint = |seed| {
        let options = Options { most_faults: Some(0), broken: Some(Broken::new(wrong)), ..Options::default() };
        let outcome = run(seed, &options);
        outcome.wrong.iter().find(|wrong| wrong.contains(what)).cloned().ok_or(outcome.wrong)
    };
    let complaints: Vec<_> = (1..=SEEDS).map(complaint).take_while(Result::is_err).collect();
    assert!((complaints.len() as u64) < SEEDS, "{wrong:?} was not found by {what:?}: {complaints:?}");
}

#[test]
fn half_a_file_that_is_visible_is_found() {
    found(Wrong::PublishesHalf, "which nobody has sent as it is");
}

#[test]
fn a_file_that_is_delivered_twice_is_found() {
    found(Wrong::DeliversTwice, "was delivered 2 times");
}

#[test]
fn an_import_that_was_not_done_is_found() {
    found(Wrong::ForgetsImports, "and the agent believes in");
}

#[test]
fn a_lost_row_is_found() {
    found(Wrong::LosesRows, "which was read from state");
}

#[test]
fn a_file_at_another_tenant_is_found() {
    found(Wrong::CrossesTenants, "has something of");
}

#[test]
fn what_is_never_removed_is_found() {
    found(Wrong::KeepsEverything, "is left");
}

#[test]
fn files_that_are_never_closed_are_found() {
    found(Wrong::KeepsFilesOpen, "files are open");
}

#[test]
fn tasks_that_never_end_are_found() {
    found(Wrong::KeepsTasks, "tasks are alive");
}

#[test]
fn a_lost_receipt_is_found() {
    found(Wrong::LosesReceipts, "receipts differ or are missing");
}

#[test]
fn a_standstill_is_found() {
    found(Wrong::StandsStill, "does not come to rest");
}

#[test]
fn a_signature_of_a_stranger_is_found() {
    found(Wrong::SignsAsStranger, "whom nobody knows");
}

#[test]
fn a_key_that_was_not_kept_is_found() {
    found(Wrong::LosesKeys, "and the relay knows");
}

#[test]
fn a_retired_key_that_is_let_in_is_found() {
    found(Wrong::KeepsOldKeys, "which is retired");
}

#[test]
fn a_revoked_agent_that_is_let_in_is_found() {
    found(Wrong::IgnoresRevocations, "in, which was revoked");
}

#[test]
fn what_comes_from_a_revoked_agent_is_found() {
    found(Wrong::IgnoresRevocations, "since it was revoked");
}

#[test]
fn a_transfer_that_was_given_up_and_taken_all_the_same_is_found() {
    found(Wrong::TakesAndRefuses, "has left the agent");
}

#[test]
fn a_rejection_that_nothing_explains_is_found() {
    found(Wrong::ForgetsApprovals, "AgentUnapproved");
}

#[test]
fn a_journal_that_does_not_replay_is_found() {
    found(Wrong::LosesEvents, "is recorded with another number of events than it has");
}

#[test]
fn a_transfer_that_another_tenant_knows_is_found() {
    found(Wrong::NotesOfOthers, ": knows ");
}

#[test]
fn a_lease_that_is_never_given_back_is_found() {
    found(Wrong::KeepsLeases, "leases are held");
}
