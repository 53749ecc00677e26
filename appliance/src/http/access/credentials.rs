//! The token in a request's `Authorization` (RFC 9110 §11.6.2).

use super::sessions::COOKIE;
use axum::http::{HeaderMap, header};
use base64::{Engine, prelude::BASE64_STANDARD};
use bennu_rules::token::Bearer;

/// What a request shows.
#[derive(Debug, PartialEq, Eq)]
pub enum Shown {
    /// Nothing.
    Nothing,
    /// Something that is no token of any Bennu.
    Nonsense,
    /// A token, be it known or not.
    Token(Bearer),
}

/// The value of our session's cookie (RFC 6265 §4.2); `None` where it is there twice.
pub fn cookie(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut ours = pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value);
    ours.next().filter(|_| ours.next().is_none())
}

/// A bearer token (RFC 6750 §2.1), or the password of any user (RFC 7617): what registry clients can be told.
pub fn shown(headers: &HeaderMap) -> Shown {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Shown::Nothing,
        (Some(value), None) => value.to_str().ok(),
        (Some(_), Some(_)) => None,
    };
    value.and_then(token).map_or(Shown::Nonsense, Shown::Token)
}

fn token(value: &str) -> Option<Bearer> {
    let (scheme, rest) = value.split_once(' ')?;
    let rest = rest.trim_matches(' ');
    if scheme.eq_ignore_ascii_case("bearer") {
        return Bearer::parse(rest);
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(BASE64_STANDARD.decode(rest).ok()?).ok()?;
    let (_user, password) = pair.split_once(':')?;
    Bearer::parse(password)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bennu_rules::token::TokenId;

    fn read(values: &[&str]) -> Shown {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        shown(&headers)
    }

    #[test]
    fn the_sessions_cookie_is_found_among_others() {
        let read = |values: &[&str]| {
            let values = values.iter().map(|value| (header::COOKIE, value.parse().unwrap()));
            let headers: HeaderMap = values.collect();
            cookie(&headers).map(str::to_owned)
        };
        assert_eq!(read(&["a=b; __Host-bennu=07; c=d"]).as_deref(), Some("07"));
        assert_eq!(read(&["a=b", "__Host-bennu=07"]).as_deref(), Some("07"));
        for none in [&[] as &[&str], &["__host-bennu=07"], &["x__Host-bennu=07"], &["__Host-bennu"]] {
            assert_eq!(read(none), None, "{none:?}");
        }
        assert_eq!(read(&["__Host-bennu=07; __Host-bennu=08"]), None, "which of the two would count?");
    }

    #[test]
    fn bearer_and_basic_are_read_and_nothing_else() {
        let bearer = Bearer { id: TokenId([1, 2, 3, 4]), secret: [7; 32] };
        let token = bearer.reveal();
        let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        let good = [
            format!("Bearer {token}"),
            format!("bearer  {token}"),
            basic(&format!("anybody:{token}")),
            basic(&format!(":{token}")).replace("Basic", "BASIC"),
        ];
        for value in &good {
            assert_eq!(read(&[value]), Shown::Token(bearer.clone()), "{value}");
        }
        assert_eq!(read(&[]), Shown::Nothing);
        let (whole, cut) = (format!("Bearer {token}"), format!("Bearer {}", &token[..70]));
        let (none, user) = (basic("a:b"), basic(&token));
        for value in ["", "Bearer", "Bearer ", "Basic !!", &token, &cut, &none, &user, &format!("Digest {token}")] {
            assert_eq!(read(&[value]), Shown::Nonsense, "{value}");
        }
        assert_eq!(read(&[&whole, &whole]), Shown::Nonsense, "which of the two would count?");
    }
}
