//! Conditional requests and ranges (RFC 9110 §13 and §14) of something that never changes: pure.

use axum::http::{HeaderMap, HeaderName, header};
use std::ops::Range;

/// What of a representation to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// 200.
    Whole,
    /// 206: these bytes.
    Part(Range<u64>),
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
    /// 416.
    Unsatisfiable,
}

/// Selects by the request's headers. `etag` is the strong tag with its quotes, `length` counts bytes.
///
/// The order is RFC 9110 §13.2.2's. Dates are not compared: a blob has a digest and no date, so `If-Range` with a
/// date never matches. A request for several ranges gets the whole (§14.2 allows that), as does a malformed one.
pub fn select(headers: &HeaderMap, etag: &str, length: u64) -> Selection {
    if text(headers, header::IF_MATCH).is_some_and(|list| !names(list, etag, true)) {
        return Selection::PreconditionFailed;
    }
    if text(headers, header::IF_NONE_MATCH).is_some_and(|list| names(list, etag, false)) {
        return Selection::NotModified;
    }
    if text(headers, header::IF_RANGE).is_some_and(|condition| condition != etag) {
        return Selection::Whole;
    }
    text(headers, header::RANGE).map_or(Selection::Whole, |range| one_range(range, length))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// Whether a list of entity tags names this one. `If-Match` compares strongly, `If-None-Match` weakly (§8.8.3.2).
fn names(list: &str, etag: &str, strongly: bool) -> bool {
    list.split(',').map(str::trim).any(|tag| {
        let bare = tag.strip_prefix("W/").filter(|_| !strongly).unwrap_or(tag);
        tag == "*" || bare == etag
    })
}

fn one_range(range: &str, length: u64) -> Selection {
    let Some((unit, set)) = range.split_once('=') else { return Selection::Whole };
    let Some((first, last)) = set.trim().split_once('-').filter(|_| unit.trim().eq_ignore_ascii_case("bytes")) else {
        return Selection::Whole;
    };
    let part = |start: u64, end: u64| {
        if start < length { Selection::Part(start..end.min(length)) } else { Selection::Unsatisfiable }
    };
    match (number(first), number(last)) {
        (Number::Is(start), Number::Is(end)) if end < start => Selection::Whole,
        (Number::Is(start), Number::Is(end)) => part(start, end.saturating_add(1)),
        (Number::Is(start), Number::Absent) => part(start, length),
        (Number::Absent, Number::Is(0)) => Selection::Unsatisfiable,
        (Number::Absent, Number::Is(suffix)) => part(length.saturating_sub(suffix), length),
        _ => Selection::Whole,
    }
}

enum Number {
    Is(u64),
    Absent,
    Malformed,
}

fn number(digits: &str) -> Number {
    if digits.is_empty() {
        return Number::Absent;
    }
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Number::Malformed;
    }
    // More digits than a number holds mean "beyond the end" all the same.
    Number::Is(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "\"sha256:ab\"";

    fn ask(pairs: &[(HeaderName, &str)]) -> Selection {
        let headers = pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        select(&headers, TAG, 1000)
    }

    fn range(value: &str) -> Selection {
        ask(&[(header::RANGE, value)])
    }

    #[test]
    fn single_ranges_are_served() {
        for (asked, part) in [
            ("bytes=0-0", 0..1),
            ("bytes=0-499", 0..500),
            ("bytes=500-", 500..1000),
            ("bytes=999-5000", 999..1000),
            ("bytes=-1", 999..1000),
            ("bytes=-5000", 0..1000),
            ("Bytes= 5-6", 5..7),
            ("bytes=1-99999999999999999999999", 1..1000),
        ] {
            assert_eq!(range(asked), Selection::Part(part), "{asked}");
        }
    }

    #[test]
    fn what_lies_beyond_the_end_is_refused() {
        for asked in ["bytes=1000-", "bytes=1000-1001", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(range(asked), Selection::Unsatisfiable, "{asked}");
        }
        let headers = HeaderMap::from_iter([(header::RANGE, "bytes=0-0".parse().unwrap())]);
        assert_eq!(select(&headers, TAG, 0), Selection::Unsatisfiable);
    }

    #[test]
    fn malformed_and_several_ranges_get_the_whole() {
        for asked in [
            "bytes=",
            "bytes=-",
            "bytes=5-4",
            "bytes=a-b",
            "bytes=1-2,5-6",
            "lines=1-2",
            "bytes",
            "",
            "bytes=+1-2",
            "bytes=1--2",
        ] {
            assert_eq!(range(asked), Selection::Whole, "{asked}");
        }
    }

    #[test]
    fn conditions_come_first() {
        let part = (header::RANGE, "bytes=0-9");
        let other = "\"sha256:cd\"";
        for (condition, value, wanted) in [
            (header::IF_RANGE, TAG, Selection::Part(0..10)),
            (header::IF_RANGE, other, Selection::Whole),
            (header::IF_RANGE, "W/\"sha256:ab\"", Selection::Whole),
            (header::IF_RANGE, "Fri, 20 Nov 2026 00:00:00 GMT", Selection::Whole),
            (header::IF_MATCH, TAG, Selection::Part(0..10)),
            (header::IF_MATCH, "*", Selection::Part(0..10)),
            (header::IF_MATCH, other, Selection::PreconditionFailed),
            (header::IF_MATCH, "W/\"sha256:ab\"", Selection::PreconditionFailed),
            (header::IF_NONE_MATCH, TAG, Selection::NotModified),
            (header::IF_NONE_MATCH, "W/\"sha256:ab\"", Selection::NotModified),
            (header::IF_NONE_MATCH, "\"x\", \"sha256:ab\"", Selection::NotModified),
            (header::IF_NONE_MATCH, "*", Selection::NotModified),
            (header::IF_NONE_MATCH, other, Selection::Part(0..10)),
        ] {
            assert_eq!(ask(&[part.clone(), (condition.clone(), value)]), wanted, "{condition}: {value}");
        }
    }
}
