use std::path::PathBuf;

use towpath_transfer::{
    Sequence,
    digest::FileHasher,
    manifest::{Content, FileEntry},
    packed::PackedFile,
    receipt::TableRows,
    state::{Outcome, Rejection},
};

use super::*;
use crate::{
    identity::Identity,
    sshsig,
    testing::{ed25519, other, rsa},
};

/// The three parties of every test.
fn key_of(party: Party) -> &'static Identity {
    match party {
        Party::Agent => rsa(),
        Party::Relay => other(),
        Party::Receiver => ed25519(),
    }
}

struct Pins;

impl Believes for Pins {
    fn signer(&self, party: Party, namespace: Namespace, message: &[u8], signature: &[u8]) -> Result<Signer> {
        let key = key_of(party).public_key().clone();
        sshsig::verify(signature, namespace, message, &key)?;
        let name = match party {
            Party::Agent => "erp",
            Party::Relay => RELAY_PRINCIPAL,
            Party::Receiver => "app",
        };
        Ok(Signer { name: name.to_owned(), key })
    }
}

fn key() -> TransferKey {
    let id = "01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5b".parse().unwrap();
    TransferKey { tenant: "acme".parse().unwrap(), agent: "erp".parse().unwrap(), id }
}

fn manifest(direction: Direction) -> Manifest {
    let mut hasher = FileHasher::new();
    hasher.update(b"orders");
    let found = hasher.finish();
    let file = FileEntry {
        name: "orders.csv".parse().unwrap(),
        media_type: "text/csv".into(),
        size: found.size,
        md5: found.md5,
        sha256: found.sha256,
        unchanged: false,
        base: None,
        content: Content::File,
    };
    Manifest {
        version: 1,
        transfer: key().id,
        direction,
        tenant: key().tenant,
        agent: key().agent,
        job: "main".parse().unwrap(),
        kind: (direction == Direction::Downlink).then(|| "recommended-orders".parse().unwrap()),
        created: "2026-01-02T03:04:05Z".parse().unwrap(),
        sequence: Sequence(1),
        snapshot: None,
        files: vec![file],
    }
}

fn receipt(direction: Direction, stage: ReceiptStage) -> Receipt {
    Receipt {
        version: 1,
        transfer: key().id,
        tenant: key().tenant,
        agent: key().agent,
        direction,
        stage,
        manifest: Some(Sha256Digest::of(&manifest(direction).to_bytes().unwrap())),
        rows: if stage == ReceiptStage::Imported { vec![TableRows::new("t".parse().unwrap(), 3)] } else { Vec::new() },
        reason: (stage == ReceiptStage::Rejected)
            .then(|| Rejection { code: Code::DigestMismatch, detail: "orders.csv differs".into() }),
        time: "2026-01-02T03:05:00Z".parse().unwrap(),
        signer: key_of(Party::of(direction, Some(stage))).fingerprint(),
    }
}

fn signed_by(receipt: &Receipt, identity: &Identity) -> SignedReceipt {
    let bytes = receipt.to_bytes().unwrap();
    let signature = identity.sign(Namespace::Receipt, &bytes).unwrap();
    SignedReceipt { receipt: String::from_utf8(bytes).unwrap(), signature }
}

fn signed(receipt: &Receipt) -> SignedReceipt {
    signed_by(receipt, key_of(Party::of(receipt.direction, Some(receipt.stage))))
}

fn document<T>(name: &str, content: Option<T>, due: bool) -> Document<T> {
    Document { path: PathBuf::from("/kept").join(name), content: Ok(content), due }
}

fn kept(direction: Direction, receipts: &[Receipt]) -> Kept {
    let bytes = manifest(direction).to_bytes().unwrap();
    let signature = key_of(Party::of(direction, None)).sign(Namespace::Manifest, &bytes).unwrap().into_bytes();
    let receipts = RECEIPTS.map(|stage| {
        let found = receipts.iter().find(|receipt| receipt.stage == stage).map(signed);
        (stage, document(&format!("{}.json", stage.as_str()), found, false))
    });
    Kept {
        manifest: document("manifest.json", Some((bytes, signature)), true),
        packed: document("packed.json", None, false),
        receipts: receipts.into_iter().collect(),
    }
}

fn replace(kept: &mut Kept, stage: ReceiptStage, with: Option<SignedReceipt>, due: bool) {
    let (_, document) = kept.receipts.iter_mut().find(|(of, _)| *of == stage).unwrap();
    (document.content, document.due) = (Ok(with), due);
}

