//! The URLs we meet: plain HTTP to an address. Names are not resolved, because stage 1 has no resolver and the appliance writes addresses.

use std::net::{IpAddr, SocketAddr};

/// An `http://` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Where to connect.
    pub server: SocketAddr,
    /// What to ask for, with its query.
    pub path: String,
    /// For the `Host` field, as it was written.
    pub host: String,
}

/// Why a URL is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url}: {why}")]
pub struct BadUrl {
    url: String,
    why: &'static str,
}

impl Url {
    /// Reads a URL.
    pub fn parse(url: &str) -> Result<Self, BadUrl> {
        let bad = |why| BadUrl { url: url.to_owned(), why };
        let rest = url.strip_prefix("http://").ok_or_else(|| bad("stage 1 speaks plain http:// only"))?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        if url.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(bad("white space or control characters do not belong into a URL"));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let path = path.split('#').next().unwrap_or_default().to_owned();
        let server = host.parse::<SocketAddr>().ok().or_else(|| {
            let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
            bare.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 80))
        });
        let server = server.ok_or_else(|| bad("the server must be an IP address, with a port if it is not 80"))?;
        Ok(Self { server, path, host: host.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_ones() {
        let url = Url::parse("http://10.77.0.1/boot/t/plan.json?a=1#x").unwrap();
        assert_eq!((url.server.to_string().as_str(), url.path.as_str()), ("10.77.0.1:80", "/boot/t/plan.json?a=1"));
        assert_eq!(Url::parse("http://10.77.0.1:8080").unwrap().path, "/");
        let six = Url::parse("http://[fd00::1]:81/x").unwrap();
        assert_eq!((six.server.port(), six.host.as_str()), (81, "[fd00::1]:81"));
        assert_eq!(Url::parse("http://[fd00::1]/x").unwrap().server.port(), 80);
    }

    #[test]
    fn bad_ones_say_why() {
        for url in ["https://10.0.0.1/", "http://appliance/", "http:///x", "http://10.0.0.1/a b", "10.0.0.1"] {
            let error = Url::parse(url).unwrap_err().to_string();
            assert!(error.starts_with(url) && error.len() > url.len() + 10, "{error}");
        }
    }
}
