//! Which user this process is.

/// The largest file of users that is read, in bytes.
#[cfg(unix)]
const MAX_PASSWD_BYTES: u64 = 1024 * 1024;

/// The user by whom checks are made now, as people call it.
#[cfg(unix)]
pub(super) fn present() -> String {
    use std::io::Read as _;

    let id = rustix::process::geteuid().as_raw();
    let mut users = String::new();
    let read = std::fs::File::open("/etc/passwd").and_then(|file| file.take(MAX_PASSWD_BYTES).read_to_string(&mut users));
    let name = read.ok().and_then(|_| name_of(&users, id));
    name.map_or_else(|| format!("uid {id}"), str::to_owned)
}

/// `passwd(5)`: the name, a password, and the id are the first three fields.
#[cfg(unix)]
fn name_of(users: &str, id: u32) -> Option<&str> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, its) = (fields.next()?, fields.nth(1)?);
        (its.parse() == Ok(id) && !name.is_empty()).then_some(name)
    })
}

#[cfg(not(unix))]
pub(super) fn present() -> String {
    std::env::var("USERNAME").unwrap_or_else(|_| "the present user".to_owned())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_called_by_name() {
        let users = "root:x:0:0:root:/root:/bin/sh\nbad\ntowpath:x:998:998::/:/bin/false\n";
        assert_eq!((name_of(users, 998), name_of(users, 0), name_of(users, 5)), (Some("towpath"), Some("root"), None));
        assert!(!present().is_empty());
    }
}
