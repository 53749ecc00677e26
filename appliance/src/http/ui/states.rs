//! States of machines in words and shapes.

use bennu_rules::boot::State;

/// A state as the pages show it: a word, and one of the shapes in `layout.html`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// The word.
    pub word: &'static str,
    /// The kind that it is counted among, which is also its shape and its colour.
    pub kind: &'static str,
}

/// The kinds, those that want a person first, and what they are called.
pub const KINDS: [(&str, &str); 6] = [
    ("failed", "failed"),
    ("waiting", "waiting"),
    ("booting", "booting"),
    ("up", "up"),
    ("local", "own disk"),
    ("never", "not seen"),
];

const LOOKS: [(State, &str, &str); 10] = [
    (State::Firmware, "firmware", "booting"),
    (State::Loader, "loader", "booting"),
    (State::Waiting, "waiting", "waiting"),
    (State::Script, "kernel", "booting"),
    (State::Stage1, "stage 1", "booting"),
    (State::Init, "services", "booting"),
    (State::Up, "up", "up"),
    (State::Local, "own disk", "local"),
    (State::Failed, "failed", "failed"),
    (State::Superseded, "restarted", "booting"),
];

/// How a machine's latest boot looks; `None`: it never booted. One that goes on and has a diagnosis is stuck.
pub fn look(state: Option<State>, is_diagnosed: bool) -> Look {
    let Some(state) = state else { return Look { word: "not seen", kind: "never" } };
    let (_, word, kind) = LOOKS.into_iter().find(|(known, _, _)| *known == state).unwrap_or(LOOKS[0]);
    match kind {
        "booting" if is_diagnosed => Look { word: "stuck", kind: "failed" },
        _ => Look { word, kind },
    }
}

/// The same for the script: `{"stage1": ["stage 1", "booting"], …}`.
pub fn as_json() -> String {
    let looks = LOOKS.iter().map(|(state, word, kind)| (state.to_string(), serde_json::json!([word, kind])));
    serde_json::Value::Object(looks.collect()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_kind_that_is_counted() {
        for (state, word, kind) in LOOKS {
            assert_eq!(look(Some(state), false), Look { word, kind });
            assert!(KINDS.iter().any(|(known, _)| *known == kind), "{state:?}");
        }
        assert_eq!(look(Some(State::Stage1), true).kind, "failed");
        assert_eq!(look(Some(State::Up), true).kind, "up", "what was is over");
        assert!(as_json().contains(r#""stage1":["stage 1","booting"]"#), "{}", as_json());
    }
}
