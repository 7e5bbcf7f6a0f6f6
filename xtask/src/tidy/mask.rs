//! Rust source seen apart: code without comments and text, and comments alone.
//!
//! The rules look for words. A word in a comment is not a call, and a word in a string literal is neither.

/// Both views keep every line break, so that line numbers hold in either.
#[derive(Debug, Default)]
pub(crate) struct Masked {
    /// The code; comments and the insides of literals are blank.
    pub(crate) code: String,
    /// The comments; all else is blank.
    pub(crate) comments: String,
}

/// Takes Rust source apart. Source that does not compile gives some answer, never a panic.
pub(crate) fn mask(source: &str) -> Masked {
    let mut lexer = Lexer { chars: source.chars().collect(), at: 0, out: Masked::default() };
    while lexer.next_token() {}
    lexer.out
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    out: Masked,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn behind(&self, back: usize) -> Option<char> {
        self.at.checked_sub(back).and_then(|at| self.chars.get(at)).copied()
    }

    fn take(&mut self, kind: Kind) {
        let Some(char) = self.peek(0) else { return };
        let blank = if char == '\n' { '\n' } else { ' ' };
        self.out.code.push(if kind == Kind::Code { char } else { blank });
        self.out.comments.push(if kind == Kind::Comment { char } else { blank });
        self.at += 1;
    }

    fn next_token(&mut self) -> bool {
        match (self.peek(0), self.peek(1)) {
            (None, _) => return false,
            (Some('/'), Some('/')) => self.line_comment(),
            (Some('/'), Some('*')) => self.block_comment(),
            (Some('"'), _) => self.string(),
            (Some('\''), _) => self.quote(),
            (Some('r'), Some('"' | '#')) if self.starts_word() => self.raw_string(),
            _ => self.take(Kind::Code),
        }
        true
    }

    /// An `r` opens a raw string only where no identifier runs into it; `br` and `cr` do too.
    fn starts_word(&self) -> bool {
        let in_word = |char: Option<char>| char.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !in_word(self.behind(1)) || (matches!(self.behind(1), Some('b' | 'c')) && !in_word(self.behind(2)))
    }

    fn line_comment(&mut self) {
        while self.peek(0).is_some_and(|c| c != '\n') {
            self.take(Kind::Comment);
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        loop {
            match (self.peek(0), self.peek(1)) {
                (None, _) => return,
                (Some('/'), Some('*')) => depth += 1,
                (Some('*'), Some('/')) => depth -= 1,
                _ => {
                    self.take(Kind::Comment);
                    continue;
                }
            }
            self.take(Kind::Comment);
            self.take(Kind::Comment);
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.take(Kind::Literal);
        while let Some(char) = self.peek(0) {
            self.take(Kind::Literal);
            match char {
                '\\' => self.take(Kind::Literal),
                '"' => return,
                _ => {}
            }
        }
    }

    /// A character literal, or a lifetime or label, which stays code.
    fn quote(&mut self) {
        let literal = self.peek(1) == Some('\\') || self.peek(2) == Some('\'');
        if !literal {
            return self.take(Kind::Code);
        }
        self.take(Kind::Literal);
        while let Some(char) = self.peek(0) {
            self.take(Kind::Literal);
            match char {
                '\\' => self.take(Kind::Literal),
                '\'' => return,
                _ => {}
            }
        }
    }

    fn raw_string(&mut self) {
        let mut hashes = 0;
        while self.peek(1 + hashes) == Some('#') {
            hashes += 1;
        }
        if self.peek(1 + hashes) != Some('"') {
            return self.take(Kind::Code);
        }
        for _ in 0..hashes + 2 {
            self.take(Kind::Literal);
        }
        while let Some(char) = self.peek(0) {
            let closes = char == '"' && (1..=hashes).all(|n| self.peek(n) == Some('#'));
            self.take(Kind::Literal);
            if closes {
                for _ in 0..hashes {
                    self.take(Kind::Literal);
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let source = "let a = \"x // \\\" y\"; // why\n/* b /* nested */ still */ let c = 'd';\n";
        let masked = mask(source);
        assert_eq!(masked.code.split_whitespace().collect::<Vec<_>>(), ["let", "a", "=", ";", "let", "c", "=", ";"]);
        assert!(masked.comments.contains("// why") && masked.comments.contains("still */"));
        assert!(!masked.comments.contains("let"));
    }

    #[test]
    fn raw_strings_end_at_their_own_hashes() {
        let masked = mask("let a = r#\"quote \" here\"#; let b = br\"\\\"; done(r#type);");
        assert_eq!(
            masked.code.split_whitespace().collect::<Vec<_>>(),
            ["let", "a", "=", ";", "let", "b", "=", "b", ";", "done(r#type);"]
        );
    }

    #[test]
    fn lifetimes_stay_code_and_characters_do_not() {
        let masked = mask("fn f<'a>(x: &'a str) { g('\\'', '\"', b'\\n', 'z') } // '\"");
        assert!(masked.code.contains("fn f<'a>(x: &'a str)"));
        assert!(!masked.code.contains('"') && !masked.code.contains('z'));
        assert!(masked.comments.contains("// '\""));
    }

    #[test]
    fn every_line_stays_where_it_was_and_broken_source_ends() {
        for source in ["a\n\"b\nc\"\n/* d\n*/ e", "\"never closed\n", "/* never closed\n", "r##\"never closed\"#\n", "'", "'\\"] {
            let masked = mask(source);
            assert_eq!(masked.code.lines().count(), source.lines().count(), "{source:?}");
            assert_eq!(masked.code.chars().count(), source.chars().count(), "{source:?}");
        }
    }
}
