//! Finds the fields of one record, byte by byte, in as many pieces as it arrives in.

use super::Problem;

/// Where a field's value lies in its record, and how it was written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) quoted: bool,
    /// Quotes that are still doubled within `start..end`.
    pub(super) doubled: usize,
}

impl Span {
    pub(super) const fn is_null(&self) -> bool {
        !self.quoted && self.start == self.end
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    FieldStart,
    Plain {
        start: usize,
    },
    Quoted {
        start: usize,
        doubled: usize,
    },
    /// After a quote within quotes: it closes the field, or is the first of two.
    QuoteSeen {
        start: usize,
        doubled: usize,
    },
    ReturnSeen,
}

/// The fields of one record so far, and where to go on when more bytes are there.
#[derive(Debug)]
pub(super) struct Scan {
    state: State,
    at: usize,
    fields: Vec<Span>,
}

impl Scan {
    pub(super) const fn new() -> Self {
        Self { state: State::FieldStart, at: 0, fields: Vec::new() }
    }

    /// Begins the next record.
    pub(super) fn reset(&mut self) {
        self.state = State::FieldStart;
        self.at = 0;
        self.fields.clear();
    }

    /// The fields of the record that has ended.
    pub(super) fn fields(&self) -> &[Span] {
        &self.fields
    }

    /// How far the scan has come, in bytes from the start of the record.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    /// What the end of the file means here.
    pub(super) const fn at_end(&self) -> Problem {
        match self.state {
            State::Quoted { .. } => Problem::UnclosedQuote,
            _ => Problem::MissingLineEnd,
        }
    }

    /// Goes on in `record`, which is what was there before and more. Gives the length of the record with its line end,
    /// or `None` where that is not there yet. `too_many` is the problem of a field after the first `most`.
    pub(super) fn advance(&mut self, record: &[u8], most: usize, too_many: Problem) -> Result<Option<usize>, Problem> {
        loop {
            match self.state {
                State::FieldStart => {
                    let Some(byte) = record.get(self.at) else { return Ok(None) };
                    if self.fields.len() >= most {
                        return Err(too_many);
                    }
                    if *byte == b'"' {
                        self.at += 1;
                        self.state = State::Quoted { start: self.at, doubled: 0 };
                    } else {
                        self.state = State::Plain { start: self.at };
                    }
                }
                State::Plain { start } => {
                    let Some(byte) = self.skip_to(record, is_special) else { return Ok(None) };
                    if byte == b'"' {
                        return Err(Problem::StrayQuote);
                    }
                    self.end_field(Span { start, end: self.at, quoted: false, doubled: 0 }, byte)?;
                }
                State::Quoted { start, doubled } => {
                    if self.skip_to(record, |byte| byte == b'"').is_none() {
                        return Ok(None);
                    }
                    self.at += 1;
                    self.state = State::QuoteSeen { start, doubled };
                }
                State::QuoteSeen { start, doubled } => {
                    let Some(byte) = record.get(self.at) else { return Ok(None) };
                    if *byte == b'"' {
                        self.at += 1;
                        self.state = State::Quoted { start, doubled: doubled + 1 };
                    } else {
                        self.end_field(Span { start, end: self.at - 1, quoted: true, doubled }, *byte)?;
                    }
                }
                State::ReturnSeen => {
                    let Some(byte) = record.get(self.at) else { return Ok(None) };
                    if *byte != b'\n' {
                        return Err(Problem::BareCarriageReturn);
                    }
                    self.at += 1;
                    return Ok(Some(self.at));
                }
            }
        }
    }

    fn skip_to(&mut self, record: &[u8], wanted: impl Fn(u8) -> bool) -> Option<u8> {
        let rest = record.get(self.at..)?;
        match rest.iter().position(|byte| wanted(*byte)) {
            Some(skipped) => {
                self.at += skipped;
                record.get(self.at).copied()
            }
            None => {
                self.at = record.len();
                None
            }
        }
    }

    /// Takes the byte after a field.
    fn end_field(&mut self, field: Span, byte: u8) -> Result<(), Problem> {
        self.state = match byte {
            b',' => State::FieldStart,
            b'\r' => State::ReturnSeen,
            b'\n' => return Err(Problem::BareLineFeed),
            _ => return Err(Problem::TextAfterQuote),
        };
        self.fields.push(field);
        self.at += 1;
        Ok(())
    }
}

/// What ends or spoils a field without quotes.
fn is_special(byte: u8) -> bool {
    matches!(byte, b',' | b'"' | b'\r' | b'\n')
}

/// Makes every doubled quote of a quoted field a single one, in place. Gives the length of the value; what is left over
/// behind it becomes spaces, so that the record stays valid UTF-8 if it was.
pub(super) fn undouble(field: &mut [u8]) -> usize {
    let (mut from, mut to) = (0, 0);
    while let Some(rest) = field.get(from..)
        && !rest.is_empty()
    {
        let run = rest.iter().position(|byte| *byte == b'"').map_or(rest.len(), |quote| quote + 1);
        field.copy_within(from..from + run, to);
        to += run;
        // The quote's twin is left out.
        from += run + 1;
    }
    if let Some(left_over) = field.get_mut(to..) {
        left_over.fill(b' ');
    }
    to
}
