//! Whether a login may write.

use super::session::Session;

/// Privileges by which a login can change data or the structure of a database, or write files
/// (<https://mariadb.com/kb/en/grant/>, <https://dev.mysql.com/doc/refman/8.4/en/privileges-provided.html>).
const WRITES: [&str; 17] = [
    "ALL PRIVILEGES",
    "ALTER",
    "ALTER ROUTINE",
    "CREATE",
    "CREATE ROUTINE",
    "CREATE USER",
    "CREATE VIEW",
    "DELETE",
    "DELETE HISTORY",
    "DROP",
    "EVENT",
    "FILE",
    "INDEX",
    "INSERT",
    "SUPER",
    "TRIGGER",
    "UPDATE",
];
/// Privileges that a warning names at most.
const SHOWN: usize = 6;

/// What an administrator should know of the login.
pub(super) async fn warnings(session: &mut Session) -> Vec<String> {
    let user = session.user();
    match granted(session).await {
        Some(grants) => {
            let writes: Vec<String> = grants.iter().flat_map(|grant| writes_of(grant)).collect();
            if writes.is_empty() {
                return Vec::new();
            }
            let more = if writes.len() > SHOWN { ", …" } else { "" };
            let shown: Vec<&str> = writes.iter().take(SHOWN).map(String::as_str).collect();
            vec![format!(
                "the login {user} may write ({}{more}): an extract only reads, and a login that may only read is safer",
                shown.join(", ")
            )]
        }
        None => vec![format!("the server does not tell whether the login {user} may write")],
    }
}

/// The statements that would grant what the login has now, with its roles; `None` where the server does not tell.
async fn granted(session: &mut Session) -> Option<Vec<String>> {
    let doing = "asking what the login may do";
    // MariaDB shows the grants of active roles by itself; MySQL wants to be told which.
    let mut ask = "SHOW GRANTS".to_owned();
    if !session.is_mariadb() {
        let roles = session.texts(doing, "SELECT CURRENT_ROLE()".to_owned()).await.ok();
        let roles = roles.and_then(|rows| rows.into_iter().flatten().next().flatten());
        if let Some(roles) = roles.filter(|roles| roles != "NONE" && !roles.is_empty()) {
            ask = format!("SHOW GRANTS FOR CURRENT_USER() USING {roles}");
        }
    }
    let rows = session.texts(doing, ask).await.ok()?;
    Some(rows.into_iter().flatten().flatten().collect())
}

/// The writing privileges of `GRANT privileges ON object TO …`; a role's or a revoke's line has none.
fn writes_of(grant: &str) -> Vec<String> {
    let Some((privileges, rest)) = grant.strip_prefix("GRANT ").and_then(|rest| rest.split_once(" ON ")) else {
        return Vec::new();
    };
    let object = rest.rsplit_once(" TO ").map_or(rest, |(object, _)| object);
    // Column names stand in brackets behind their privilege, and may have commas.
    let mut names = String::with_capacity(privileges.len());
    let mut depth = 0_usize;
    for c in privileges.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            c if depth == 0 => names.push(c),
            _ => {}
        }
    }
    let writes = names.split(',').map(str::trim).filter(|name| WRITES.contains(name));
    writes.map(|name| format!("{name} on {object}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_that_write() {
        for (grant, expected) in [
            ("GRANT USAGE ON *.* TO `ro`@`%` IDENTIFIED BY PASSWORD '*B'", vec![]),
            ("GRANT SELECT, SHOW VIEW, PROCESS ON *.* TO `ro`@`%`", vec![]),
            ("GRANT SELECT (`insert`, `delete`) ON `e`.`t` TO `ro`@`%`", vec![]),
            ("GRANT `writer`@`%` TO `ro`@`%`", vec![]),
            ("REVOKE INSERT ON `e`.* FROM `ro`@`%`", vec![]),
            ("SET DEFAULT ROLE `r1` FOR `rr`@`%`", vec![]),
            ("GRANT ALL PRIVILEGES ON `e`.* TO `w`@`%` WITH GRANT OPTION", vec!["ALL PRIVILEGES on `e`.*"]),
            ("GRANT SELECT, INSERT, UPDATE (`a`, `b`) ON `e`.`t` TO `r1`", vec!["INSERT on `e`.`t`", "UPDATE on `e`.`t`"]),
            ("GRANT DELETE ON `e`.* TO PUBLIC", vec!["DELETE on `e`.*"]),
            ("GRANT EXECUTE ON FUNCTION `e`.`f` TO `ro`@`%`", vec![]),
        ] {
            assert_eq!(writes_of(grant), expected, "{grant}");
        }
    }
}
