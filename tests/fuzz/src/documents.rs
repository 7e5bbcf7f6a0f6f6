//! The documents of a transfer and of a relay.

use towpath_keys::{ReleaseKeys, sign_announcement, verify_announcement};
use towpath_transfer::{
    announcement::{Announcement, MAX_ANNOUNCED_KEYS, RelayKeys, SignedAnnouncement},
    digest::Sha256Digest,
    manifest::{MAX_FILES, Manifest},
    md5sums,
    packed::{PackedList, is_reserved, packed_name},
    receipt::{Receipt, SignedReceipt},
    release::{MAX_PACKAGE_BYTES, MAX_PACKAGES, Package, PackageKind, Release},
};

use crate::{
    samples::{self, KEY, RELAY_URL},
    texts,
};

pub(crate) fn manifest(data: &[u8]) {
    let Ok(manifest) = Manifest::parse(data) else { return };
    assert!(manifest.files.len() <= MAX_FILES);
    for file in &manifest.files {
        assert!(!is_reserved(&file.name) && packed_name(&file.name).is_ok(), "{}", file.name);
    }
    let bytes = manifest.to_bytes().unwrap();
    assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);
    // The packed list that fits it is accepted, and no other one.
    let digest = Sha256Digest::of(data);
    let files = manifest
        .sent_files()
        .map(|file| towpath_transfer::packed::PackedFile { name: packed_name(&file.name).unwrap(), size: 14, sha256: digest })
        .collect();
    let mut list = PackedList { version: 1, transfer: manifest.transfer, manifest: digest, files };
    list.check_against(&manifest, digest).unwrap();
    assert_eq!(PackedList::parse(&list.to_bytes().unwrap()).unwrap(), list);
    if list.files.pop().is_some() {
        assert!(list.check_against(&manifest, digest).is_err());
    }
}

pub(crate) fn manifest_seeds() -> Vec<Vec<u8>> {
    vec![samples::manifest().to_bytes().unwrap(), samples::downlink().to_bytes().unwrap()]
}

pub(crate) fn packed_list(data: &[u8]) {
    let Ok(list) = PackedList::parse(data) else { return };
    assert_eq!(list.to_bytes().unwrap(), data);
    let manifest = samples::manifest();
    if list.check_against(&manifest, list.manifest).is_ok() {
        assert!(list.files.iter().map(|file| &file.name).eq(samples::packed_list().files.iter().map(|file| &file.name)));
    }
}

pub(crate) fn packed_list_seeds() -> Vec<Vec<u8>> {
    vec![samples::packed_list().to_bytes().unwrap()]
}

pub(crate) fn receipt(data: &[u8]) {
    if let Ok(receipt) = Receipt::parse(data) {
        assert_eq!(Receipt::parse(&receipt.to_bytes().unwrap()).unwrap(), receipt);
        let outcome = receipt.outcome();
        assert_eq!(receipt.key().id, receipt.transfer);
        assert_eq!(outcome.is_none(), receipt.stage == towpath_transfer::receipt::ReceiptStage::Accepted);
    }
    if let Ok(signed) = serde_json::from_slice::<SignedReceipt>(data) {
        assert_eq!(signed.parse().ok(), Receipt::parse(signed.receipt.as_bytes()).ok());
    }
}

pub(crate) fn receipt_seeds() -> Vec<Vec<u8>> {
    let bytes = samples::receipt().to_bytes().unwrap();
    let receipt = String::from_utf8(bytes.clone()).unwrap();
    let signature = KEY.sign(towpath_keys::Namespace::Receipt, &bytes).unwrap();
    let signed = serde_json::to_vec(&SignedReceipt { receipt, signature }).unwrap();
    vec![bytes, samples::rejected().to_bytes().unwrap(), signed]
}

pub(crate) fn release(data: &[u8]) {
    let Ok(release) = Release::parse(data) else { return };
    assert!((1..=MAX_PACKAGES).contains(&release.packages.len()) && release.follows <= release.version);
    for package in &release.packages {
        assert!((1..=MAX_PACKAGE_BYTES).contains(&package.size) && !package.file.as_str().starts_with(['.', '-']));
        assert!(release.packages.iter().filter(|one| one.file == package.file).count() == 1, "{}", package.file);
    }
    assert_eq!(Release::parse(&release.to_bytes().unwrap()).unwrap(), release);
    assert!(release.check_follows(release.version).is_err());
    assert!(ReleaseKeys::of(vec![KEY.public_line().try_into().unwrap()]).open(data, b"no signature").is_err());
}

pub(crate) fn release_seeds() -> Vec<Vec<u8>> {
    let package = |kind, file: &str| Package {
        kind,
        arch: "x86_64".into(),
        file: file.parse().unwrap(),
        size: 3,
        sha256: Sha256Digest::of(b"abc"),
    };
    let packages = vec![package(PackageKind::Deb, "a.deb"), package(PackageKind::Rpm, "a.rpm")];
    vec![Release::of("1.4.0".parse().unwrap(), "1.3.0".parse().unwrap(), packages).to_bytes().unwrap()]
}

pub(crate) fn announcement(data: &[u8]) {
    let pinned = RelayKeys::from(Announcement { serial: 0, ..samples::announcement() });
    if let Ok(announcement) = Announcement::parse(data) {
        assert!((1..=MAX_ANNOUNCED_KEYS).contains(&announcement.receipt_keys.len()));
        assert_eq!(Announcement::parse(&announcement.to_bytes().unwrap()).unwrap(), announcement);
        // Signed by a pinned key it counts for this relay and no other.
        if let Ok(signed) = sign_announcement(&KEY, &announcement) {
            let verified = verify_announcement(&signed, RELAY_URL, &pinned);
            match verified {
                Ok(Some(found)) => assert_eq!((&found, found.relay_url.as_str()), (&announcement, RELAY_URL)),
                Ok(None) => assert!(announcement.serial <= pinned.serial, "only what is known already is no news"),
                Err(_) => {}
            }
        }
    }
    if let Ok(signed) = serde_json::from_slice::<SignedAnnouncement>(data)
        && let Ok(Some(found)) = verify_announcement(&signed, RELAY_URL, &pinned)
    {
        assert_eq!(found, samples::announcement(), "nobody else has the key that signs");
    }
}

pub(crate) fn announcement_seeds() -> Vec<Vec<u8>> {
    let announcement = samples::announcement();
    let signed = sign_announcement(&KEY, &announcement).unwrap();
    vec![announcement.to_bytes().unwrap(), serde_json::to_vec(&signed).unwrap()]
}

pub(crate) fn md5sums(data: &[u8]) {
    let Ok(entries) = md5sums::parse(data) else { return };
    assert!(entries.len() <= md5sums::MAX_ENTRIES);
    let text = md5sums::write(entries.iter().map(|entry| (&entry.md5, &entry.name))).unwrap();
    assert_eq!(md5sums::parse(text.as_bytes()).unwrap(), entries);
}

pub(crate) fn md5sums_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "900150983cd24fb0d6963f7d28e17f72  items.csv\nd41d8cd98f00b204e9800998ecf8427e *list.csv\n",
        "\\900150983cd24fb0d6963f7d28e17f72  a\\\\b\\n\\r\n",
        "",
    ])
}
