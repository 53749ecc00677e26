//! Requests that a browser makes for somebody else's page.

use axum::http::{HeaderMap, Method, header};
use std::net::IpAddr;

/// Whether a browser says that another site makes it change something here. Who is no browser says nothing of it.
///
/// `Sec-Fetch-Site` (W3C Fetch Metadata §2.4) decides where it is sent: to hosts that are reached securely. Elsewhere
/// `Origin` (RFC 6454 §7) must name the host that the request is for.
pub fn is_from_elsewhere(method: &Method, headers: &HeaderMap) -> bool {
    if method.is_safe() {
        return false;
    }
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(site) = text("sec-fetch-site") {
        return !matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text("origin") else { return false };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let named = origin.split_once("://").map_or("", |(_, host)| host);
    host.is_empty() || !named.eq_ignore_ascii_case(host)
}

/// Whether the local socket answers to this name. A forwarded socket is open to every browser of its host, and a name on
/// the web can be made to lead there ("DNS rebinding"): such a name has a dot, and is no loopback address.
pub fn is_local_name(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    match name.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => !name.contains('.') || name.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect::<HeaderMap>()
    }

    #[test]
    fn another_sites_writes_are_told_from_our_own() {
        for (pairs, elsewhere) in [
            (&[] as &[_], false),
            (&[("sec-fetch-site", "same-origin")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("sec-fetch-site", "cross-site"), ("host", "a:1"), ("origin", "http://a:1")], true),
            (&[("host", "a:8443"), ("origin", "https://a:8443")], false),
            (&[("host", "a:8443"), ("origin", "https://A:8443")], false),
            (&[("host", "a:8443"), ("origin", "https://a:8444")], true),
            (&[("host", "a:8443"), ("origin", "null")], true),
            (&[("host", ""), ("origin", "null")], true),
            (&[("origin", "https://a:8443")], true),
        ] {
            assert_eq!(is_from_elsewhere(&Method::POST, &headers(pairs)), elsewhere, "{pairs:?}");
            assert!(!is_from_elsewhere(&Method::GET, &headers(pairs)));
        }
    }

    #[test]
    fn the_local_socket_is_nobodys_name_on_the_web() {
        assert!(is_local_name(&HeaderMap::new()), "HTTP/1.0");
        for name in ["localhost", "localhost:8000", "bennu", "127.0.0.1:8000", "[::1]:8000", "[::1]", "a.localhost", ""]
        {
            assert!(is_local_name(&headers(&[("host", name)])), "{name}");
        }
        for name in ["evil.example", "evil.example:8000", "10.0.0.1", "localhost.evil.example", "[2001:db8::1]:1"] {
            assert!(!is_local_name(&headers(&[("host", name)])), "{name}");
        }
    }
}
