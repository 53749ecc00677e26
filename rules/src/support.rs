//! What leaves an appliance for a colleague's eyes: nothing that opens anything.
//!
//! The parts of a support bundle hold no secret by what they are made of. This is the second net: text of people, such as
//! kernel arguments and lines of logs, may hold whatever they wrote there.

use serde_json::Value;
use std::ops::Range;

/// What stands in a secret's place.
pub const REMOVED: &str = "[removed]";
/// Hex digits of a boot's token.
const BOOT_TOKEN: usize = 32;
/// How a token of the API begins.
const TOKEN: &str = "bnu_";
const KEY_BEGINS: &str = "-----BEGIN ";
const KEY_ENDS: &str = "-----END ";
/// What is called so, alone or many of it, is nobody else's to know.
const WORDS: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "private_key",
    "private-key",
    "psk",
    "credential",
    "authorization",
];

/// Reads text line by line and leaves secrets out of it.
#[derive(Debug, Default)]
pub struct Redactor {
    in_key: bool,
}

impl Redactor {
    /// A line without them; `None`: it is one of a private key's.
    pub fn line(&mut self, line: &str) -> Option<String> {
        if self.in_key {
            self.in_key = !line.contains(KEY_ENDS);
            return None;
        }
        if let Some((before, key)) = line.split_once(KEY_BEGINS).filter(|(_, key)| key.contains("PRIVATE KEY")) {
            // A whole key may lie in one line, as an escaped text does.
            self.in_key = !key.contains(KEY_ENDS);
            return Some(format!("{}{REMOVED}", redacted(before)));
        }
        Some(redacted(line))
    }
}

/// A text of many lines without secrets.
pub fn redacted_text(text: &str) -> String {
    let mut redactor = Redactor::default();
    let mut left = String::with_capacity(text.len());
    for line in text.lines().filter_map(|line| redactor.line(line)) {
        left += &line;
        left.push('\n');
    }
    left
}

/// A document without secrets: what a field is called tells, and texts are looked through.
pub fn redact(value: &mut Value) {
    match value {
        Value::String(text) => {
            let left = redacted_text(text);
            // A text keeps its own end.
            *text = if text.ends_with('\n') { left } else { left.trim_end_matches('\n').to_owned() };
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if is_secret(name) && !is_path(name, text) => REMOVED.clone_into(text),
                    // It stays a list, so that a configuration can still be read.
                    Value::Array(items) if is_secret(name) && !are_paths(name, items) => *items = vec![REMOVED.into()],
                    value => redact(value),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Where a key lies is no secret. Base64 begins with a slash too, but has capitals, and what is no key lies in no file.
fn is_path(name: &str, text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/._-".contains(&byte);
    one_of(name).ends_with("key") && text.starts_with('/') && text.bytes().all(is_plain)
}

fn are_paths(name: &str, items: &[Value]) -> bool {
    items.iter().all(|item| item.as_str().is_some_and(|text| is_path(name, text)))
}

/// Whether what a name names is a secret: by its last word.
fn is_secret(name: &str) -> bool {
    let name = one_of(name);
    WORDS.iter().any(|word| name.ends_with(word)) || name == "key" || name.ends_with("_key") || name.ends_with("-key")
}

/// What one of them is called.
fn one_of(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    name.strip_suffix('s').unwrap_or(&name).to_owned()
}

fn redacted(line: &str) -> String {
    // An address with a password has a colon too, behind which everything else would go.
    without_values(&without_user_info(&without_tokens(&plain(line))))
}

/// Without what colours a terminal.
fn plain(line: &str) -> String {
    let mut left = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => drop(chars.find(|c| c.is_ascii_alphabetic())),
            c if c.is_control() && c != '\t' => {}
            c => left.push(c),
        }
    }
    left
}

/// Tokens are known by their looks, wherever they stand.
fn without_tokens(line: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut left = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(begins) = rest.find(is_part) {
        left += &rest[..begins];
        rest = &rest[begins..];
        let ends = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let word = &rest[..ends];
        let is_boot_token = word.len() == BOOT_TOKEN && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        left += if is_boot_token || word.starts_with(TOKEN) { REMOVED } else { word };
        rest = &rest[ends..];
    }
    left + rest
}

/// `password=x`, `"token": "x"`, `Authorization: Bearer x`.
fn without_values(line: &str) -> String {
    let mut left = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(['=', ':']) {
        let (name, after) = rest.split_at(at + 1);
        left += name;
        rest = after;
        let is_colon = name.ends_with(':');
        let name = name[..at].trim_end_matches(['"', '\'', ' ', '\\']);
        let word = name.rsplit(|c: char| !(c.is_alphanumeric() || "_-".contains(c))).next().unwrap_or_default();
        if word.is_empty() || !is_secret(word) {
            continue;
        }
        let Range { start, end } = extent(rest, is_colon);
        let value = &rest[start..end];
        left += &rest[..start];
        left += if value.is_empty() || is_path(word, value) || value == REMOVED { value } else { REMOVED };
        rest = &rest[end..];
    }
    left + rest
}

/// Where a value lies in what follows its name.
fn extent(text: &str, is_after_colon: bool) -> Range<usize> {
    let value = text.trim_start();
    let blank = text.len() - value.len();
    let opening = value.trim_start_matches('\\');
    if let Some(quote) = opening.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let start = text.len() - opening.len() + 1;
        return start..start + quoted(&text[start..], quote, value.len() - opening.len());
    }
    let is_list = value.starts_with(['[', '{']) && !value.starts_with(REMOVED);
    // What is set off with a blank is written for people, and goes on behind blanks; an argument ends at one.
    if is_after_colon || blank > 0 || is_list {
        return blank..text.trim_end().len().max(blank);
    }
    let word = |text: &str| text.find(char::is_whitespace).unwrap_or(text.len());
    let mut end = word(value);
    // The scheme of a header is a word before the secret.
    if matches!(value[..end].to_ascii_lowercase().as_str(), "bearer" | "basic") {
        let secret = value[end..].trim_start();
        end = value.len() - secret.len() + word(secret);
    }
    0..end
}

