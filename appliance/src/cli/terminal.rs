//! A terminal that is drawn on as a whole: the kernel's own screen, a serial line, or whatever a person works in. The console
//! and the set-up share it.

mod keyboard;
mod keys;
mod paint;
mod screen;

pub use keyboard::Keyboard;
pub use keys::Key;
pub use paint::{Look, Paint, fitted};
pub use screen::{Screen, ScreenError};

#[cfg(test)]
pub use paint::tests::shown;
