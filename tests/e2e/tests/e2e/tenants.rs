//! Two tenants with equal names at once: nothing crosses.

use towpath_testkit::{AGENT, World, assert_same_tables, query_texts};

use crate::{executable, tables};

#[test]
fn two_tenants_with_equal_names_at_once() {
    let world = World::new(executable());
    let (first, _) = world.end("acme", 800, 1);
    let (second, _) = world.end("bolt", 800, 2);
    let _relay = world.serve_relay();
    for end in [&first, &second] {
        world.create_tenant(&end.tenant);
        world.enrol(end);
    }
    let _receivers = [first.receiver.serve(&["serve"]), second.receiver.serve(&["serve"])];
    let mut sending = [&first, &second].map(|end| end.agent.start(&["send", "--job", "main", "--wait"]));
    assert!(sending.iter_mut().all(|send| send.wait().success()));

    assert_same_tables(&first.erp, &first.app(), &tables());
    assert_same_tables(&second.erp, &second.app(), &tables());
    let company = |end: &towpath_testkit::End| query_texts(&end.app(), "SELECT * FROM company");
    assert_ne!(company(&first), company(&second), "the sample companies must differ for this test to mean anything");
    for (end, other) in [(&first, &second), (&second, &first)] {
        let (id, _) = end.newest();
        assert!(!world.spool(&other.tenant, &id).exists());
        let elsewhere = other.receiver.state.join("landing").join("uplink").join(AGENT).join(&id);
        assert!(!elsewhere.exists());
    }
}
