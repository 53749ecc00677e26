//! What a registry asks for before it answers: `WWW-Authenticate` (RFC 9110 §11.6.1).

use http::{HeaderMap, header};

/// A way to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token, which another server gives ("Docker Registry v2 authentication via central service").
    Bearer {
        /// That server.
        realm: String,
        /// Whom the token is for.
        service: Option<String>,
        /// What it is to allow.
        scope: Option<String>,
    },
}

/// The ways that an answer names and we know.
pub fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(parse).collect()
}

fn parse(text: &str) -> Vec<Challenge> {
    let mut schemes: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find(['=', ' ', '\t', ',']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            // Nothing is left, or a '=' that belongs to nothing.
            match rest.strip_prefix('=') {
                Some(after) => rest = after,
                None => break,
            }
            continue;
        }
        let word = word.to_ascii_lowercase();
        match after.strip_prefix('=') {
            Some(after) => {
                let (value, after) = value(after);
                if let Some((_, parameters)) = schemes.last_mut() {
                    parameters.push((word, value));
                }
                rest = after;
            }
            None => {
                schemes.push((word, Vec::new()));
                rest = after;
            }
        }
    }
    schemes.into_iter().filter_map(|(scheme, parameters)| known(&scheme, parameters)).collect()
}

/// A parameter's value, quoted or not, and what stands after it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_at(text.find([',', ' ', '\t']).unwrap_or(text.len()));
        return (value.to_owned(), rest);
    };
    let (mut value, mut characters) = (String::new(), quoted.char_indices());
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, character)| character)),
            other => value.push(other),
        }
    }
    (value, "")
}

fn known(scheme: &str, parameters: Vec<(String, String)>) -> Option<Challenge> {
    let get = |wanted: &str| parameters.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer { realm: get("realm")?, service: get("service"), scope: get("scope") }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in r#"(Bearer|basic|realm|[ ,="\\]|\PC){0,40}"#) {
            parse(&text);
        }
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        };
        for (text, expected) in [
            (r#"Basic realm="a, b""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:web:pull,push""#,
                vec![bearer("https://auth.example/token", Some("registry.example"), Some("repository:web:pull,push"))],
            ),
            (r#"BEARER realm=https://a/t , error="invalid \"token\"""#, vec![bearer("https://a/t", None, None)]),
            (r#"Negotiate abc==, Basic realm="x", Bearer realm="y""#, vec![Challenge::Basic, bearer("y", None, None)]),
            ("Bearer service=x", vec![]),
            ("", vec![]),
            ("=,=", vec![]),
            (r#"Bearer realm="open"#, vec![bearer("open", None, None)]),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
