//! The keys that are trusted, in OpenSSH's `allowed_signers` file (ssh-keygen(1), ALLOWED SIGNERS), which
//! `ssh-keygen -Y verify -f` reads as well.
//!
//! Of that format only what a pin store needs is accepted: exact principals, and the option `namespaces` with exact names. A
//! line that says more than that (a pattern, a certificate authority, a validity interval) is refused rather than understood
//! differently from `ssh-keygen`.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use towpath_transfer::{Code, Failure, failure::Result};

use crate::{
    file::{self, Access, Existing},
    public::PublicKey,
    sshsig::{self, Namespace},
};

/// The largest `allowed_signers` file, in bytes.
pub const MAX_ALLOWED_SIGNERS_BYTES: u64 = 1024 * 1024;
/// The longest principal, in bytes.
pub const MAX_PRINCIPAL_BYTES: usize = 255;

/// The namespace of a key that is believed no more; nobody signs in it.
const WITHDRAWN: &str = "withdrawn";

/// One trusted key: who may sign with it, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    principals: Vec<String>,
    namespaces: Vec<String>,
    key: PublicKey,
}

impl Pin {
    /// Who may sign with the key.
    #[must_use]
    pub fn principals(&self) -> &[String] {
        &self.principals
    }

    /// For what; empty means for everything, as OpenSSH has it.
    #[must_use]
    pub fn namespaces(&self) -> &[String] {
        &self.namespaces
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    fn allows(&self, principal: &str, namespace: Namespace) -> bool {
        self.has_principal(principal) && (self.namespaces.is_empty() || self.namespaces.iter().any(|n| n == namespace.as_str()))
    }

    fn has_principal(&self, principal: &str) -> bool {
        self.principals.iter().any(|p| p == principal)
    }

    fn is_withdrawn(&self) -> bool {
        self.namespaces == [WITHDRAWN]
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.principals.join(","))?;
        if !self.namespaces.is_empty() {
            write!(f, " namespaces=\"{}\"", self.namespaces.join(","))?;
        }
        write!(f, " {}", self.key)
    }
}

#[derive(Debug, Clone)]
enum Line {
    /// A comment or an empty line, kept as it is.
    Other(String),
    Pin(Pin),
}

/// The pinned keys, and the file they are kept in.
///
/// A loaded store is a snapshot; [`AllowedSigners::add`] and [`AllowedSigners::withdraw`] work on the file's newest content,
/// under a lock (`<path>.lock`), and refresh the snapshot.
#[derive(Debug, Clone)]
pub struct AllowedSigners {
    path: PathBuf,
    lines: Vec<Line>,
}