fn checked(direction: Direction, kept: Kept) -> Chain {
    check(&key(), direction, &TransferState::Delivered, kept, &Pins)
}

fn says(chain: &Chain) -> Vec<&str> {
    chain.links.iter().map(|link| link.says.as_str()).collect()
}

const DOWN: Direction = Direction::Downlink;

#[test]
fn both_ways_say_who_has_signed_what() {
    let down = [receipt(DOWN, ReceiptStage::Accepted), receipt(DOWN, ReceiptStage::Delivered)];
    let chain = checked(DOWN, kept(DOWN, &down));
    assert!(chain.ok && chain.problem().is_none(), "{chain:?}");
    assert_eq!(
        says(&chain),
        [
            "receiver app signed, on 2026-01-02T03:04:05Z, that 1 file of kind recommended-orders, 6 bytes, are what it sends to \
             agent erp for job main",
            "the relay signed, on 2026-01-02T03:05:00Z, that it held every file of exactly this manifest, whole",
            "agent erp signed, on 2026-01-02T03:05:00Z, that every file of exactly this manifest was delivered to the ERP",
        ]
    );
    let lines = chain.lines();
    assert!(lines[0].contains("(downlink, delivered)") && lines[3].starts_with("ok    delivered.json "), "{lines:?}");
    assert!(lines[3].contains("(key SHA256:"), "{lines:?}");

    let up = Direction::Uplink;
    let chain = checked(up, kept(up, &[receipt(up, ReceiptStage::Accepted), receipt(up, ReceiptStage::Imported)]));
    assert!(chain.ok, "{chain:?}");
    let said = says(&chain).join("\n");
    assert!(said.contains("agent erp signed, on 2026-01-02T03:04:05Z, that 0 rows in 1 tables of job main"), "{said}");
    assert!(said.contains("receiver app signed, on 2026-01-02T03:05:00Z, that the app has all 3 rows in 1 tables"), "{said}");
}

#[test]
fn a_rejection_says_why_and_by_whom() {
    for (direction, words) in [(DOWN, "agent erp signed"), (Direction::Uplink, "receiver app signed")] {
        let chain = checked(direction, kept(direction, &[receipt(direction, ReceiptStage::Rejected)]));
        let last = &chain.links.last().unwrap().says;
        assert!(chain.ok && last.contains(words) && last.ends_with("orders.csv differs [digest-mismatch]"), "{last}");
        let outcome = receipt(direction, ReceiptStage::Rejected).outcome();
        assert!(matches!(outcome, Some(Outcome::Rejected(_))));
    }
}

#[test]
fn a_receipt_by_anybody_else_proves_nothing() {
    let stages = [
        (ReceiptStage::Accepted, Party::Agent),
        (ReceiptStage::Delivered, Party::Relay),
        (ReceiptStage::Rejected, Party::Receiver),
    ];
    for (stage, liar) in stages {
        // Whoever signs in another's name is caught whether or not the receipt names the liar's own key.
        for honest_about_it in [true, false] {
            let mut lie = receipt(DOWN, stage);
            if honest_about_it {
                lie.signer = key_of(liar).fingerprint();
            }
            let mut folder = kept(DOWN, &[]);
            replace(&mut folder, stage, Some(signed_by(&lie, key_of(liar))), true);
            let chain = checked(DOWN, folder);
            assert_eq!(chain.problem().unwrap().code(), Code::ReceiptInvalid, "{stage:?}");
        }
        let mut misnamed = receipt(DOWN, stage);
        misnamed.signer = key_of(liar).fingerprint();
        let mut folder = kept(DOWN, &[]);
        replace(&mut folder, stage, Some(signed(&misnamed)), true);
        assert!(checked(DOWN, folder).problem().unwrap().message().contains("has signed"));
    }
}

