//! Names in a delivery folder: that of the file, or the next one that is free.

use std::{collections::HashSet, io::ErrorKind, path::Path};

use towpath_transfer::{
    Code, Failure,
    failure::Result,
    name::{FileName, MAX_COMPONENT_BYTES},
};
use towpath_transport::files::FileStore;

/// The most names that are tried for one file.
pub const MAX_NAMES: u32 = 1_000;

/// The `n`th name for a file, from 1: `orders.csv`, `orders (2).csv`, …
///
/// # Errors
/// `internal`, which no name that was accepted causes.
pub fn nth(name: &FileName, n: u32) -> Result<FileName> {
    if n <= 1 {
        return Ok(name.clone());
    }
    let text = name.as_str();
    // A dot at the very beginning begins no extension.
    let dot = text.rfind('.').filter(|at| *at > 0).unwrap_or(text.len());
    let (stem, extension) = text.split_at(dot);
    let number = format!(" ({n})");
    let room = MAX_COMPONENT_BYTES.saturating_sub(number.len() + extension.len());
    let mut end = stem.len().min(room);
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    let stem = stem.get(..end).unwrap_or_default();
    format!("{stem}{number}{extension}")
        .parse()
        .map_err(|error| Failure::park(Code::Internal, format!("the {n}th name for {name}")).caused_by(error))
}

/// The first name for a file that nothing in the folder has and that is not among `used`, which it joins.
///
/// # Errors
/// `delivery-failed` (retry) where the folder cannot be looked at, or [`MAX_NAMES`] names are taken.
pub fn free(files: &dyn FileStore, folder: &Path, name: &FileName, used: &mut HashSet<String>) -> Result<FileName> {
    for n in 1..=MAX_NAMES {
        let candidate = nth(name, n)?;
        if used.contains(&candidate.case_folded()) {
            continue;
        }
        match files.stat(&folder.join(candidate.as_str())) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                used.insert(candidate.case_folded());
                return Ok(candidate);
            }
            Ok(_) => {}
            Err(error) => {
                let message = format!("looking at the delivery folder {} failed", folder.display());
                return Err(Failure::retry(Code::DeliveryFailed, message).caused_by(error));
            }
        }
    }
    let message = format!("{} and {MAX_NAMES} names like it are taken in {}: clear the folder", name, folder.display());
    Err(Failure::retry(Code::DeliveryFailed, message))
}

#[cfg(test)]
mod tests {
    use towpath_transport::files::{MemoryFiles, write_whole};

    use super::*;

    fn named(text: &str, n: u32) -> String {
        nth(&text.parse().unwrap(), n).unwrap().to_string()
    }

    #[test]
    fn the_number_stands_before_the_extension() {
        assert_eq!(named("orders.csv", 1), "orders.csv");
        assert_eq!(named("orders.csv", 2), "orders (2).csv");
        assert_eq!(named("a.tar.gz", 3), "a.tar (3).gz");
        assert_eq!(named("README", 2), "README (2)");
        let long = format!("{}ä.csv", "x".repeat(MAX_COMPONENT_BYTES - 6));
        let second = named(&long, 1_000);
        assert!(second.len() <= MAX_COMPONENT_BYTES && second.ends_with(" (1000).csv"), "{second}");
    }

    #[test]
    fn a_taken_name_is_passed_over_and_the_tries_are_bounded() {
        let files = MemoryFiles::new();
        let folder = Path::new("/erp");
        files.create_dir_all(&folder.join("orders.csv")).unwrap();
        let name = "orders.csv".parse().unwrap();
        let mut used = HashSet::from(["orders (2).csv".to_owned()]);
        assert_eq!(free(&files, folder, &name, &mut used).unwrap().as_str(), "orders (3).csv");
        assert_eq!(free(&files, folder, &name, &mut used).unwrap().as_str(), "orders (4).csv");
        for n in 1..=MAX_NAMES {
            write_whole(&files, &folder.join(named("all.csv", n)), b"").unwrap();
        }
        let failure = free(&files, folder, &"all.csv".parse().unwrap(), &mut used).unwrap_err();
        assert_eq!(failure.code(), Code::DeliveryFailed);
    }
}
