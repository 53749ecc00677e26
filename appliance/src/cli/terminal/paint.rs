//! Putting text on a screen: what may be shown, how it looks, and how it is cut.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What a terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Colours (<https://no-color.org>).
    pub color: bool,
    /// More than ASCII.
    pub unicode: bool,
}

impl Look {
    /// Of the terminal that `TERM` names. A VT220 knows no UTF-8; whatever stands at a serial line is taken for one.
    pub fn of(term: &str, no_color: bool) -> Self {
        let is_old = term.starts_with("vt") || matches!(term, "" | "dumb" | "ansi" | "unknown");
        Self { color: !no_color && !term.starts_with("vt1") && term != "dumb", unicode: !is_old }
    }

    /// Of this process's terminal.
    pub fn of_environment() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self::of(&std::env::var("TERM").unwrap_or_default(), no_color)
    }

    fn colored(self, color: Color, otherwise: Modifier) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new().add_modifier(otherwise) }
    }

    /// What names something else.
    pub fn label(self) -> Style {
        self.colored(Color::Cyan, Modifier::empty())
    }

    /// Headings.
    pub fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What went well.
    pub fn good(self) -> Style {
        self.colored(Color::Green, Modifier::empty())
    }

    /// What went wrong.
    pub fn bad(self) -> Style {
        self.colored(Color::Red, Modifier::BOLD)
    }

    /// What must not be overlooked.
    pub fn loud(self) -> Style {
        let base = Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED);
        if self.color { base.fg(Color::Yellow) } else { base }
    }

    /// Where one is.
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}

/// Text as it may be shown: whatever came from a wire, nothing of it moves the cursor, turns the direction of writing or hides.
pub fn clean(text: &str, look: Look) -> String {
    let shown = |c: char| {
        let hides = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
        match c {
            _ if c.is_ascii_graphic() || c == ' ' => c,
            _ if c.is_control() || hides || !look.unicode || c.width().unwrap_or(0) == 0 => '?',
            _ => c,
        }
    };
    text.chars().map(shown).collect()
}

/// Text in exactly so many columns.
pub fn fitted(text: &str, width: usize, look: Look) -> String {
    let text = clean(text, look);
    let long = text.width();
    if long <= width {
        return format!("{text}{}", " ".repeat(width - long));
    }
    let (mut cut, mut used) = (String::new(), 0);
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide >= width {
            break;
        }
        cut.push(c);
        used += wide;
    }
    if width > 0 {
        // The kernel's own fonts have Latin-1, and no ellipsis.
        cut.push(if look.unicode { '»' } else { '~' });
        used += 1;
    }
    format!("{cut}{}", " ".repeat(width.saturating_sub(used)))
}

/// A part of the screen that is written line by line, from the top.
pub struct Paint<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    /// How it looks.
    pub look: Look,
    row: u16,
}

impl<'a> Paint<'a> {
    /// On all of this area.
    pub fn on(buffer: &'a mut Buffer, area: Rect, look: Look) -> Self {
        Self { buffer, area, look, row: 0 }
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.area.width.into()
    }

    /// Lines that are left.
    pub fn left(&self) -> usize {
        (self.area.height - self.row).into()
    }

    /// Goes on at this line, counted from the top.
    pub fn go_to(&mut self, row: usize) {
        self.row = u16::try_from(row).unwrap_or(u16::MAX).min(self.area.height);
    }

    /// Writes a line of parts; what does not fit is cut.
    pub fn line(&mut self, parts: &[(&str, Style)]) {
        if self.row < self.area.height {
            let (mut x, y) = (self.area.x, self.area.y + self.row);
            for (text, style) in parts {
                let room = usize::from(self.area.right() - x);
                (x, _) = self.buffer.set_stringn(x, y, clean(text, self.look), room, *style);
            }
        }
        self.skip();
    }

    /// Writes a line in one style over the whole width.
    pub fn band(&mut self, text: &str, style: Style) {
        let whole = fitted(text, self.width(), self.look);
        self.line(&[(&whole, style)]);
    }

    /// Writes text in as many lines as it needs, `indent` columns in.
    pub fn wrapped(&mut self, text: &str, indent: usize, style: Style) {
        for line in lines(&clean(text, self.look), self.width().saturating_sub(indent)) {
            let space = " ".repeat(indent);
            self.line(&[(&space, Style::new()), (&line, style)]);
        }
    }

    /// Leaves a line empty.
    pub fn skip(&mut self) {
        self.row = (self.row + 1).min(self.area.height);
    }

    /// A line from side to side.
    pub fn rule(&mut self) {
        let stroke = if self.look.unicode { "─" } else { "-" };
        let line = stroke.repeat(self.width());
        let style = self.look.label();
        self.line(&[(&line, style)]);
    }

    /// A bar that is so full, of 100.
    pub fn bar(&self, percent: u8, width: usize) -> String {
        let full = width * usize::from(percent.min(100)) / 100;
        let (done, open) = if self.look.unicode { ("█", "░") } else { ("#", ".") };
        format!("{}{}", done.repeat(full), open.repeat(width - full))
    }
}

/// Text in lines of at most `width` columns, cut between words where that is possible.
pub fn lines(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split_whitespace() {
        let mut word = word.to_owned();
        if !line.is_empty() && line.width() + 1 + word.width() > width {
            lines.push(std::mem::take(&mut line));
        }
        while word.width() > width {
            let cut = word.char_indices().map(|(at, _)| at).take_while(|at| word[..*at].width() <= width).last();
            let rest = word.split_off(cut.filter(|cut| *cut > 0).unwrap_or(word.len()));
            lines.push(std::mem::replace(&mut word, rest));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use ratatui::{Terminal, backend::TestBackend};

    /// What a screen of this size shows, line by line, without spaces at their ends.
    pub fn shown(width: u16, height: u16, draw: impl FnOnce(&mut Buffer)) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame.buffer_mut())).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y: u16| {
            let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
            line.trim_end().to_owned()
        };
        (0..height).map(line).collect::<Vec<_>>().join("\n")
    }

    const RICH: Look = Look { color: true, unicode: true };
    const POOR: Look = Look { color: false, unicode: false };

    #[test]
    fn what_a_terminal_obeys_never_reaches_it() {
        let hostile = "a\x1b[2J\u{202e}b\u{200b}\n\u{9b}31mé界";
        assert_eq!(clean(hostile, RICH), "a?[2J?b???31mé界");
        assert_eq!(clean(hostile, POOR), "a?[2J?b???31m??");
    }

    #[test]
    fn text_fits_its_column_whatever_its_letters() {
        assert_eq!(fitted("abc", 5, RICH), "abc  ");
        assert_eq!(fitted("abcdef", 4, RICH), "abc»");
        assert_eq!(fitted("abcdef", 4, POOR), "abc~");
        assert_eq!(fitted("界界界", 4, RICH), "界» ");
        assert_eq!(fitted("x", 0, RICH), "");
    }

    #[test]
    fn lines_break_between_words_and_inside_of_long_ones() {
        assert_eq!(lines("one two  three", 8), ["one two", "three"]);
        assert_eq!(lines("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(lines("界界", 1), ["界界"]);
        assert!(lines(" ", 5).is_empty());
    }

    #[test]
    fn terminals_are_told_by_their_names() {
        assert_eq!(Look::of("vt220", false), Look { color: true, unicode: false });
        assert_eq!(Look::of("linux", false), RICH);
        assert_eq!(Look::of("xterm-256color", true), Look { color: false, unicode: true });
        assert_eq!(Look::of("", true), POOR);
    }
}