#[test]
fn what_belongs_to_something_else_is_wrong() {
    let changes: [fn(&mut Receipt); 5] = [
        |receipt| receipt.manifest = Some(Sha256Digest::of(b"other")),
        |receipt| receipt.agent = "other".parse().unwrap(),
        |receipt| receipt.tenant = "other".parse().unwrap(),
        |receipt| receipt.transfer = "01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5c".parse().unwrap(),
        |receipt| (receipt.direction, receipt.stage) = (Direction::Uplink, ReceiptStage::Accepted),
    ];
    for change in changes {
        let mut wrong = receipt(DOWN, ReceiptStage::Delivered);
        change(&mut wrong);
        let mut folder = kept(DOWN, &[]);
        replace(&mut folder, ReceiptStage::Delivered, Some(signed_by(&wrong, key_of(Party::Agent))), true);
        assert_eq!(checked(DOWN, folder).problem().unwrap().code(), Code::ReceiptInvalid, "{wrong:?}");
    }
    // A manifest of the other direction, and one whose bytes were changed.
    let mut foreign = kept(DOWN, &[]);
    let bytes = manifest(Direction::Uplink).to_bytes().unwrap();
    let signature = ed25519().sign(Namespace::Manifest, &bytes).unwrap().into_bytes();
    foreign.manifest.content = Ok(Some((bytes, signature)));
    assert_eq!(checked(DOWN, foreign).problem().unwrap().code(), Code::ManifestInvalid);
    let mut changed = kept(DOWN, &[receipt(DOWN, ReceiptStage::Delivered)]);
    if let Ok(Some((bytes, _))) = &mut changed.manifest.content {
        bytes.push(b' ');
    }
    let chain = checked(DOWN, changed);
    assert_eq!(chain.problem().unwrap().code(), Code::SignatureInvalid);
    assert!(chain.links[1].says.contains("no manifest that it could be for"), "{chain:?}");
}

#[test]
fn two_ends_of_one_transfer_contradict_each_other() {
    let both = [receipt(DOWN, ReceiptStage::Delivered), receipt(DOWN, ReceiptStage::Rejected)];
    let chain = checked(DOWN, kept(DOWN, &both));
    assert!(!chain.ok && chain.problem().unwrap().message().contains("delivered receipt of the same transfer"), "{chain:?}");
}

#[test]
fn what_is_due_and_missing_is_said_and_what_is_not_kept_is_not() {
    let mut folder = kept(DOWN, &[]);
    replace(&mut folder, ReceiptStage::Delivered, None, true);
    assert!(checked(DOWN, folder).problem().unwrap().message().contains("should be here and is missing"));
    let mut folder = kept(DOWN, &[]);
    folder.manifest = document("manifest.json", None, true);
    assert_eq!(checked(DOWN, folder).problem().unwrap().code(), Code::FileFailed);
    let mut folder = kept(DOWN, &[receipt(DOWN, ReceiptStage::Delivered)]);
    folder.manifest = document("manifest.json", None, false);
    let chain = checked(DOWN, folder);
    assert!(chain.ok && chain.links[0].says.contains("every file of the manifest with SHA-256 "), "{chain:?}");
    let mut folder = kept(DOWN, &[]);
    folder.manifest.content = Err(Failure::retry(Code::FileFailed, "reading failed"));
    folder.receipts[0].1.content = Err(Failure::retry(Code::FileFailed, "reading failed too"));
    let codes: Vec<Option<Code>> = checked(DOWN, folder).links.iter().map(|link| link.code).collect();
    assert_eq!(codes, [Some(Code::FileFailed), Some(Code::FileFailed)]);
}

#[test]
fn the_packed_list_must_be_the_manifests() {
    let of_manifest = Sha256Digest::of(&manifest(DOWN).to_bytes().unwrap());
    let file = PackedFile { name: "orders.csv.bz2".parse().unwrap(), size: 9, sha256: Sha256Digest::of(b"packed") };
    let list = PackedList { version: 1, transfer: key().id, manifest: of_manifest, files: vec![file] };
    let mut folder = kept(DOWN, &[]);
    folder.packed = document("packed.json", Some(list.to_bytes().unwrap()), true);
    let chain = checked(DOWN, folder);
    assert!(chain.ok && chain.links[1].says.ends_with("1 packed file"), "{chain:?}");
    for wrong in [
        PackedList { manifest: Sha256Digest::of(b"other"), ..list.clone() }.to_bytes().unwrap(),
        [list.to_bytes().unwrap(), b" ".to_vec()].concat(),
    ] {
        let mut folder = kept(DOWN, &[]);
        folder.packed = document("packed.json", Some(wrong), true);
        assert_eq!(checked(DOWN, folder).problem().unwrap().code(), Code::PackedListInvalid);
    }
    let mut folder = kept(DOWN, &[]);
    folder.packed = document("packed.json", None, true);
    assert_eq!(checked(DOWN, folder).problem().unwrap().code(), Code::PackedListInvalid);
}
