//! Names, paths and everything small that is text.

use std::{fmt, str::FromStr};

use serde::{Serialize, de::DeserializeOwned};
use towpath_transfer::{
    AgentName, FileName, JobName, RemotePath, ReturnKind, TenantName, TransferId,
    api::Role,
    digest::{Md5Digest, Sha256Digest},
    manifest::{Label, SqlType},
    name::{MAX_COMPONENT_BYTES, MAX_PATH_BYTES, MAX_PATH_DEPTH},
    public_key::Fingerprint,
};
use towpath_transport::{
    dial::Way,
    server::{AnyPath, PathForm},
};

use crate::texts;

pub(crate) fn names(data: &[u8]) {
    if let Ok(path) = RemotePath::parse(data) {
        let text = path.to_string();
        assert!(text.starts_with('/') && text.len() <= MAX_PATH_BYTES, "{text:?}");
        assert!(path.components().len() <= MAX_PATH_DEPTH);
        assert_eq!(RemotePath::parse(text.as_bytes()).as_ref(), Ok(&path), "{text:?}");
        for name in path.components() {
            file_name(name.as_str());
        }
        let json = serde_json::to_vec(&path).unwrap();
        assert_eq!(serde_json::from_slice::<RemotePath>(&json).unwrap(), path);
        // Every view of a tenant takes no more than the general form does.
        assert!(<AnyPath as PathForm>::parse(data).is_ok());
    }
    if let Ok(path) = <AnyPath as PathForm>::parse(data) {
        let text = path.to_string();
        assert!(text.starts_with('/') && !text.contains('\0'), "{text:?}");
        assert!(text == "/" || text.split('/').skip(1).all(|name| !matches!(name, "" | "." | "..")), "{text:?}");
        assert_eq!(<AnyPath as PathForm>::parse(text.as_bytes()), Ok(path));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && text.parse::<FileName>().is_ok()
    {
        file_name(text);
        assert_eq!(RemotePath::parse(data).unwrap().to_string(), format!("/{text}"));
    }
}

fn file_name(text: &str) {
    let name: FileName = text.parse().unwrap();
    assert_eq!(name.as_str(), text);
    assert!((1..=MAX_COMPONENT_BYTES).contains(&text.len()));
    assert!(!text.contains(['/', '\\', '\0', ':']) && !matches!(text, "." | "..") && !text.ends_with(['.', ' ']), "{text:?}");
    let folded = name.case_folded();
    assert_eq!(folded.to_lowercase(), folded, "{text:?}");
    if let Ok(longer) = name.with_suffix(".bz2") {
        assert_eq!(longer.as_str(), format!("{text}.bz2"));
    }
}

pub(crate) fn names_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "/uplink/01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5b/manifest.json.part",
        "uplink/../downlink/./x//y",
        "../..",
        "/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p",
        "COM¹.txt",
        "con",
        "aux.csv",
        "a:b",
        "C:\\x",
        "x.",
        " x",
        "ÄÖÜ-ß-日本.csv",
        "a\u{fffd}",
        "a\u{202e}txt.exe",
        "a\0b",
        "İ",
        "ΑΣ",
    ])
}

/// Prints and parses to itself, also as JSON.
fn same<T>(text: &str)
where
    T: FromStr + fmt::Display + fmt::Debug + PartialEq + Serialize + DeserializeOwned,
{
    let json = serde_json::to_string(text).unwrap();
    let by_json = serde_json::from_str::<T>(&json).ok();
    let Ok(value) = text.parse::<T>() else {
        assert!(by_json.is_none(), "{text:?} is refused as text and accepted as JSON");
        return;
    };
    assert_eq!(by_json.as_ref(), Some(&value), "{text:?}");
    let printed = value.to_string();
    assert_eq!(printed.parse::<T>().ok().as_ref(), Some(&value), "{text:?}");
    assert_eq!(serde_json::to_value(&value).unwrap(), serde_json::Value::String(printed));
}

pub(crate) fn identifiers(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    same::<TenantName>(text);
    same::<AgentName>(text);
    same::<JobName>(text);
    same::<ReturnKind>(text);
    same::<TransferId>(text);
    same::<Label>(text);
    same::<SqlType>(text);
    same::<Md5Digest>(text);
    same::<Sha256Digest>(text);
    same::<Fingerprint>(text);
    if let Ok(role) = text.parse::<Role>() {
        assert_eq!(role.to_string(), text);
    }
    if let Ok(way) = text.parse::<Way>() {
        assert_eq!(way.to_string().parse::<Way>().ok(), Some(way));
    }
    // A name is a folder on disk, and part of an SFTP user.
    if let Ok(name) = text.parse::<TenantName>() {
        assert!(name.as_str().parse::<FileName>().is_ok() && !text.contains('.'), "{text:?}");
    }
    if let Ok(name) = text.parse::<AgentName>() {
        assert!(name.as_str().parse::<FileName>().is_ok() && !text.contains('.'), "{text:?}");
    }
}

pub(crate) fn identifiers_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "acme",
        "con",
        "nul",
        "com1",
        "acme-2",
        "01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5b",
        "01922C1E8A4F7D3A9B5E0C1D2E3F4A5B",
        "DECIMAL(18,4)",
        "TIMESTAMP WITH TIME ZONE",
        "BIGINT",
        "SHA256:ZkAslGjFiUHdGf/WUL8rQvkib4PTvQatUV0OUQSncCA",
        "900150983cd24fb0d6963f7d28e17f72",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "ssh:443",
        "tls:80",
        "agent",
        "Artikel Nr.",
    ])
}
