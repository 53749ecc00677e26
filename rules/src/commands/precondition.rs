//! What a write expects of the record that it changes (RFC 9110 §13.1): nobody's change is lost by a write that did not
//! know of it.

use super::Refusal;
use std::fmt;

/// What a person expects the record to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// `If-Match: *`: any record, as long as there is one.
    Exists,
    /// `If-Match`: one of these versions.
    Version(Vec<String>),
    /// `If-None-Match: *`: none.
    Absent,
    /// `If-None-Match`: none, or another than these versions.
    Other(Vec<String>),
    /// All of these.
    All(Vec<Expected>),
}

impl Expected {
    /// Whether the record is so; `None`: there is none.
    pub fn is_met(&self, version: Option<&str>) -> bool {
        let is_among = |versions: &[String]| versions.iter().any(|one| Some(one.as_str()) == version);
        match self {
            Self::Exists => version.is_some(),
            Self::Version(versions) => is_among(versions),
            Self::Absent => version.is_none(),
            Self::Other(versions) => !is_among(versions),
            Self::All(all) => all.iter().all(|one| one.is_met(version)),
        }
    }

    /// Whether it is that there is something at all which forbids the write.
    fn forbids_any(&self) -> bool {
        match self {
            Self::Absent => true,
            Self::All(all) => all.iter().any(Self::forbids_any),
            Self::Exists | Self::Version(_) | Self::Other(_) => false,
        }
    }
}

/// Refuses a write whose expectation is not met with `stale`, or because `what` is there already.
pub(super) fn check(
    expected: &Option<Expected>,
    version: Option<String>,
    what: impl fmt::Display,
    stale: impl FnOnce(String) -> Refusal,
) -> Result<(), Refusal> {
    let Some(expected) = expected.as_ref().filter(|expected| !expected.is_met(version.as_deref())) else {
        return Ok(());
    };
    Err(match version.is_some() && expected.forbids_any() {
        true => Refusal::IsThere { what: what.to_string() },
        false => stale(what.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_as_expected_or_not() {
        let versions = |versions: &[&str]| versions.iter().map(|version| version.to_string()).collect::<Vec<_>>();
        for (expected, is_a, is_none) in [
            (Expected::Exists, true, false),
            (Expected::Version(versions(&["b", "a"])), true, false),
            (Expected::Version(versions(&["b"])), false, false),
            (Expected::Version(Vec::new()), false, false),
            (Expected::Absent, false, true),
            (Expected::Other(versions(&["a"])), false, true),
            (Expected::Other(versions(&["b"])), true, true),
            (Expected::All(vec![Expected::Exists, Expected::Absent]), false, false),
            (Expected::All(vec![Expected::Exists, Expected::Other(Vec::new())]), true, false),
        ] {
            assert_eq!((expected.is_met(Some("a")), expected.is_met(None)), (is_a, is_none), "{expected:?}");
        }
    }

    #[test]
    fn who_wants_to_create_is_told_that_it_is_there() {
        let refusal = |expected, version: Option<&str>| {
            check(&Some(expected), version.map(str::to_owned), "tag a:b", |what| Refusal::Stale { what }).unwrap_err()
        };
        assert!(matches!(refusal(Expected::Absent, Some("a")), Refusal::IsThere { what } if what == "tag a:b"));
        assert!(matches!(refusal(Expected::Exists, None), Refusal::Stale { .. }));
        assert!(matches!(refusal(Expected::Version(Vec::new()), Some("a")), Refusal::Stale { .. }));
        assert!(check(&None, None, "tag a:b", |what| Refusal::Stale { what }).is_ok());
    }
}
