//! Templates: Jinja's expressions, `if`, `for` and `set` over what is known of a machine, and nothing else. What a
//! template may say keeps its cost in bounds: see [`super::syntax`].

use super::syntax;
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, Value, filters, tests, value::Kwargs};
use std::io;

/// Bytes that one template may come to.
pub const MAX_RENDERED: usize = 256 << 10;

/// Bytes that the templates of one machine may have together: some ten milliseconds to read.
pub const MAX_TEMPLATES: usize = 1 << 20;

/// Instructions that one rendering may take: some thousand lines, in milliseconds.
const FUEL: u64 = 50_000;

/// Frames deep.
const RECURSION: usize = 64;

/// What is wrong with a template, or with what it was rendered over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct BadTemplate {
    /// Counted from 1.
    pub line: usize,
    /// What, and what to do about it.
    pub reason: String,
}

/// Whether a template can be rendered as far as that is known without a machine.
pub fn check(text: &str) -> Result<(), BadTemplate> {
    syntax::check(text)?;
    environment().template_from_str(text).map(drop).map_err(|error| told(&error, text))
}

/// What the templates of one machine may take together.
#[derive(Debug)]
pub struct Fuel(u64);

impl Default for Fuel {
    fn default() -> Self {
        Self(10 * FUEL)
    }
}

/// Renders a template over what is known of a machine.
pub fn render(text: &str, context: &Value, fuel: &mut Fuel) -> Result<String, BadTemplate> {
    syntax::check(text)?;
    let mut environment = environment();
    let is_rest = fuel.0 < FUEL;
    environment.set_fuel(Some(fuel.0.min(FUEL)));
    let template = environment.template_from_str(text).map_err(|error| told(&error, text))?;
    let mut rendered = Bounded(Vec::new());
    let told = |error: Error| match error.kind() {
        ErrorKind::OutOfFuel if is_rest => {
            let reason = "with it, the templates of this machine's documents do not come to an end in their time; they loop \
                          over too much together";
            BadTemplate { reason: reason.into(), ..told(&error, text) }
        }
        _ => told(&error, text),
    };
    let done = template.render_captured_to(context.clone(), &mut rendered).map_err(told)?;
    fuel.0 = fuel.0.saturating_sub(done.state().fuel_levels().map_or(0, |(used, _)| used));
    drop(done);
    String::from_utf8(rendered.0).map_err(|error| BadTemplate { line: 1, reason: error.to_string() })
}

/// The language: no loader, no macros, no global but `range`; what is not there is an error.
fn environment<'a>() -> Environment<'a> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION);
    environment.set_debug(true);
    environment.set_syntax(syntax::delimiters());
    environment.add_function("range", range);
    environment.add_filter("default", filters::default);
    environment.add_filter("first", filters::first);
    environment.add_filter("indent", indent);
    environment.add_filter("int", filters::int);
    environment.add_filter("items", items);
    environment.add_filter("join", join);
    environment.add_filter("last", filters::last);
    environment.add_filter("length", filters::length);
    environment.add_filter("lower", filters::lower);
    environment.add_filter("replace", replace);
    environment.add_filter("sort", sort);
    environment.add_filter("split", split);
    environment.add_filter("tojson", tojson);
    environment.add_filter("trim", filters::trim);
    environment.add_filter("upper", filters::upper);
    environment.add_test("defined", tests::is_defined);
    environment.add_test("undefined", tests::is_undefined);
    environment.add_test("none", tests::is_none);
    environment.add_test("startingwith", tests::is_startingwith);
    environment.add_test("endingwith", tests::is_endingwith);
    environment
}

/// Lists are this long at most: a step of the engine makes or orders a whole one, and its fuel counts the step alone.
const LONGEST_LIST: usize = 64;
/// Texts that lists are made of, and in which something is replaced.
const LONGEST_TEXT: usize = 4096;

fn too_long(what: &str, limit: usize, of: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{what} is for up to {limit} {of}"))
}

fn range(start: i64, stop: Option<i64>, step: Option<i64>) -> Result<Vec<i64>, Error> {
    let ((start, stop), step) = (stop.map_or((0, start), |stop| (start, stop)), step.unwrap_or(1));
    let step = u64::try_from(step).ok().filter(|step| *step > 0);
    let step = step.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "range goes up, in steps of 1 or more"))?;
    let count = stop.saturating_sub(start).max(0).unsigned_abs().div_ceil(step);
    if count > LONGEST_LIST as u64 {
        return Err(too_long("range", LONGEST_LIST, "numbers"));
    }
    Ok((start..stop).step_by(usize::try_from(step).unwrap_or(usize::MAX)).collect())
}

