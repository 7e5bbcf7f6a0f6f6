//! Arguments with words in braces that stand for something.

/// An argument with what its placeholders stand for. That is never looked through for placeholders.
#[must_use]
pub fn filled(argument: &str, placeholders: &[&str], value: impl Fn(&str) -> String) -> String {
    let mut text = String::new();
    let mut rest = argument;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        text.push_str(before);
        let found = placeholders.iter().find_map(|one| from.strip_prefix(one).map(|after| (*one, after)));
        rest = match found {
            Some((placeholder, after)) => {
                text.push_str(&value(placeholder));
                after
            }
            None => {
                text.push('{');
                from.get(1..).unwrap_or_default()
            }
        };
    }
    text.push_str(rest);
    text
}

/// A word in braces that stands for nothing. Other braces are left alone: they may be JSON.
#[must_use]
pub fn unknown_placeholder<'a>(argument: &'a str, placeholders: &[&str]) -> Option<&'a str> {
    argument.match_indices('{').find_map(|(at, _)| {
        let from = argument.get(at..)?;
        let end = from.find('}')? + 1;
        let word = from.get(..end)?;
        let inner = word.get(1..end - 1)?;
        let is_word = !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
        (is_word && !placeholders.contains(&word)).then_some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_once_and_unknown_ones_found() {
        let known = ["{a}", "{b}"];
        let value = |word: &str| if word == "{a}" { "{b}".to_owned() } else { "2".to_owned() };
        assert_eq!(filled("{\"x\": {a}}-{b}{c", &known, value), "{\"x\": {b}}-2{c");
        assert_eq!(unknown_placeholder("{a}{\"x\": 1}{}", &known), None);
        assert_eq!(unknown_placeholder("{a}{c}", &known), Some("{c}"));
    }
}