impl AllowedSigners {
    /// Reads the file; a missing one is an empty store.
    ///
    /// # Errors
    /// [`Code::KeyPermissions`] when group or others can write it; [`Code::ConfigInvalid`] with the line number when a line is
    /// not accepted; [`Code::KeyInvalid`] when it is larger than [`MAX_ALLOWED_SIGNERS_BYTES`]; [`Code::FileFailed`].
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(path, &file::read(path, Access::Pinned, MAX_ALLOWED_SIGNERS_BYTES)?.unwrap_or_default())
    }

    /// The store that these bytes are, which stand at `path`.
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let text = str::from_utf8(bytes)
            .map_err(|e| Failure::park(Code::ConfigInvalid, format!("{} is not UTF-8", path.display())).caused_by(e))?;
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate() {
            lines.push(parse_line(line).map_err(|why| {
                let place = format!("line {} of {} was not accepted", index + 1, path.display());
                Failure::park(Code::ConfigInvalid, place).caused_by(why)
            })?);
        }
        Ok(Self { path: path.to_owned(), lines })
    }

    /// Every pin, in the order of the file.
    pub fn pins(&self) -> impl Iterator<Item = &Pin> {
        self.lines.iter().filter_map(|line| match line {
            Line::Pin(pin) => Some(pin),
            Line::Other(_) => None,
        })
    }

    /// The keys by which `principal` may sign for `namespace`; several while keys are rotated.
    pub fn lookup(&self, principal: &str, namespace: Namespace) -> impl Iterator<Item = &PublicKey> {
        self.pins().filter(move |pin| pin.allows(principal, namespace)).map(Pin::key)
    }

    /// Whether a key of `principal` was ever trusted here, also where it is not any more.
    #[must_use]
    pub fn knows(&self, principal: &str) -> bool {
        self.pins().any(|pin| pin.has_principal(principal))
    }

    /// Whether trust in this key of `principal` was taken back, and not given again.
    #[must_use]
    pub fn is_withdrawn(&self, principal: &str, key: &PublicKey) -> bool {
        self.pins().any(|pin| pin.is_withdrawn() && pin.has_principal(principal) && pin.key == *key)
    }

    /// Checks a signature by any of the keys that [`AllowedSigners::lookup`] finds, and says which one it was.
    ///
    /// # Errors
    /// [`Code::SignatureInvalid`] when it is malformed, by no pinned key, for another purpose or over other bytes.
    pub fn verify(&self, principal: &str, namespace: Namespace, message: &[u8], signature: &[u8]) -> Result<PublicKey> {
        let signer = sshsig::signer_of(signature)?;
        if !self.lookup(principal, namespace).any(|key| *key == signer) {
            let by = signer.fingerprint();
            let message = format!("a signature was not accepted: {by} is not a pinned key of {principal} for {namespace}");
            return Err(Failure::park(Code::SignatureInvalid, message));
        }
        sshsig::verify(signature, namespace, message, &signer)?;
        Ok(signer)
    }

    /// Trusts `key` for `principal` in `namespaces` (none given: in all). `false` when it was trusted for all of that already, and when
    /// trust in it was [taken back](Self::withdraw).
    ///
    /// # Errors
    /// [`Code::ConfigInvalid`] when the principal cannot stand in the file; [`Code::LimitExceeded`] when the file would be too
    /// large; those of [`AllowedSigners::load`]; [`Code::FileFailed`] and [`Code::DiskFull`] when it cannot be written.
    pub fn add(&mut self, principal: &str, namespaces: &[Namespace], key: &PublicKey) -> Result<bool> {
        self.add_where(principal, namespaces, key, |known| !known.is_withdrawn(principal, key))
    }

    /// As [`AllowedSigners::add`], where another key of the principal is trusted for all of that.
    ///
    /// # Errors
    /// As [`AllowedSigners::add`].
    pub fn add_beside(&mut self, principal: &str, namespaces: &[Namespace], key: &PublicKey, beside: &PublicKey) -> Result<bool> {
        self.add_where(principal, namespaces, key, |known| {
            let trusted = |namespace: &Namespace| known.lookup(principal, *namespace).any(|one| one == beside);
            namespaces.iter().all(trusted) && !known.is_withdrawn(principal, key)
        })
    }

    /// As [`AllowedSigners::add`], by the word of a person, which counts also where trust in the key was taken back.
    ///
    /// # Errors
    /// As [`AllowedSigners::add`].
    pub fn approve(&mut self, principal: &str, namespaces: &[Namespace], key: &PublicKey) -> Result<bool> {
        self.add_where(principal, namespaces, key, |_| true)
    }

    /// Whether it may be added is asked under the lock, of what stands in the file then.
    fn add_where(
        &mut self,
        principal: &str,
        namespaces: &[Namespace],
        key: &PublicKey,
        may_be: impl FnOnce(&Self) -> bool,
    ) -> Result<bool> {
        if !is_exact_name(principal) {
            let message = format!("{principal:?} cannot be a principal: use letters, digits and . _ @ - + : /");
            return Err(Failure::park(Code::ConfigInvalid, message));
        }
        let _lock = file::lock(&self.path)?;
        let mut fresh = Self::load(&self.path)?;
        let known = |namespace: &Namespace| fresh.lookup(principal, *namespace).any(|k| k == key);
        let everywhere = fresh.pins().any(|p| p.namespaces.is_empty() && p.has_principal(principal) && p.key == *key);
        let is_new = !everywhere && (namespaces.is_empty() || !namespaces.iter().all(known));
        let changed = is_new && may_be(&fresh);
        if changed {
            let namespaces = namespaces.iter().map(ToString::to_string).collect();
            fresh.strike(principal, |pin| pin.key == *key && pin.is_withdrawn());
            fresh.lines.push(Line::Pin(Pin { principals: vec![principal.to_owned()], namespaces, key: key.clone() }));
            fresh.save()?;
        }
        *self = fresh;
        Ok(changed)
    }

    /// Trusts no key of `principal` any longer, in any namespace, and returns those that were trusted. They stay in the file as
    /// withdrawn, so that whoever believes a principal that is not [known](Self::knows) does not begin anew with one of them.
    ///
    /// # Errors
    /// As [`AllowedSigners::add`].
    pub fn withdraw(&mut self, principal: &str) -> Result<Vec<PublicKey>> {
        let _lock = file::lock(&self.path)?;
        let mut fresh = Self::load(&self.path)?;
        let mut keys: Vec<PublicKey> = Vec::new();
        for pin in fresh.pins().filter(|pin| pin.has_principal(principal) && !pin.is_withdrawn()) {
            if !keys.contains(&pin.key) {
                keys.push(pin.key.clone());
            }
        }
        if !keys.is_empty() {
            fresh.strike(principal, |pin| keys.contains(&pin.key));
            fresh.lines.extend(keys.iter().map(|key| {
                let (principals, namespaces) = (vec![principal.to_owned()], vec![WITHDRAWN.to_owned()]);
                Line::Pin(Pin { principals, namespaces, key: key.clone() })
            }));
            fresh.save()?;
        }
        *self = fresh;
        Ok(keys)
    }

    /// Takes the principal out of the pins that are meant.
    fn strike(&mut self, principal: &str, is_meant: impl Fn(&Pin) -> bool) {
        self.lines.retain_mut(|line| match line {
            Line::Pin(pin) if pin.has_principal(principal) && is_meant(pin) => {
                pin.principals.retain(|p| p != principal);
                !pin.principals.is_empty()
            }
            _ => true,
        });
    }

    /// What is written to the file.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            match line {
                Line::Other(other) => text.push_str(other),
                Line::Pin(pin) => text.push_str(&pin.to_string()),
            }
            text.push('\n');
        }
        text
    }

    fn save(&self) -> Result<()> {
        let text = self.text();
        if text.len() as u64 > MAX_ALLOWED_SIGNERS_BYTES {
            let message = format!("{} would be larger than {MAX_ALLOWED_SIGNERS_BYTES} bytes", self.path.display());
            return Err(Failure::park(Code::LimitExceeded, message));
        }
        file::write(&self.path, text.as_bytes(), Access::Pinned, Existing::Replace, "new")
            .map_err(|e| file::write_failed(&self.path, e))
    }
}

