//! Making an appliance as it was when it came: what of its state disk goes, and in which order.
//!
//! A marker is made durable first. As long as it is there, whatever is to go goes before anything is started, and it goes
//! itself when all of that is durably gone. So a reset that the power was cut in ends at the next start.

use serde::{Deserialize, Serialize};

/// The marker, on the state disk. It appears whole.
pub const MARKER: &str = "reset.json";
/// The directory of the slots that hold discs.
pub const SLOTS: &str = "slots";
/// The service's directory: it is mounted elsewhere too, and so stays while its content goes.
pub const SERVED: &str = "bennu";
/// The configuration.
pub const CONFIGURATION: &str = "bennu.toml";

/// What is asked for; the marker's content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// Whether the configuration stays.
    pub keep_configuration: bool,
}

/// What becomes of something on the state disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stays as it is.
    Stays,
    /// It stays, and all in it goes.
    Emptied,
    /// It stays, and of what is in it what [`Reset::fate_in_slots`] says.
    Sorted,
    /// It goes.
    Goes,
}

impl Reset {
    /// What becomes of an entry of the state disk's top directory. What nobody knows goes.
    pub fn fate(self, name: &str) -> Fate {
        match name {
            MARKER | "lost+found" => Fate::Stays,
            CONFIGURATION if self.keep_configuration => Fate::Stays,
            SERVED => Fate::Emptied,
            SLOTS => Fate::Sorted,
            _ => Fate::Goes,
        }
    }

    /// What becomes of what is in the slots' directory: the discs stay, and what GRUB remembers of them.
    pub fn fate_in_slots(name: &str) -> Fate {
        if matches!(name, "a" | "b" | "grubenv") { Fate::Stays } else { Fate::Goes }
    }
}

/// Whether what somebody typed names this machine, by its name or by its state disk's serial number. An empty line names
/// nothing.
pub fn is_named(typed: &str, names: &[&str]) -> bool {
    let typed = typed.trim();
    !typed.is_empty() && names.iter().any(|name| name.trim() == typed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_goes_but_the_discs_and_what_is_to_stay() {
        let (all, but) = (Reset::default(), Reset { keep_configuration: true });
        for name in ["log", "restore", "bennu.toml.new", "keys", "reset.json.new", ""] {
            assert_eq!((all.fate(name), but.fate(name)), (Fate::Goes, Fate::Goes), "{name}");
        }
        assert_eq!((all.fate(CONFIGURATION), but.fate(CONFIGURATION)), (Fate::Goes, Fate::Stays));
        assert_eq!((all.fate(MARKER), all.fate(SERVED), all.fate(SLOTS)), (Fate::Stays, Fate::Emptied, Fate::Sorted));
        for name in ["a", "b", "grubenv"] {
            assert_eq!(Reset::fate_in_slots(name), Fate::Stays);
        }
        assert_eq!(Reset::fate_in_slots("new"), Fate::Goes);
    }

    #[test]
    fn an_empty_line_names_no_machine() {
        assert!(is_named(" rack-1\n", &["rack-1", ""]));
        for typed in ["", " \n", "rack", "RACK-1"] {
            assert!(!is_named(typed, &["rack-1", ""]), "{typed:?}");
        }
    }
}
