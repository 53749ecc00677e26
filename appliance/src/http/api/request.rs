//! Reading requests: bodies, queries, MACs and preconditions, refused with a problem document that says where.

use super::problem::{Kind, Problem};
use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::request::Parts,
};
use bennu_rules::{MacAddress, commands::machines::Expected};
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::ops::ControlFlow;

/// Bodies of the API are a few fields.
pub const MAX_BODY: usize = 64 << 10;

/// A JSON body of so many bytes at most, every field of which is known.
pub struct Body<T, const LIMIT: usize = MAX_BODY>(pub T);

impl<T: DeserializeOwned, S: Send + Sync, const LIMIT: usize> FromRequest<S> for Body<T, LIMIT> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        parse(&received(request, LIMIT).await?).map(Self)
    }
}

/// The same of a document that holds whole files.
pub struct LongBody<T>(pub T);

/// What a document has at most, and some room to say that it is too long.
const MAX_LONG_BODY: usize = 1 << 20;

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for LongBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        parse(&received(request, MAX_LONG_BODY).await?).map(Self)
    }
}

/// A value as one of ours, every field of which is known.
pub fn read<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(malformed)
}

fn malformed(error: serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let pointer = pointer(error.path());
    let detail = error.into_inner().to_string();
    // The position says nothing that the pointer does not say better, except where it is no JSON at all.
    let detail = match (detail.rsplit_once(" at line "), pointer.is_empty()) {
        (Some((what, _)), false) => what.to_owned(),
        _ => detail,
    };
    Problem::new(Kind::Malformed, detail, "send a JSON object of the documented fields").at(pointer)
}

/// A JSON body that holds a secret: what is wrong with it is told without a word of it.
pub struct Hidden<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Hidden<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let hidden = |problem: Problem| match problem.status {
            400 => Problem {
                detail: "the body is not an object of the documented fields".into(),
                advice: "see where pointer points, or whether it is JSON at all".into(),
                ..problem
            },
            _ => problem,
        };
        Body::<T>::from_request(request, state).await.map(|Body(value)| Self(value)).map_err(hidden)
    }
}

/// A body that is said to be JSON, or of which nothing is said.
async fn received(request: Request, longest: usize) -> Result<Bytes, Problem> {
    if is_other_than_json(request.headers()) {
        let advice = "send the header Content-Type: application/json";
        return Err(Problem::new(Kind::MediaType, "the body is said to be no JSON", advice));
    }
    let cut =
        |_| Problem::new(Kind::TooLarge, format!("the body is longer than {longest} bytes, or was cut short"), "");
    axum::body::to_bytes(request.into_body(), longest).await.map_err(cut)
}

/// Whether the body is said to be other than JSON (RFC 8259, or a type built on it: RFC 6839 §3.1). Where nothing is
/// said, its bytes tell (RFC 9110 §8.3).
fn is_other_than_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return false };
    let kind = String::from_utf8_lossy(kind.as_bytes()).to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind != "application/json" && !(kind.starts_with("application/") && kind.ends_with("+json"))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // serde takes a list of values for an object of fields.
    if bytes.trim_ascii_start().first().is_some_and(|first| *first == b'[') {
        return Err(
            Problem::new(Kind::Malformed, "the body is a list", "send a JSON object of the documented fields").at("")
        );
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = match serde_path_to_error::deserialize(&mut json) {
        Ok(value) => value,
        Err(error) => return whole_numbers(bytes).map_or_else(|| Err(malformed(error)), read),
    };
    match json.end() {
        Ok(()) => Ok(value),
        Err(error) => {
            Err(Problem::new(Kind::Malformed, error.to_string(), "send one JSON object and nothing after it"))
        }
    }
}

/// The same with numbers such as `300.0` as the integers that they are to JSON (JSON Schema 2020-12, core §4.2.1), which
/// serde takes for fractions; `None`: there is none.
fn whole_numbers(bytes: &[u8]) -> Option<serde_json::Value> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    fn mend(value: &mut serde_json::Value) -> bool {
        use serde_json::Value;
        match value {
            Value::Object(fields) => fields.values_mut().fold(false, |mended, value| mend(value) | mended),
            Value::Array(items) => items.iter_mut().fold(false, |mended, value| mend(value) | mended),
            Value::Number(number) if number.is_f64() => match number.as_f64() {
                Some(whole) if whole.fract() == 0.0 && whole.abs() < EXACT => {
                    *number = (whole as i64).into();
                    true
                }
                _ => false,
            },
            _ => false,
        }
    }
    let mut value = serde_json::from_slice(bytes).ok()?;
    mend(&mut value).then_some(value)
}