/// A name that OpenSSH's pattern matching takes literally.
fn is_exact_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'@' | b'-' | b'+' | b':' | b'/');
    (1..=MAX_PRINCIPAL_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}

fn exact_names(list: &str) -> Option<Vec<String>> {
    list.split(',').map(|name| is_exact_name(name).then(|| name.to_owned())).collect()
}

fn parse_line(line: &str) -> Result<Line, Box<dyn std::error::Error + Send + Sync>> {
    let trimmed = line.trim();
    if trimmed.is_empty() || trimmed.starts_with('#') {
        return Ok(Line::Other(line.to_owned()));
    }
    let (principals, rest) = trimmed.split_once([' ', '\t']).ok_or("it has no key")?;
    let principals = exact_names(principals).ok_or("its principals are not a list of plain names")?;
    let rest = rest.trim_start();
    let (namespaces, key) = match strip_option(rest, "namespaces=\"") {
        Some(after) => {
            let (list, key) = after.split_once('"').ok_or("a quotation mark is missing")?;
            if !key.starts_with([' ', '\t']) {
                return Err("only the option namespaces is supported".into());
            }
            (exact_names(list).ok_or("its namespaces are not a list of plain names")?, key.trim_start())
        }
        None if rest.starts_with("ssh-") => (Vec::new(), rest),
        None => return Err("only the option namespaces, and RSA and Ed25519 keys, are supported".into()),
    };
    Ok(Line::Pin(Pin { principals, namespaces, key: key.parse()? }))
}

