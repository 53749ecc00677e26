//! Addresses of requests: as much of RFC 3986 as registries and their redirects need.

use super::reference::{bare_host, is_loopback};
use http::{Uri, uri::Authority};
use std::fmt;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    secure: bool,
    authority: Authority,
    /// Path and query.
    target: String,
}

impl Url {
    /// On a host.
    pub fn new(secure: bool, authority: Authority, target: impl Into<String>) -> Self {
        Self { secure, authority, target: target.into() }
    }

    /// A whole one, `http://` or `https://`.
    pub fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let secure = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?.clone();
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        Some(Self { secure, authority, target: target.to_owned() })
    }

    /// What a `Location` here means (RFC 9110 §10.2.2): a whole URL, or a part of one.
    pub fn join(&self, location: &str) -> Option<Self> {
        let scheme = if self.secure { "https" } else { "http" };
        if location.contains("://") && !location.starts_with(['/', '?', '.']) {
            return Self::parse(location);
        }
        if location.starts_with("//") {
            return Self::parse(&format!("{scheme}:{location}"));
        }
        let path = self.target.split('?').next().unwrap_or_default();
        let target = match location {
            location if location.starts_with('/') => location.to_owned(),
            location if location.starts_with('?') => format!("{path}{location}"),
            location => format!("{}/{location}", path.rsplit_once('/').map_or("", |(directory, _)| directory)),
        };
        Self::parse(&format!("{scheme}://{}{target}", self.authority))
    }

    /// With more in its query.
    pub fn with_query(mut self, more: &str) -> Self {
        self.target.push(if self.target.contains('?') { '&' } else { '?' });
        self.target.push_str(more);
        self
    }

    /// Whether TLS is under it.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Whether it is on this host.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.authority)
    }

    /// Whether the same server answers there: scheme, host and port (RFC 6454 §4).
    pub fn has_origin_of(&self, other: &Self) -> bool {
        let (a, b) = (&self.authority, &other.authority);
        self.secure == other.secure && a.host().eq_ignore_ascii_case(b.host()) && self.port() == other.port()
    }

    /// Where to connect.
    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(if self.secure { 443 } else { 80 })
    }

    /// Whom to connect to.
    pub fn host(&self) -> &str {
        bare_host(&self.authority)
    }

    /// For the `Host` header.
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// For the request line.
    pub fn target(&self) -> &str {
        &self.target
    }
}

/// Without the query, which may be a signed one, and so a secret.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "{}://{}{path}", if self.secure { "https" } else { "http" }, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let from = Url::parse("https://a.example:5000/v2/web/blobs/x?y=1").unwrap();
        for (location, to) in [
            ("https://b.example/z?sig=1", "https://b.example/z"),
            ("http://b.example", "http://b.example/"),
            ("//b.example/z", "https://b.example/z"),
            ("/z?u=https://c.example", "https://a.example:5000/z"),
            ("z", "https://a.example:5000/v2/web/blobs/z"),
            ("?z", "https://a.example:5000/v2/web/blobs/x"),
        ] {
            assert_eq!(from.join(location).unwrap().to_string(), to, "{location}");
        }
        for location in ["ftp://b.example/", "https://u:p@b.example/", "https:///x", "https://b.example/a b"] {
            assert_eq!(from.join(location), None, "{location}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = |text: &str| Url::parse(text).unwrap();
        let here = origin("https://a.example/x");
        assert!(here.has_origin_of(&origin("https://A.example:443/y")));
        for other in ["http://a.example/x", "https://a.example:444/x", "https://b.example/x", "http://a.example:443/"] {
            assert!(!here.has_origin_of(&origin(other)), "{other}");
        }
    }
}