/// A path as a JSON pointer (RFC 6901 §3).
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let segment = |segment: &Segment| match segment {
        Segment::Seq { index } => Some(format!("/{index}")),
        Segment::Map { key } => Some(format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
        _ => None,
    };
    path.iter().filter_map(segment).collect()
}

/// A query, every field of which is known.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Query::try_from_uri(&parts.uri).map(|Query(params)| Self(params)).map_err(|rejection| {
            let text = rejection.body_text();
            let detail = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
            Problem::new(Kind::Malformed, format!("query: {detail}"), "")
        })
    }
}

/// A machine's MAC out of a path.
pub fn mac(text: &str) -> Result<MacAddress, Problem> {
    text.parse().map_err(|error| Problem::new(Kind::Malformed, format!("{error}"), ""))
}

/// An image reference, name or assignment.
pub fn named<T: std::str::FromStr<Err = bennu_rules::image::BadReference>>(text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error: T::Err| Problem::new(Kind::Malformed, error.to_string(), ""))
}

/// The preconditions of a write: `If-Match` and `If-None-Match` (RFC 9110 §13.1).
pub fn expected(headers: &HeaderMap) -> Result<Option<Expected>, Problem> {
    let matched = tags(headers, &header::IF_MATCH)?.map(|tags| match tags {
        Tags::Any => Expected::Exists,
        // Weak tags never match here.
        Tags::These { strong, .. } => Expected::Version(strong),
    });
    let unmatched = tags(headers, &header::IF_NONE_MATCH)?.map(|tags| match tags {
        Tags::Any => Expected::Absent,
        Tags::These { mut strong, weak } => {
            strong.extend(weak);
            Expected::Other(strong)
        }
    });
    Ok(match (matched, unmatched) {
        (Some(matched), Some(unmatched)) => Some(Expected::All(vec![matched, unmatched])),
        (one, other) => one.or(other),
    })
}

/// A list of ETags, without what they tell of more than the record.
enum Tags {
    Any,
    These { strong: Vec<String>, weak: Vec<String> },
}

fn tags(headers: &HeaderMap, name: &header::HeaderName) -> Result<Option<Tags>, Problem> {
    let (mut strong, mut weak) = (Vec::new(), Vec::new());
    for value in headers.get_all(name) {
        let refuse = || {
            let what = if name == header::IF_MATCH { "If-Match" } else { "If-None-Match" };
            Problem::new(Kind::Malformed, format!("{what} is no list of ETags"), "send the ETag of a GET as it was")
        };
        let value = value.to_str().map_err(|_| refuse())?;
        if value.trim() == "*" {
            return Ok(Some(Tags::Any));
        }
        // Empty elements are passed over (RFC 9110 §5.6.1.2), and an empty list matches nothing.
        for tag in value.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
            let bare = tag.strip_prefix("W/").unwrap_or(tag);
            let version = bare.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).ok_or_else(refuse)?;
            if !version.bytes().all(|byte| matches!(byte, b'!' | b'#'..=b'~')) {
                return Err(refuse());
            }
            // What follows tells of more than the record: see `conditional`.
            let version = version.split_once('-').map_or(version, |(version, _)| version);
            let list = if bare.len() < tag.len() { &mut weak } else { &mut strong };
            list.push(version.to_owned());
        }
    }
    Ok(headers.contains_key(name).then_some(Tags::These { strong, weak }))
}

/// The precondition of writes.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code)]
pub struct IfMatch {
    /// The ETag of what was looked at, or `*` for anything that is there. The write is refused with 412 where the
    /// resource is another by now (RFC 9110 §13.1.1).
    #[param(rename = "If-Match", pattern = "^(\\*|(W/)?\"[!#-+\\--~]*\"(, ?(W/)?\"[!#-+\\--~]*\")*)?$")]
    if_match: Option<String>,
    /// `*`: the write is refused with 412 where there is such a resource already (RFC 9110 §13.1.2).
    #[param(rename = "If-None-Match", pattern = "^(\\*|(W/)?\"[!#-+\\--~]*\"(, ?(W/)?\"[!#-+\\--~]*\")*)?$")]
    if_none_match: Option<String>,
}

/// Which part of a listing is asked for.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// Items at most.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<Limit>,
    /// The last item of the page before.
    after: Option<String>,
}

/// Part of a listing.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// What to ask as `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// How many items a page has at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "usize")]
pub struct Limit(usize);

impl TryFrom<usize> for Limit {
    type Error = String;

    fn try_from(limit: usize) -> Result<Self, String> {
        match limit {
            1..=MAX_LIMIT => Ok(Self(limit)),
            _ => Err(format!("limit is {limit}; write 1 to {MAX_LIMIT}")),
        }
    }
}

impl Limit {
    /// The number, where it is not said the usual one.
    pub fn or_usual(limit: Option<Self>) -> usize {
        limit.map_or(DEFAULT_LIMIT, |Self(limit)| limit)
    }
}