/// OpenSSH compares the names of options without regard to case.
fn strip_option<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, thread};

    use towpath_transfer::clock::SeededEntropy;

    use super::*;
    use crate::{
        identity::Identity,
        kind::KeyKind,
        testing::{ed25519, other, rsa, try_ssh_keygen},
    };

    const WHO: &str = "acme.erp1";
    const BOTH: &[Namespace] = &[Namespace::Manifest, Namespace::Receipt];

    fn store(folder: &tempfile::TempDir) -> AllowedSigners {
        AllowedSigners::load(&folder.path().join("allowed_signers")).unwrap()
    }

    fn text(store: &AllowedSigners) -> String {
        fs::read_to_string(&store.path).unwrap()
    }

    #[test]
    fn ssh_keygen_judges_as_we_do() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(&folder);
        assert!(store.add(WHO, BOTH, rsa().public_key()).unwrap());
        assert!(store.add("acme.receiver", &[Namespace::Receipt], ed25519().public_key()).unwrap());
        let path = store.path.to_str().unwrap().to_owned();
        let signature_path = folder.path().join("sig");
        for signer in [rsa(), ed25519(), other()] {
            for namespace in Namespace::ALL {
                let signature = signer.sign(*namespace, b"text").unwrap();
                fs::write(&signature_path, &signature).unwrap();
                for principal in [WHO, "acme.receiver", "acme.nobody"] {
                    let arguments = ["-Y", "verify", "-f", &path, "-I", principal, "-n", namespace.as_str(), "-s"];
                    let arguments = [&arguments[..], &[signature_path.to_str().unwrap()]].concat();
                    let judged = try_ssh_keygen(&arguments, b"text").is_ok();
                    let ours = store.verify(principal, *namespace, b"text", signature.as_bytes());
                    assert_eq!(ours.is_ok(), judged, "{principal} {namespace} {signer:?}");
                    match ours {
                        Ok(key) => assert_eq!(key, *signer.public_key()),
                        Err(failure) => assert_eq!(failure.code(), Code::SignatureInvalid),
                    }
                }
            }
        }
        let signature = rsa().sign(Namespace::Manifest, b"text").unwrap();
        let failure = store.verify(WHO, Namespace::Manifest, b"other", signature.as_bytes()).unwrap_err();
        assert_eq!(failure.code(), Code::SignatureInvalid);
    }

    #[test]
    fn adding_changes_nothing_twice() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(&folder);
        let (old, new) = (rsa().public_key(), ed25519().public_key());
        assert!(store.add(WHO, BOTH, old).unwrap());
        assert!(!store.add(WHO, BOTH, old).unwrap());
        assert!(!store.add(WHO, &[Namespace::Receipt], old).unwrap());
        assert_eq!(text(&store), format!("{WHO} namespaces=\"towpath-manifest@1,towpath-receipt@1\" {old}\n"));
        assert_eq!(fs::metadata(&store.path).unwrap().permissions().mode() & 0o022, 0);
        // While a key is rotated, both are trusted.
        assert!(store.add(WHO, BOTH, new).unwrap());
        assert_eq!(store.lookup(WHO, Namespace::Manifest).collect::<Vec<_>>(), [old, new]);
        assert_eq!(store.lookup(WHO, Namespace::Enrol).count(), 0);
        assert_eq!(store.lookup("acme.erp", Namespace::Manifest).count(), 0);
        assert!(store.add(WHO, &[Namespace::Enrol], new).unwrap());
        assert!(store.add(WHO, &[], new).unwrap());
        assert!(!store.add(WHO, &[], new).unwrap() && !store.add(WHO, &[Namespace::Enrol], new).unwrap());
    }

    #[test]
    fn what_was_taken_back_is_known_and_believed_no_more_until_it_is_given_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(&folder);
        let (old, new) = (rsa().public_key(), ed25519().public_key());
        assert!(store.withdraw(WHO).unwrap().is_empty() && !store.knows(WHO));
        for key in [old, new] {
            store.add(WHO, BOTH, key).unwrap();
        }
        store.add(WHO, &[Namespace::Enrol], new).unwrap();
        assert_eq!(store.withdraw(WHO).unwrap(), [old.clone(), new.clone()]);
        assert!(store.withdraw(WHO).unwrap().is_empty());
        assert_eq!(text(&store), format!("{WHO} namespaces=\"withdrawn\" {old}\n{WHO} namespaces=\"withdrawn\" {new}\n"));
        assert!(Namespace::ALL.iter().all(|namespace| store.lookup(WHO, *namespace).next().is_none()));
        assert!(store.knows(WHO) && store.is_withdrawn(WHO, old) && !store.is_withdrawn("acme.other", old));
        assert!(!store.add(WHO, BOTH, new).unwrap() && store.is_withdrawn(WHO, new), "only a person gives it again");
        let third = other().public_key();
        assert!(!store.add_beside(WHO, BOTH, third, new).unwrap());
        assert!(store.approve(WHO, BOTH, new).unwrap());
        assert!(store.is_withdrawn(WHO, old) && !store.is_withdrawn(WHO, new));
        assert!(!store.add_beside(WHO, BOTH, old, new).unwrap());
        assert_eq!(store.lookup(WHO, Namespace::Manifest).collect::<Vec<_>>(), [new]);
        assert_eq!(store.pins().count(), 2);
        assert!(store.add_beside(WHO, BOTH, third, new).unwrap());
    }

    #[test]
    fn what_an_operator_wrote_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("allowed_signers");
        let (a, b) = (rsa().public_key(), ed25519().public_key());
        fs::write(&path, format!("# ours\n\n{WHO},acme.erp2 {a} a comment\nacme.x\tNAMESPACES=\"towpath-enrol@1\" {b}\n"))
            .unwrap();
        let mut store = AllowedSigners::load(&path).unwrap();
        assert_eq!(store.lookup("acme.erp2", Namespace::Enrol).collect::<Vec<_>>(), [a]);
        assert_eq!(store.lookup("acme.x", Namespace::Manifest).count(), 0);
        assert_eq!(store.pins().next().unwrap().principals(), [WHO, "acme.erp2"]);
        assert_eq!(store.pins().nth(1).unwrap().namespaces(), ["towpath-enrol@1"]);
        assert_eq!(store.withdraw(WHO).unwrap(), std::slice::from_ref(a));
        let theirs = format!("# ours\n\nacme.erp2 {a}\nacme.x namespaces=\"towpath-enrol@1\" {b}\n");
        assert_eq!(text(&store), format!("{theirs}{WHO} namespaces=\"withdrawn\" {a}\n"));
    }

    #[test]
    fn lines_that_say_more_are_refused_with_their_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("allowed_signers");
        let key = ed25519().public_key();
        let ecdsa = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY=";
        for bad in [
            format!("* {key}"),
            format!("!acme.erp1 {key}"),
            format!("acme.*,{WHO} {key}"),
            format!("\"{WHO}\" {key}"),
            format!("{WHO}, {key}"),
            format!("{WHO} cert-authority {key}"),
            format!("{WHO} valid-before=\"20200101\" {key}"),
            format!("{WHO} namespaces=\"file\",cert-authority {key}"),
            format!("{WHO} namespaces=\"*\" {key}"),
            format!("{WHO} namespaces=\"\" {key}"),
            format!("{WHO} namespaces=\"file {key}"),
            format!("{WHO} namespaces=file {key}"),
            format!("{WHO} {ecdsa}"),
            format!("{WHO} ssh-ed25519 AAAA"),
            WHO.to_owned(),
            key.to_string(),
        ] {
            fs::write(&path, format!("# comment\n{bad}\n")).unwrap();
            let failure = AllowedSigners::load(&path).unwrap_err();
            assert_eq!(failure.code(), Code::ConfigInvalid, "{bad}");
            assert!(failure.message().starts_with("line 2 of "), "{failure}");
        }
        fs::write(&path, [b'#', 0xff]).unwrap();
        assert_eq!(AllowedSigners::load(&path).unwrap_err().code(), Code::ConfigInvalid);
    }

    #[test]
    fn names_that_mean_something_to_openssh_cannot_be_added() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(&folder);
        let long = "a".repeat(MAX_PRINCIPAL_BYTES + 1);
        for bad in ["", "*", "a,b", "a b", "a\nb", "!a", "\"a\"", "#a", &long] {
            assert_eq!(store.add(bad, BOTH, rsa().public_key()).unwrap_err().code(), Code::ConfigInvalid, "{bad:?}");
        }
        assert!(!store.path.exists());
    }

    #[test]
    fn the_file_is_limited_and_must_be_ours_alone_to_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("allowed_signers");
        fs::write(&path, vec![b'#'; MAX_ALLOWED_SIGNERS_BYTES as usize]).unwrap();
        let mut store = AllowedSigners::load(&path).unwrap();
        assert_eq!(store.add(WHO, BOTH, rsa().public_key()).unwrap_err().code(), Code::LimitExceeded);
        fs::write(&path, vec![b'#'; MAX_ALLOWED_SIGNERS_BYTES as usize + 1]).unwrap();
        assert_eq!(AllowedSigners::load(&path).unwrap_err().code(), Code::KeyInvalid);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(AllowedSigners::load(&path).unwrap_err().code(), Code::KeyPermissions);
    }

    #[test]
    fn writers_at_the_same_time_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let keys: Vec<_> = (0..16).map(|seed| Identity::generate(KeyKind::Ed25519, &SeededEntropy::new(seed)).unwrap()).collect();
        let stale = store(&folder);
        thread::scope(|scope| {
            for key in &keys {
                let mut store = stale.clone();
                scope.spawn(move || assert!(store.add(WHO, BOTH, key.public_key()).unwrap()));
            }
        });
        assert_eq!(store(&folder).lookup(WHO, Namespace::Manifest).count(), keys.len());
    }
}