fn split(text: &str, by: Option<&str>) -> Result<Vec<String>, Error> {
    if text.len() > LONGEST_TEXT {
        return Err(too_long("split", LONGEST_TEXT, "bytes"));
    }
    let parts: Vec<String> = match by {
        Some("") => return Err(Error::new(ErrorKind::InvalidOperation, "split needs a text to split at")),
        Some(by) => text.split(by).take(LONGEST_LIST + 1).map(str::to_owned).collect(),
        None => text.split_whitespace().take(LONGEST_LIST + 1).map(str::to_owned).collect(),
    };
    if parts.len() > LONGEST_LIST { Err(too_long("split", LONGEST_LIST, "parts")) } else { Ok(parts) }
}

fn is_short(value: &Value) -> bool {
    value.len().is_none_or(|length| length <= LONGEST_LIST)
}

fn sort(state: &State, value: Value, options: Kwargs) -> Result<Value, Error> {
    if is_short(&value) { filters::sort(state, value, options) } else { Err(too_long("sort", LONGEST_LIST, "items")) }
}

fn items(value: &Value) -> Result<Value, Error> {
    if is_short(value) { filters::items(value) } else { Err(too_long("items", LONGEST_LIST, "items")) }
}

/// Replaces in a text that is short, so that replacements of replacements stay in bounds.
fn replace(text: &str, from: &str, to: &str) -> Result<String, Error> {
    const LONGEST: usize = LONGEST_TEXT;
    let replaced = if from.is_empty() { text.to_owned() } else { text.replace(from, to) };
    match replaced.len() <= LONGEST && text.len() <= LONGEST {
        true => Ok(replaced),
        false => Err(Error::new(ErrorKind::InvalidOperation, format!("replace is for texts of up to {LONGEST} bytes"))),
    }
}

/// Puts spaces before every line but the first, so that a text of several lines fits into YAML.
fn indent(text: &str, width: usize) -> Result<String, Error> {
    const WIDEST: usize = 64;
    if width > WIDEST {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("indent is for up to {WIDEST} columns")));
    }
    let between = format!("\n{}", " ".repeat(width));
    bounded(text.split('\n').enumerate().map(|(n, line)| if n == 0 { line.into() } else { between.clone() + line }))
}

fn join(items: &Value, between: Option<&str>) -> Result<String, Error> {
    let between = between.unwrap_or_default();
    let items = items.try_iter()?.enumerate();
    bounded(items.map(|(n, item)| if n == 0 { item.to_string() } else { format!("{between}{item}") }))
}

fn bounded(parts: impl Iterator<Item = String>) -> Result<String, Error> {
    let mut whole = String::new();
    for part in parts {
        whole += &part;
        if whole.len() > MAX_RENDERED {
            return Err(ErrorKind::WriteFailure.into());
        }
    }
    Ok(whole)
}

/// As JSON: what any YAML takes as a quoted value, whatever is in it.
fn tojson(value: &Value) -> Result<Value, Error> {
    let mut json = Bounded(Vec::new());
    match serde_json::to_writer(&mut json, value) {
        Ok(()) => Ok(Value::from_safe_string(String::from_utf8_lossy(&json.0).into_owned())),
        Err(error) if error.is_io() => Err(ErrorKind::WriteFailure.into()),
        Err(error) => Err(Error::new(ErrorKind::InvalidOperation, format!("not to be told as JSON: {error}"))),
    }
}

/// What is rendered, up to its limit.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_RENDERED {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The expression that an error is about. The engine tells of `a.b.c` the part that is missing alone.
fn place(text: &str, range: std::ops::Range<usize>) -> Option<String> {
    let of_path = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '[' | ']' | '\'' | '"' | '-');
    let before = text.get(..range.start)?;
    let start = before.trim_end_matches(of_path).len();
    Some(text.get(start..range.end)?.trim().chars().take(80).collect())
}

/// An error of the engine, in words for whoever wrote the template.
fn told(error: &Error, text: &str) -> BadTemplate {
    let line = error.line().unwrap_or(1);
    let place = error.range().and_then(|range| place(text, range)).unwrap_or_default();
    let detail = || error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    let reason = match error.kind() {
        ErrorKind::UndefinedError => format!(
            "'{place}' is not there for this machine; set it (a label: bennu machine label MAC KEY=VALUE), or say what holds \
             without it: {{{{ {} | default(\"...\") }}}}",
            place.trim_start_matches('{').trim_end_matches('}').trim()
        ),
        ErrorKind::OutOfFuel => "the template does not come to an end in its time; it loops over too much".into(),
        ErrorKind::WriteFailure => {
            format!("the template comes to more than {MAX_RENDERED} bytes; put large files into the image")
        }
        ErrorKind::UnknownFilter => {
            format!("there is no such filter{}; there are {}", detail(), syntax::FILTERS.join(", "))
        }
        ErrorKind::UnknownTest | ErrorKind::UnknownFunction => format!("there is no such thing{}", detail()),
        ErrorKind::SyntaxError => format!("this is no template{}", detail()),
        kind => format!("{kind}{}{}", detail(), if place.is_empty() { place } else { format!(" at '{place}'") }),
    };
    BadTemplate { line, reason }
}

#[cfg(test)]
#[path = "template/tests.rs"]
mod checks;
