//! Selectors as text.

use super::{
    Condition, Requirement,
    subject::{DERIVED, impossible, is_reserved},
};
use std::{borrow::Cow, collections::BTreeSet};

/// More text than anybody writes, and less than costs anything.
const MAX_TEXT: usize = 4096;

/// A text that is not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("selector: {reason} (at character {}, {})", .at + 1, self.near())]
pub struct BadSelector {
    /// Where, in characters from the beginning.
    pub at: usize,
    /// What is wrong there.
    pub reason: String,
    /// What is written from there on.
    rest: String,
}

impl BadSelector {
    fn near(&self) -> String {
        match self.rest.as_str() {
            "" => "its end".into(),
            rest => format!("before '{rest}'"),
        }
    }
}

/// What a label's value may be besides quoted.
fn is_plain(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && !matches!(c, ',' | '(' | ')' | '=' | '!' | '<' | '>' | '"' | '\'' | '\\')
}

fn is_of_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/')
}

/// A value as selectors have it.
pub(super) fn written(value: &str) -> Cow<'_, str> {
    if !value.is_empty() && value.chars().all(is_plain) {
        return Cow::Borrowed(value);
    }
    Cow::Owned(format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// Reads all requirements.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, BadSelector> {
    let mut reader = Reader { text, rest: text };
    if text.len() > MAX_TEXT {
        return Err(reader.refuse(format!("{} bytes are more than the {MAX_TEXT} that one may have", text.len())));
    }
    let mut requirements = Vec::new();
    if reader.peek().is_none() {
        return Ok(requirements);
    }
    loop {
        requirements.push(reader.requirement()?);
        match reader.peek() {
            None => return Ok(requirements),
            Some(',') => reader.skip(1),
            Some('<' | '>') => return Err(reader.refuse("values are not compared by size; use =, !=, in or notin")),
            Some(_) => return Err(reader.refuse("expected a comma between requirements")),
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn refuse(&self, reason: impl Into<String>) -> BadSelector {
        let read = self.text.len() - self.rest.len();
        let rest: String = self.rest.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(24).collect();
        BadSelector { at: self.text[..read].chars().count(), reason: reason.into(), rest }
    }

    /// The next character that is no space.
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    fn takes(&mut self, what: &str) -> bool {
        self.peek();
        let taken = self.rest.starts_with(what);
        if taken {
            self.skip(what.len());
        }
        taken
    }

    fn run(&mut self, of: fn(char) -> bool) -> &'a str {
        self.peek();
        let end = self.rest.find(|c| !of(c)).unwrap_or(self.rest.len());
        let (run, rest) = self.rest.split_at(end);
        self.rest = rest;
        run
    }

    fn requirement(&mut self) -> Result<Requirement, BadSelector> {
        if self.takes("!") {
            return Ok(Requirement { key: self.key()?, condition: Condition::Absent });
        }
        let key = self.key()?;
        let condition = self.condition(&key)?;
        Ok(Requirement { key, condition })
    }

    fn key(&mut self) -> Result<String, BadSelector> {
        let before = Self { text: self.text, rest: self.rest.trim_start() };
        let key = self.run(is_of_key);
        if key.is_empty() {
            return Err(before.refuse("expected a label's key: letters, digits, '.', '_', '-' and '/'"));
        }
        if key.len() > 63 {
            return Err(before.refuse("a key has at most 63 characters"));
        }
        if is_reserved(key) && !DERIVED.contains(&key) {
            let known = DERIVED.join(", ");
            return Err(before.refuse(format!("'{key}' is nothing that Bennu derives; there are {known}")));
        }
        Ok(key.to_owned())
    }

    fn condition(&mut self, key: &str) -> Result<Condition, BadSelector> {
        match self.peek() {
            None | Some(',') => return Ok(Condition::Exists),
            _ => {}
        }
        if self.takes("!=") {
            return self.value(key).map(Condition::IsNot);
        }
        if self.takes("==") || self.takes("=") {
            return self.value(key).map(Condition::Is);
        }
        let before = Self { text: self.text, rest: self.rest };
        match self.run(is_of_key) {
            "in" => self.values(key).map(Condition::In),
            "notin" => self.values(key).map(Condition::NotIn),
            _ if before.rest.starts_with(['<', '>']) => {
                Err(before.refuse("values are not compared by size; use =, !=, in or notin"))
            }
            _ => Err(before.refuse(format!("expected =, !=, in or notin, or a comma, after '{key}'"))),
        }
    }

    /// `(a, b)`
    fn values(&mut self, key: &str) -> Result<BTreeSet<String>, BadSelector> {
        if !self.takes("(") {
            return Err(self.refuse("expected '(' and values, such as in (web,api)"));
        }
        let mut values = BTreeSet::new();
        loop {
            if matches!(self.peek(), Some(')' | ',') | None) {
                return Err(self.refuse("expected a value; write \"\" for an empty one"));
            }
            values.insert(self.value(key)?);
            if self.takes(")") {
                return Ok(values);
            }
            if !self.takes(",") {
                return Err(self.refuse("expected ',' or ')' after a value"));
            }
        }
    }

    fn value(&mut self, key: &str) -> Result<String, BadSelector> {
        self.peek();
        let before = Self { text: self.text, rest: self.rest };
        let value = match self.rest.starts_with('"') {
            true => self.quoted()?,
            false => self.run(is_plain).to_owned(),
        };
        if let Some(why) = impossible(key, &value) {
            return Err(before.refuse(format!("'{value}' {why}")));
        }
        Ok(value)
    }

    fn quoted(&mut self) -> Result<String, BadSelector> {
        let before = Self { text: self.text, rest: self.rest };
        let mut value = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.skip(at + 1);
                    return Ok(value);
                }
                '\\' => match chars.next() {
                    Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                    _ => {
                        self.skip(at);
                        return Err(self.refuse("after a backslash comes a quote or a backslash"));
                    }
                },
                c if c.is_control() => {
                    self.skip(at);
                    return Err(self.refuse("a value cannot have control characters"));
                }
                c => value.push(c),
            }
        }
        Err(before.refuse("the quote is not closed"))
    }
}
