//! The terminal itself: taken over while something is drawn on all of it, and left as it was.

use super::paint::Look;
use ratatui::{Terminal, TerminalOptions, Viewport, backend::CrosstermBackend, buffer::Buffer, layout::Rect};
use rustix::{
    fs::{Mode, OFlags},
    termios::{
        OptionalActions, OutputModes, Termios, Winsize, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
    },
};
use std::{
    io::{self, BufWriter, Stdout, Write, stdin, stdout},
    path::Path,
};

/// What a terminal that does not say how large it is, is taken for.
const USUAL: (u16, u16) = (80, 24);
/// Nothing sensible is drawn on less or more.
const LEAST: (u16, u16) = (20, 8);
const MOST: (u16, u16) = (500, 200);
/// Another page where there is one (xterm), all of it empty, and no cursor.
const TAKE: &str = "\x1b[?1049h\x1b[0m\x1b[2J\x1b[H\x1b[?25l";
const LEAVE: &str = "\x1b[0m\x1b[2J\x1b[H\x1b[?25h\x1b[?1049l";
/// The cursor as far right and down as it goes, and the question where that is (ECMA-48, CUP and DSR).
const ASK_SIZE: &str = "\x1b[999;999H\x1b[6n";

/// Why nothing can be drawn.
#[derive(Debug, thiserror::Error)]
pub enum ScreenError {
    /// Not a terminal, or one that cannot place its cursor.
    #[error("this is no terminal that can be drawn on")]
    None,
    /// The system says no.
    #[error("the terminal cannot be taken over: {0}")]
    Refused(#[from] io::Error),
}

/// A terminal that was taken over. Dropping it gives it back.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
    before: Termios,
    size: (u16, u16),
    /// What it can show.
    pub look: Look,
}

impl Screen {
    /// Takes the process's own terminal over, or this device.
    pub fn open(device: Option<&Path>) -> Result<Self, ScreenError> {
        if let Some(device) = device {
            take_as_files(device)?;
        }
        let is_dumb = matches!(std::env::var("TERM").as_deref(), Ok("dumb" | ""));
        if is_dumb || !isatty(stdin()) || !isatty(stdout()) {
            return Err(ScreenError::None);
        }
        let mut before = tcgetattr(stdin()).map_err(io::Error::from)?;
        // Whoever had it before us may have been killed.
        before.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).map_err(io::Error::from)?;
        let size = size_now();
        let mut screen = Self { terminal: empty(size)?, before, size, look: Look::of_environment() };
        screen.write(TAKE)?;
        screen.ask_size()?;
        Ok(screen)
    }

    /// Draws.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Buffer, Look)) -> io::Result<()> {
        let size = size_now();
        if size != self.size {
            self.size = size;
            self.clear()?;
        }
        let look = self.look;
        self.terminal.draw(|frame| draw(frame.buffer_mut(), look)).map(drop)
    }

    /// Draws everything anew the next time: somebody else wrote on it, or it was just plugged in.
    pub fn forget(&mut self) -> io::Result<()> {
        self.write("\x1b[?25l")?;
        self.clear()?;
        self.ask_size()
    }

    /// Ratatui's own way asks for the cursor's place and fails without an answer, which a serial line may not give and our
    /// keyboard would take.
    fn clear(&mut self) -> io::Result<()> {
        self.write("\x1b[0m\x1b[2J")?;
        self.terminal = empty(self.size)?;
        Ok(())
    }

    /// A serial line has no size of its own; what stands at its end does, and is asked for it.
    fn ask_size(&mut self) -> io::Result<()> {
        let says_itself = tcgetwinsize(stdout()).is_ok_and(|size| size.ws_col > 0 && size.ws_row > 0);
        if says_itself && !self.asked_before() { Ok(()) } else { self.write(ASK_SIZE) }
    }

    /// A size that we noted ourselves has these marks.
    fn asked_before(&self) -> bool {
        tcgetwinsize(stdout()).is_ok_and(|size| size.ws_xpixel == u16::MAX)
    }

    /// What the terminal said of its size.
    pub fn note_size(&mut self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: u16::MAX, ws_ypixel: u16::MAX };
        if (LEAST.0..=MOST.0).contains(&columns) && (LEAST.1..=MOST.1).contains(&rows) {
            let _ = tcsetwinsize(stdout(), size);
        }
    }

    fn write(&self, text: &str) -> io::Result<()> {
        // Whatever was drawn has left the backend's buffer.
        let mut to = stdout().lock();
        to.write_all(text.as_bytes())?;
        to.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.write(LEAVE);
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}

/// All of it, with nothing drawn yet.
fn empty((columns, rows): (u16, u16)) -> io::Result<Terminal<CrosstermBackend<BufWriter<Stdout>>>> {
    let viewport = Viewport::Fixed(Rect::new(0, 0, columns, rows));
    let backend = CrosstermBackend::new(BufWriter::with_capacity(1 << 15, stdout()));
    Terminal::with_options(backend, TerminalOptions { viewport })
}

fn size_now() -> (u16, u16) {
    match tcgetwinsize(stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            (size.ws_col.clamp(LEAST.0, MOST.0), size.ws_row.clamp(LEAST.1, MOST.1))
        }
        _ => USUAL,
    }
}

/// The device becomes the standard files of this process, which init starts without any. It is nobody's controlling terminal:
/// raw keys need none, and when a process that has one ends, the kernel hangs up on everybody else who writes there.
fn take_as_files(device: &Path) -> io::Result<()> {
    // Without waiting for a carrier, which most serial lines lack.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(device, flags, Mode::empty())
        .map_err(|error| io::Error::new(io::Error::from(error).kind(), format!("{}: {error}", device.display())))?;
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    rustix::stdio::dup2_stdin(&file)?;
    rustix::stdio::dup2_stdout(&file)?;
    Ok(())
}
