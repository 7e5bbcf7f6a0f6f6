//! The connection string, and connecting.

use odbc_api::{Connection, ConnectionOptions, Error, environment};

use super::dbms::Dbms;

/// How long a login may take, in seconds.
pub(super) const LOGIN_TIMEOUT_SECONDS: u32 = 15;
/// Characters for which the value of an attribute must stand in braces
/// (<https://learn.microsoft.com/en-us/sql/odbc/reference/syntax/sqldriverconnect-function>).
const SPECIAL: &[char] = &['[', ']', '{', '}', '(', ')', ',', ';', '?', '*', '=', '!', '@', ' '];

/// Connects with a whole connection string.
pub(super) fn connect(connection: &str) -> Result<Connection<'static>, Error> {
    let options = ConnectionOptions { login_timeout_sec: Some(LOGIN_TIMEOUT_SECONDS), packet_size: None };
    environment()?.connect_with_connection_string(connection, options)
}

/// A connection string, as the configuration has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionString<'a>(pub(super) &'a str);

impl<'a> ConnectionString<'a> {
    /// `key=value` for each attribute; a value in braces may hold semicolons.
    fn attributes(self) -> Vec<(&'a str, &'a str)> {
        let mut attributes = Vec::new();
        let mut rest = self.0;
        while let Some((key, after)) = rest.split_once('=') {
            let end = value_end(after);
            let (value, after) = after.split_at_checked(end).unwrap_or((after, ""));
            attributes.push((key.trim_start_matches(';').trim(), value.trim()));
            rest = after.strip_prefix(';').unwrap_or(after);
        }
        attributes
    }

    /// The value of an attribute, whose name is compared without case; the first one counts.
    pub(super) fn get(self, key: &str) -> Option<&'a str> {
        let found = self.attributes().into_iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
        found.map(|(_, value)| value.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(value))
    }

    /// The database that the driver's name tells, as far as that can be seen from here.
    pub(super) fn guess(self) -> Option<Dbms> {
        let driver = self.get("driver")?.to_ascii_lowercase();
        let has = |parts: &[&str]| parts.iter().any(|part| driver.contains(part));
        if has(&["psqlodbc", "postgresql"]) {
            Some(Dbms::PostgreSql)
        } else if has(&["maodbc", "myodbc", "mariadb", "mysql"]) {
            Some(Dbms::MySql)
        } else if has(&["sqlite"]) {
            Some(Dbms::Sqlite)
        } else {
            None
        }
    }

    /// What an administrator recognises the database by.
    pub(super) fn shown(self) -> String {
        let keys = ["dsn", "server", "servername", "host", "dbq", "database", "db"];
        let found: Vec<&str> = keys.iter().filter_map(|key| self.get(key)).collect();
        if found.is_empty() { "by ODBC".to_owned() } else { format!("{} by ODBC", found.join("/")) }
    }

    /// The string to connect with: the settings that `dbms` needs and the string does not name, the user, and the password.
    pub(super) fn whole(self, dbms: Option<&Dbms>, user: Option<&str>, password: Option<&str>) -> String {
        let mut whole = self.0.trim().trim_end_matches(';').to_owned();
        for (key, value) in dbms.map_or(&[][..], Dbms::driver_settings) {
            let same: &[&str] = if *key == "OPTION" { &["OPTION", "OPTIONS"] } else { &[*key] };
            if same.iter().all(|key| self.get(key).is_none()) {
                whole.push_str(&format!(";{key}={value}"));
            }
        }
        for (key, value) in [("UID", user), ("PWD", password)] {
            if let Some(value) = value {
                whole.push_str(&format!(";{key}={}", quoted(value)));
            }
        }
        whole.push(';');
        whole
    }
}

/// Where the value ends that `text` begins with.
fn value_end(text: &str) -> usize {
    if !text.trim_start().starts_with('{') {
        return text.find(';').unwrap_or(text.len());
    }
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '}' {
            continue;
        }
        // A brace within the value is doubled.
        match chars.peek() {
            Some((_, '}')) => drop(chars.next()),
            _ => return at + 1,
        }
    }
    text.len()
}

fn quoted(value: &str) -> String {
    if value.contains(SPECIAL) { format!("{{{}}}", value.replace('}', "}}")) } else { value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_whatever_their_values_hold() {
        let string = ConnectionString("DRIVER={My; Driver}}};Server = erp ;Port=1433;Database={a;b}; App=x=y");
        assert_eq!(string.get("driver"), Some("My; Driver}}"));
        assert_eq!(string.get("server"), Some("erp"));
        assert_eq!(string.get("DATABASE"), Some("a;b"));
        assert_eq!(string.get("app"), Some("x=y"));
        assert_eq!(string.get("uid"), None);
        assert_eq!(string.shown(), "erp/a;b by ODBC");
        assert_eq!(ConnectionString("").shown(), "by ODBC");
        assert_eq!(ConnectionString("Driver={never closed").get("driver"), Some("{never closed"));
    }

    #[test]
    fn user_and_password_keep_their_characters() {
        let string = ConnectionString("DSN=erp;");
        assert_eq!(string.whole(None, Some("reader"), Some("a;b}c")), "DSN=erp;UID=reader;PWD={a;b}}c};");
        assert_eq!(string.whole(None, None, None), "DSN=erp;");
    }

    #[test]
    fn settings_of_the_driver_are_added_unless_they_are_said() {
        let string = ConnectionString("Driver=/usr/lib/odbc/psqlodbcw.so;usedeclarefetch=0");
        let whole = string.whole(string.guess().as_ref(), None, None);
        assert!(whole.contains("usedeclarefetch=0") && !whole.contains("UseDeclareFetch=1"), "{whole}");
        assert!(whole.contains(";LFConversion=0;"), "{whole}");
        let string = ConnectionString("Driver={MariaDB Unicode};Options=3");
        assert!(!string.whole(string.guess().as_ref(), None, None).contains("OPTION="));
        assert_eq!(ConnectionString("Driver={ODBC Driver 18 for SQL Server}").guess(), None);
        assert_eq!(ConnectionString("DSN=erp").guess(), None);
    }
}
