//! What commands print: tables, sizes, ages, JSON.

use super::error::{CliError, Done};
use bennu_rules::Timestamp;
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// Prints one line or text. A reader that went away (`bennu … | head`) ends the process quietly.
pub fn say(text: impl AsRef<str>) {
    let text = text.as_ref();
    let mut out = io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    if write!(out, "{text}{end}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Prints a value as JSON, for programs.
pub fn say_json(value: &impl Serialize) -> Done {
    let text = serde_json::to_string_pretty(value).map_err(|error| CliError::failed(error.to_string(), ""))?;
    say(text);
    Ok(())
}

/// A listing. On a terminal it is fitted to its width; elsewhere every row is one line.
pub struct Listing {
    table: Table,
}

impl Listing {
    /// A listing with these columns; `right` names those that are aligned to the right.
    pub fn new(columns: &[&str], right: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let terminal = io::stdout().is_terminal();
        if terminal {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        table.set_header(columns.iter().map(|name| {
            let cell = Cell::new(name);
            if terminal { cell.add_attribute(Attribute::Bold) } else { cell }
        }));
        for (index, name) in columns.iter().enumerate() {
            if let Some(column) = table.column_mut(index) {
                column.set_padding((0, 2));
                if right.contains(name) {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        Self { table }
    }

    /// Adds a row.
    pub fn row<T: ToString>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.table.add_row(cells.into_iter().map(|cell| legible(&cell.to_string())).collect::<Vec<_>>());
    }

    /// Prints it, or `otherwise` when it is empty.
    pub fn print(&self, otherwise: &str) {
        if self.table.is_empty() {
            if io::stdout().is_terminal() {
                say(otherwise);
            }
            return;
        }
        say(self.table.trim_fmt());
    }
}

/// Text from the wire may hold what a terminal obeys.
pub fn legible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A size as a person reads it.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = count as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{size:.1} {}", UNITS[unit]) }
}

/// A span of time as a person reads it.
pub fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// How long ago something was, in its largest unit: tables are narrow.
pub fn age(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(at) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A point in time, to the second.
pub fn time(at: Timestamp) -> String {
    let text = at.to_string();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

/// Seconds with their milliseconds.
pub fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// Lines of `name  value`, the names aligned; empty values are left out.
pub fn fields(pairs: &[(&str, String)]) -> String {
    let shown = || pairs.iter().filter(|(_, value)| !value.is_empty());
    let width = shown().map(|(name, _)| name.len()).max().unwrap_or(0);
    shown().map(|(name, value)| format!("  {name:width$}  {}\n", legible(value))).collect()
}

/// `-` for what is absent.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_read_well() {
        assert_eq!((bytes(1023).as_str(), bytes(1 << 30).as_str()), ("1023 B", "1.0 GiB"));
        let spans = [0, 59_999, 61_000, 3_660_000, 90_000_000].map(span);
        assert_eq!(spans, ["0s", "59s", "1m01s", "1h01m", "1d01h"]);
        assert_eq!(age(Timestamp(0), Timestamp(90_000_000)), "25h");
    }

    #[test]
    fn rows_stay_rows_whatever_the_wire_says() {
        let mut listing = Listing::new(&["A", "B"], &["B"]);
        listing.row(["x\u{1b}[2J\ny", "1"]);
        assert_eq!(listing.table.trim_fmt().lines().count(), 2);
        assert!(!listing.table.to_string().contains('\u{1b}'));
    }
}
