//! Which tables a table or query reads that are not of the snapshot.
//!
//! Only some storage engines keep old states of rows; tables of the others are read as they are when it is their turn. For a query
//! every name in it counts, and what the views and functions among them name in their turn: rather a table too many than one
//! too few. What the login may not look into is said, and taken for outside too.

use std::collections::{BTreeSet, VecDeque};

use towpath_transfer::Failure;

use super::{literal::text, session::Session};
use crate::config::TableConfig;

/// Engines for which `START TRANSACTION WITH CONSISTENT SNAPSHOT` has its effect (<https://mariadb.com/kb/en/start-transaction/>).
const ENGINES: [&str; 3] = ["InnoDB", "ROCKSDB", "TokuDB"];
/// Schemas of the server itself, in which no ERP keeps its data.
const OWN_SCHEMAS: &str = "'information_schema', 'performance_schema', 'mysql', 'sys'";
/// Names that one statement asks for.
const NAMES_AT_ONCE: usize = 500;
/// Tables, views and functions that are looked at for one query.
const MAX_OBJECTS: usize = 1_000;

/// A table, view or function, by schema and name.
type Object = (String, String);

/// What is still to be looked at.
enum Look {
    /// A table or view; the schema is the session's own where absent.
    Table(Option<String>, String),
    /// Whatever has one of these names.
    Names(BTreeSet<String>),
    /// Functions that have one of these names.
    Functions(BTreeSet<String>),
}

/// Sentences about what `table` reads that is not of the snapshot, or of which that is not known.
pub(super) async fn outside(session: &mut Session, table: &TableConfig) -> Result<Vec<String>, Failure> {
    let mut search = Search {
        doing: format!("preparing table {}", table.name),
        seen: BTreeSet::new(),
        open: VecDeque::new(),
        found: Vec::new(),
    };
    search.open.push_back(match &table.query {
        Some(query) => Look::Names(names(query)),
        None => Look::Table(table.schema.clone(), table.name.as_str().to_owned()),
    });
    while let Some(look) = search.open.pop_front() {
        if search.seen.len() > MAX_OBJECTS {
            search.found.push(format!("it reads more than {MAX_OBJECTS} tables, views and functions, too many to look at"));
            break;
        }
        match look {
            Look::Table(schema, name) => search.table(session, schema, name).await?,
            Look::Names(names) => search.names(session, names).await?,
            Look::Functions(names) => search.functions(session, &names).await?,
        }
    }
    let sentence = |why| format!("table {} is not, or not surely, of the same state as the others: {why}", table.name);
    Ok(search.found.into_iter().map(sentence).collect())
}

struct Search {
    doing: String,
    seen: BTreeSet<Object>,
    open: VecDeque<Look>,
    found: Vec<String>,
}

impl Search {
    async fn table(&mut self, session: &mut Session, schema: Option<String>, name: String) -> Result<(), Failure> {
        let of = schema.as_deref().map_or_else(|| "DATABASE()".to_owned(), text);
        let objects = self.objects(session, &format!("table_schema = {of} AND table_name = {}", text(&name))).await?;
        if objects.is_empty() {
            let shown = schema.map_or_else(|| name.clone(), |schema| format!("{schema}.{name}"));
            self.found.push(format!("the login may not look at {shown}"));
        }
        self.judge(session, objects).await
    }

    async fn names(&mut self, session: &mut Session, names: BTreeSet<String>) -> Result<(), Failure> {
        for list in lists(&names) {
            let condition = format!("table_schema NOT IN ({OWN_SCHEMAS}) AND table_name IN ({list})");
            let objects = self.objects(session, &condition).await?;
            self.judge(session, objects).await?;
        }
        self.functions(session, &names).await
    }

    async fn functions(&mut self, session: &mut Session, names: &BTreeSet<String>) -> Result<(), Failure> {
        for list in lists(names) {
            let sql = format!(
                "SELECT CAST(routine_schema AS CHAR), CAST(routine_name AS CHAR), CAST(routine_definition AS CHAR) \
                 FROM information_schema.routines WHERE routine_type = 'FUNCTION' AND sql_data_access <> 'NO SQL' \
                 AND routine_schema NOT IN ({OWN_SCHEMAS}) AND routine_name IN ({list})"
            );
            for row in session.texts(&self.doing, sql).await? {
                let Ok([Some(schema), Some(name), body]) = <[Option<String>; 3]>::try_from(row) else { continue };
                let shown = format!("{schema}.{name}");
                if !self.seen.insert((schema, format!("{name}()"))) {
                    continue;
                }
                match body.filter(|body| !body.is_empty()) {
                    Some(body) => self.open.push_back(Look::Names(self::names(&body))),
                    None => self.found.push(format!("the login may not look into the function {shown}")),
                }
            }
        }
        Ok(())
    }

    /// Schema, name, and engine; a view has none.
    async fn objects(&self, session: &mut Session, condition: &str) -> Result<Vec<(Object, Option<String>)>, Failure> {
        let sql = format!(
            "SELECT CAST(table_schema AS CHAR), CAST(table_name AS CHAR), CAST(table_type AS CHAR), CAST(engine AS CHAR) \
             FROM information_schema.tables WHERE {condition}"
        );
        let of = |row| {
            let [schema, name, kind, engine] = <[Option<String>; 4]>::try_from(row).ok()?;
            let engine = if kind.as_deref() == Some("VIEW") { None } else { Some(engine.unwrap_or_else(|| "none".to_owned())) };
            Some(((schema?, name?), engine))
        };
        Ok(session.texts(&self.doing, sql).await?.into_iter().filter_map(of).collect())
    }