/// How long a text is within its quotes, the first of which stood behind so many backslashes. Its own end stands behind as
/// many; behind more, it is part of the text, unless those are backslashes of the text themselves.
fn quoted(text: &str, quote: char, escapes: usize) -> usize {
    let ends = |at: &usize| {
        let before = &text[..*at];
        let backslashes = before.len() - before.trim_end_matches('\\').len();
        backslashes % (2 * escapes + 2) == escapes
    };
    let end = text.match_indices(quote).map(|(at, _)| at).find(ends);
    end.map_or(text.len(), |at| at - escapes)
}

/// `https://name:password@host`.
fn without_user_info(line: &str) -> String {
    let mut left = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (scheme, after) = rest.split_at(at + 3);
        left += scheme;
        let ends = after.find(|c: char| c.is_whitespace() || "/\"'<>?#".contains(c)).unwrap_or(after.len());
        let (authority, after) = after.split_at(ends);
        left += &match authority.rsplit_once('@') {
            Some((_, host)) => format!("{REMOVED}@{host}"),
            None => authority.to_owned(),
        };
        rest = after;
    }
    left + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_leave_a_line_and_the_rest_stays() {
        let token = format!("bnu_010203fe_{}", "a5".repeat(32));
        for (line, left) in [
            ("GET /boot/0123456789abcdef0123456789abcdef/plan.json", "GET /boot/[removed]/plan.json"),
            (&format!("who {token} came"), "who [removed] came"),
            ("console=ttyS0 rd.password=hunter2 quiet", "console=ttyS0 rd.password=[removed] quiet"),
            ("a \"token\": \"x y\", b", "a \"token\": \"[removed]\", b"),
            ("Authorization: Bearer abc.def next", "Authorization: [removed]"),
            ("authorization=Bearer abc.def next", "authorization=[removed] next"),
            ("inst.repo=http://ci:pw@10.0.0.1/x", "inst.repo=http://[removed]@10.0.0.1/x"),
            ("secrets_key = \"/etc/bennu/key\"", "secrets_key = \"/etc/bennu/key\""),
            ("passwords are long: 12", "passwords are long: 12"),
            ("sha256:", "sha256:"),
            ("\u{1b}[32mINFO\u{1b}[0m ok", "INFO ok"),
            ("api_key='a b' c", "api_key='[removed]' c"),
            ("Passphrase:hunter2", "Passphrase:[removed]"),
        ] {
            assert_eq!(Redactor::default().line(line).as_deref(), Some(left), "{line}");
        }
        let digest = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(redacted_text(&digest), format!("{digest}\n"), "digests of images tell which they are");
    }

    #[test]
    fn only_where_a_key_lies_stays() {
        for (line, left) in [
            ("password=/9j4AAQSkZJRg quiet", "password=[removed] quiet"),
            ("password=/hunter2", "password=[removed]"),
            ("\"token\": \"/etc\", 1", "\"token\": \"[removed]\", 1"),
            ("key: /9j4AAQSkZJRg", "key: [removed]"),
            ("secrets_key=/9j4+aaq=", "secrets_key=[removed]"),
            ("secrets_key=/etc/bennu/secrets.key x", "secrets_key=/etc/bennu/secrets.key x"),
            ("api.key: /etc/bennu/key", "api.key: /etc/bennu/key"),
        ] {
            assert_eq!(redacted(line), left, "{line}");
        }
    }

    #[test]
    fn a_value_leaves_to_its_end() {
        for (line, left) in [
            ("passphrase: correct horse battery", "passphrase: [removed]"),
            ("passphrase = correct horse battery", "passphrase = [removed]"),
            ("password=a,b quiet", "password=[removed] quiet"),
            ("token=[removed] quiet", "token=[removed] quiet"),
            ("password=\"it's me\" next", "password=\"[removed]\" next"),
            ("password='say \"x\" y' next", "password='[removed]' next"),
            (r#"{"token": "a\"b c", "n": 1}"#, r#"{"token": "[removed]", "n": 1}"#),
            (r#"{"token": "a\\", "n": 1}"#, r#"{"token": "[removed]", "n": 1}"#),
            (r#""{\"token\": \"a\\\"b c\", \"n\": 1}""#, r#""{\"token\": \"[removed]\", \"n\": 1}""#),
            ("password=\"never closed", "password=\"[removed]"),
            ("password=\"\" next", "password=\"\" next"),
            ("passwords=[\"a b\", \"c\"]", "passwords=[removed]"),
            ("tokens: a, b", "tokens: [removed]"),
            ("url=http://token:pw@10.0.0.1/x quiet", "url=http://[removed]@10.0.0.1/x quiet"),
        ] {
            assert_eq!(redacted(line), left, "{line}");
        }
    }

    #[test]
    fn a_private_key_leaves_with_all_its_lines() {
        let text =
            "before\nkey -----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\nBBBB\n-----END OPENSSH PRIVATE KEY-----\nafter\n";
        assert_eq!(redacted_text(text), "before\nkey [removed]\nafter\n");
        let public = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        assert_eq!(redacted_text(public), public);
    }

    #[test]
    fn documents_lose_what_their_fields_say_is_secret() {
        let mut document = json!({
            "token": "x", "kind": "token", "secrets_key": "/etc/key", "key": "raw", "image": "web:v1",
            "arguments": ["a=1 password=x", {"wifi-psk": "x"}], "secret": {"name": "db"}, "n": 1,
        });
        redact(&mut document);
        assert_eq!(
            document,
            json!({
                "token": REMOVED, "kind": "token", "secrets_key": "/etc/key", "key": REMOVED, "image": "web:v1",
                "arguments": ["a=1 password=[removed]", {"wifi-psk": REMOVED}], "secret": {"name": "db"}, "n": 1,
            })
        );
    }

    #[test]
    fn lists_of_secrets_leave_whole() {
        let mut document = json!({
            "passwords": ["x", {"of": "y"}], "password": ["x"], "api_keys": ["x"], "Credentials": "x", "token": "/x",
            "keys": ["/etc/ci.pub"], "host_keys": ["/etc/ci.pub", "x"], "tokens": [], "tags": ["x"],
        });
        redact(&mut document);
        assert_eq!(
            document,
            json!({
                "passwords": [REMOVED], "password": [REMOVED], "api_keys": [REMOVED], "Credentials": REMOVED,
                "token": REMOVED, "keys": ["/etc/ci.pub"], "host_keys": [REMOVED], "tokens": [], "tags": ["x"],
            })
        );
    }

    #[test]
    fn nothing_that_is_odd_is_too_odd() {
        for line in [
            "token=\\",
            "token=\\\"",
            "token: \"ä\\\"",
            "token:\u{a0}",
            "token: '",
            "keys=[",
            "",
            "=",
            ":",
            "token=",
            "://",
            "://@",
            "token: Bearer",
            "ä=ö:ü",
            "password=ä",
            "-----BEGIN ",
        ] {
            let _ = redacted_text(line);
        }
    }
}