impl Paging {
    /// A page's size and the key that it comes after.
    pub fn new(limit: Option<Limit>, after: Option<String>) -> Self {
        Self { limit, after }
    }

    /// The page of `all`, each item known by its key; shown as `show` does.
    pub fn page<T, U>(&self, all: Vec<T>, key: impl Fn(&T) -> String, show: impl FnMut(T) -> U) -> Page<U> {
        let limit = Limit::or_usual(self.limit);
        let start = match &self.after {
            None => 0,
            Some(after) => all.iter().position(|item| key(item) == *after).map_or(all.len(), |index| index + 1),
        };
        let more = all.len() > start + limit;
        let items: Vec<T> = all.into_iter().skip(start).take(limit).collect();
        let next = items.last().filter(|_| more).map(&key);
        Page { items: items.into_iter().map(show).collect(), next }
    }
}

/// A page that is filled while somebody walks over a long list, until it is known whether there is more.
pub struct Filling<T> {
    limit: usize,
    items: Vec<T>,
    more: bool,
}

impl<T> Filling<T> {
    /// An empty page.
    pub fn new(limit: Option<Limit>) -> Self {
        Self { limit: Limit::or_usual(limit), items: Vec::new(), more: false }
    }

    /// Takes an item, or breaks off where the page is full.
    pub fn take(&mut self, item: T) -> ControlFlow<()> {
        self.more = self.items.len() == self.limit;
        if self.more {
            return ControlFlow::Break(());
        }
        self.items.push(item);
        ControlFlow::Continue(())
    }

    /// The page, each item known by its key.
    pub fn page(self, key: impl Fn(&T) -> String) -> Page<T> {
        let next = self.items.last().filter(|_| self.more).map(key);
        Page { items: self.items, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        #[allow(dead_code)]
        labels: std::collections::BTreeMap<String, Option<String>>,
    }

    #[test]
    fn a_wrong_body_is_refused_with_a_pointer() {
        for (body, pointer) in [
            (r#"{"label":{}}"#, "/label"),
            (r#"{"labels":{"a/b":7}}"#, "/labels/a~1b"),
            (r#"{"labels":[]}"#, "/labels"),
        ] {
            let problem = parse::<Example>(body.as_bytes()).unwrap_err();
            assert_eq!(problem.pointer.as_deref(), Some(pointer), "{problem:?}");
        }
        #[derive(Debug, PartialEq, Deserialize)]
        struct Counted {
            count: u32,
        }
        assert_eq!(parse(br#"{"count":300.0}"#), Ok(Counted { count: 300 }));
        for wrong in [r#"{"count":300.5}"#, r#"{"count":-1.0}"#, r#"{"count":1e99}"#, r#"{"count":1.0} {}"#] {
            assert!(parse::<Counted>(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(parse::<Example>(br#"{"labels":{}} {}"#).is_err());
        assert!(parse::<Example>(b"no json").is_err());
        assert!(parse::<Example>(b" [{}]").is_err());
    }

    #[test]
    fn preconditions_are_read() {
        let read = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, HeaderValue::from_static(value));
            expected(&headers)
        };
        assert_eq!(expected(&HeaderMap::new()), Ok(None));
        assert_eq!(read("*"), Ok(Some(Expected::Exists)));
        assert_eq!(read(r#""a", W/"b", "c""#), Ok(Some(Expected::Version(vec!["a".into(), "c".into()]))));
        assert_eq!(read(""), Ok(Some(Expected::Version(Vec::new()))), "a list of none");
        for wrong in ["bare", "\"a b\"", "\"a\", *", "null"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let both = |matched: &'static str, unmatched: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, HeaderValue::from_static(matched));
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static(unmatched));
            expected(&headers).unwrap().unwrap()
        };
        let other = Expected::Other(vec!["b".into(), "c".into()]);
        assert_eq!(both("*", r#"W/"c", "b-1""#), Expected::All(vec![Expected::Exists, other]));
        assert_eq!(both("*", "*"), Expected::All(vec![Expected::Exists, Expected::Absent]));
    }

    #[test]
    fn pages_follow_one_another() {
        let all: Vec<u32> = (0..5).collect();
        let page = |after: Option<&str>| {
            Paging::new(Some(Limit(2)), after.map(str::to_owned)).page(all.clone(), u32::to_string, |item| item)
        };
        assert_eq!((page(None).items, page(None).next.as_deref()), (vec![0, 1], Some("1")));
        assert_eq!(page(Some("1")).items, [2, 3]);
        assert_eq!((page(Some("3")).items, page(Some("3")).next), (vec![4], None));
        assert!(page(Some("9")).items.is_empty());
    }
}