    async fn judge(&mut self, session: &mut Session, objects: Vec<(Object, Option<String>)>) -> Result<(), Failure> {
        for (object, engine) in objects {
            if !self.seen.insert(object.clone()) {
                continue;
            }
            let (schema, name) = object;
            match engine {
                Some(engine) if ENGINES.iter().any(|known| known.eq_ignore_ascii_case(&engine)) => {}
                Some(engine) => {
                    self.found.push(format!("{schema}.{name} is kept by the engine {engine}, which has no snapshots"));
                }
                None => self.view(session, &schema, &name).await?,
            }
        }
        Ok(())
    }

    async fn view(&mut self, session: &mut Session, schema: &str, name: &str) -> Result<(), Failure> {
        let sql = format!(
            "SELECT CAST(view_definition AS CHAR) FROM information_schema.views WHERE table_schema = {} AND table_name = {}",
            text(schema),
            text(name)
        );
        let definition = session.texts(&self.doing, sql).await?.into_iter().flatten().next().flatten();
        match definition.filter(|definition| !definition.is_empty()) {
            Some(definition) => {
                self.open.extend(tables(&definition).into_iter().map(|(schema, name)| Look::Table(schema, name)));
                self.open.push_back(Look::Functions(names(&definition)));
            }
            None => self.found.push(format!("the login may not look into the view {schema}.{name} (SHOW VIEW is missing)")),
        }
        Ok(())
    }
}

/// Names as lists of texts, not too many in each.
fn lists(names: &BTreeSet<String>) -> Vec<String> {
    let names: Vec<String> = names.iter().map(|name| text(name)).collect();
    names.chunks(NAMES_AT_ONCE).map(|part| part.join(", ")).collect()
}

/// A word or sign of SQL.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// A name in backticks.
    Name(String),
    /// A name without them, a keyword or a number.
    Word(String),
    Sign(char),
}

/// Texts are left out. Comments are not known, so what they name counts too.
fn tokens(sql: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = sql.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '`' | '\'' | '"' => {
                let mut inner = String::new();
                while let Some(next) = rest.next() {
                    if next == '\\' && c != '`' {
                        rest.next();
                    } else if next != c {
                        inner.push(next);
                    } else if rest.next_if_eq(&c).is_some() {
                        inner.push(c);
                    } else {
                        break;
                    }
                }
                if c == '`' {
                    tokens.push(Token::Name(inner));
                }
            }
            c if is_word(c) => {
                let mut word = String::from(c);
                while let Some(next) = rest.next_if(|next| is_word(*next)) {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            }
            c if c.is_whitespace() => {}
            c => tokens.push(Token::Sign(c)),
        }
    }
    tokens
}

/// <https://mariadb.com/kb/en/identifier-names/>, unquoted.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii()
}

/// Whatever may be the name of a table, view or function.
fn names(sql: &str) -> BTreeSet<String> {
    let name = |token| match token {
        Token::Name(name) => Some(name),
        Token::Word(word) => (!word.bytes().all(|byte| byte.is_ascii_digit())).then_some(word),
        Token::Sign(_) => None,
    };
    tokens(sql).into_iter().filter_map(name).collect()
}

/// The tables and views that the definition of a view reads. The server writes it so that all of them stand in backticks with
/// their schema behind FROM or JOIN, perhaps with brackets between.
fn tables(definition: &str) -> Vec<(Option<String>, String)> {
    let tokens = tokens(definition);
    let mut tables = Vec::new();
    let mut expected = false;
    let mut rest = tokens.into_iter().peekable();
    while let Some(token) = rest.next() {
        match token {
            Token::Word(word) => {
                expected = ["from", "join", "straight_join"].iter().any(|keyword| word.eq_ignore_ascii_case(keyword));
            }
            Token::Sign('(') => {}
            Token::Sign(_) => expected = false,
            Token::Name(first) => {
                if std::mem::take(&mut expected) {
                    let second = match rest.next_if_eq(&Token::Sign('.')) {
                        Some(_) => rest.next_if(|next| matches!(next, Token::Name(_))),
                        None => None,
                    };
                    tables.push(match second {
                        Some(Token::Name(second)) => (Some(first), second),
                        _ => (None, first),
                    });
                }
            }
        }
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_query() {
        let found = names("SELECT a.`x``y`, 'not `this`', \"nor \\\" this\", f(1) FROM größe_2 a /* here */ WHERE b = 'it''s'");
        let expected = ["SELECT", "a", "x`y", "f", "FROM", "größe_2", "here", "WHERE", "b"];
        assert_eq!(found, expected.into_iter().map(str::to_owned).collect());
    }

    #[test]
    fn tables_of_a_view() {
        let definition = "select `e`.`t`.`a` AS `a`,'from `x`.`y`' AS `from` from ((`e`.`t` join (select `e`.`u`.`b` AS `b` from `e`.`u` \
                          where `e`.`u`.`a` in (select 1 from `f``g`.`v`)) `f`) left join `e`.`w` `x` on(1 = 1))";
        let found = tables(definition);
        let expected = [("e", "t"), ("e", "u"), ("f`g", "v"), ("e", "w")];
        assert_eq!(found, expected.map(|(schema, name)| (Some(schema.to_owned()), name.to_owned())));
    }
}
