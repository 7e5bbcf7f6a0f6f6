//! What Windows offers and the standard library does not: secrets that only this machine can read, access control lists, folders of
//! the machine, renames and room on a disk, files that others have open, programs with all that they start, and the Event Log. The one room with `unsafe`.
//!
//! On other systems every function here answers [`std::io::ErrorKind::Unsupported`], but for those of [`sharing`], which do there
//! what they are given.

pub mod acl;
pub mod disk;
pub mod dpapi;
pub mod event_log;
pub mod folders;
pub mod job;
#[cfg(windows)]
pub mod services;
pub mod sharing;
#[cfg(windows)]
mod wide;

#[cfg(not(windows))]
fn unsupported<T>() -> std::io::Result<T> {
    Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "only Windows has this"))
}

#[cfg(not(windows))]
#[cfg(test)]
mod tests {
    use std::{io::ErrorKind, path::Path};

    use super::*;

    #[test]
    fn other_systems_say_that_they_have_none_of_this() {
        let kinds = [
            dpapi::protect(b"x").unwrap_err().kind(),
            dpapi::unprotect(b"x").unwrap_err().kind(),
            acl::restrict_to_owner(Path::new("/x"), None).unwrap_err().kind(),
            acl::restrict_to_owner_in(Path::new("/"), "x".as_ref(), None).unwrap_err().kind(),
            acl::is_private(Path::new("/x")).unwrap_err().kind(),
            acl::is_protected(Path::new("/x")).unwrap_err().kind(),
            acl::is_of_trusted(Path::new("/x")).unwrap_err().kind(),
            acl::is_of_administrators(Path::new("/x")).unwrap_err().kind(),
            acl::publish(Path::new("/x")).unwrap_err().kind(),
            disk::rename(Path::new("/x"), Path::new("/y")).unwrap_err().kind(),
            disk::rename_new(Path::new("/x"), Path::new("/y")).unwrap_err().kind(),
            disk::free_space(Path::new("/")).unwrap_err().kind(),
            folders::data().unwrap_err().kind(),
            folders::program().unwrap_err().kind(),
            folders::program_data().unwrap_err().kind(),
            job::Job::of(1).unwrap_err().kind(),
            event_log::register("x").unwrap_err().kind(),
            event_log::report("x", event_log::Level::Error, "x").unwrap_err().kind(),
        ];
        assert_eq!(kinds, [ErrorKind::Unsupported; 18]);
    }
}
