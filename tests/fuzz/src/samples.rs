//! Valid documents, from which mutations begin.

use std::sync::LazyLock;

use jiff::Timestamp;
use towpath_keys::{Identity, KeyKind};
use towpath_transfer::{
    Direction, Sequence,
    announcement::Announcement,
    clock::SeededEntropy,
    digest::{FileHasher, Sha256Digest},
    failure::Code,
    manifest::{Column, Content, ControlTotal, FileEntry, Manifest, Mode, Snapshot, SqlType, Table},
    packed::{PackedFile, PackedList},
    receipt::{Receipt, ReceiptStage, TableRows},
    state::Rejection,
};

/// A key that everything here is signed with.
pub(crate) static KEY: LazyLock<Identity> =
    LazyLock::new(|| Identity::generate(KeyKind::Ed25519, &SeededEntropy::new(1)).expect("a key can be made"));
/// A key of the other kind.
pub(crate) static RSA: LazyLock<Identity> =
    LazyLock::new(|| Identity::generate(KeyKind::Rsa2048, &SeededEntropy::new(2)).expect("a key can be made"));

pub(crate) const RELAY_URL: &str = "https://relay.example";

fn file(name: &str, content: Content) -> FileEntry {
    let digests = FileHasher::new().finish();
    FileEntry {
        name: name.parse().unwrap(),
        media_type: "text/csv".into(),
        size: digests.size,
        md5: digests.md5,
        sha256: digests.sha256,
        unchanged: false,
        base: None,
        content,
    }
}

pub(crate) fn manifest() -> Manifest {
    let id = || Column { name: "Artikel Nr.".parse().unwrap(), sql_type: SqlType::Text, nullable: false };
    let price = Column { name: "Preis".parse().unwrap(), sql_type: SqlType::Decimal { precision: 12, scale: 2 }, nullable: true };
    let total = ControlTotal { column: "Preis".parse().unwrap(), count: 2, sum: "12.5".parse().unwrap() };
    let mut items = Table::whole("items".parse().unwrap(), vec![id(), price], 3, vec![total]);
    items.key = vec!["Artikel Nr.".parse().unwrap()];
    items.mode = Mode::Merge;
    let mut keys = Table::whole("items".parse().unwrap(), vec![id()], 3, Vec::new());
    keys.key.clone_from(&items.key);
    let mut unchanged = file("list.csv", Content::Table(Table::whole("list".parse().unwrap(), vec![id()], 0, Vec::new())));
    unchanged.unchanged = true;
    unchanged.base = Some("01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5a".parse().unwrap());
    Manifest {
        version: 1,
        transfer: "01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5b".parse().unwrap(),
        direction: Direction::Uplink,
        tenant: "acme".parse().unwrap(),
        agent: "erp".parse().unwrap(),
        job: "main".parse().unwrap(),
        kind: None,
        created: Timestamp::UNIX_EPOCH,
        sequence: Sequence(1),
        snapshot: Some(Snapshot { id: "1".into(), isolation: "serializable".into(), consistent: true }),
        files: vec![file("items.csv", Content::Table(items)), file("items.keys.csv", Content::Keys(keys)), unchanged],
    }
}

pub(crate) fn downlink() -> Manifest {
    Manifest {
        direction: Direction::Downlink,
        kind: Some("orders".parse().unwrap()),
        snapshot: None,
        files: vec![file("orders.pdf", Content::File)],
        ..manifest()
    }
}

pub(crate) fn packed_list() -> PackedList {
    let manifest = manifest();
    let packed = |name: &str| PackedFile { name: name.parse().unwrap(), size: 14, sha256: Sha256Digest::of(name.as_bytes()) };
    PackedList {
        version: 1,
        transfer: manifest.transfer,
        manifest: Sha256Digest::of(b"m"),
        files: vec![packed("items.csv.bz2"), packed("items.keys.csv.bz2")],
    }
}

pub(crate) fn receipt() -> Receipt {
    Receipt {
        version: 1,
        transfer: manifest().transfer,
        tenant: "acme".parse().unwrap(),
        agent: "erp".parse().unwrap(),
        direction: Direction::Uplink,
        stage: ReceiptStage::Imported,
        manifest: Some(Sha256Digest::of(b"m")),
        rows: vec![TableRows::new("items".parse().unwrap(), 3)],
        reason: None,
        time: Timestamp::UNIX_EPOCH,
        signer: KEY.fingerprint(),
    }
}

pub(crate) fn rejected() -> Receipt {
    let reason = Some(Rejection { code: Code::BaseMissing, detail: "no base".into() });
    Receipt { stage: ReceiptStage::Rejected, reason, manifest: None, ..receipt() }
}

pub(crate) fn announcement() -> Announcement {
    Announcement {
        version: 1,
        serial: 7,
        relay_url: RELAY_URL.into(),
        issued: Timestamp::UNIX_EPOCH,
        ssh_host_keys: vec![KEY.public_line().clone()],
        receipt_keys: vec![KEY.public_line().clone()],
        spki_pins: vec![Sha256Digest::of(b"pin")],
    }
}
