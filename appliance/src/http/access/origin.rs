//! Requests that a browser makes for somebody else's page.

use axum::http::{HeaderMap, Method, header};
use bennu_rules::access::is_page;
use std::net::IpAddr;

/// Whether a browser says that another site makes it ask for this. Who is no browser says nothing of it.
///
/// Reading counts too: some answers cost minutes of disk and processor, and nobody's page is to start them. Only a page of
/// ours may be gone to from elsewhere, by a link; what it holds, its session's cookie decides (`SameSite`).
///
/// `Sec-Fetch-Site` (W3C Fetch Metadata §2.4) decides where it is sent: to hosts that are reached securely. Elsewhere
/// `Origin` (RFC 6454 §7) must name the host that the request is for.
pub fn is_from_elsewhere(method: &Method, path: &str, headers: &HeaderMap) -> bool {
    if method.is_safe() && is_gone_to(headers, path) {
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

/// Whether a browser's window goes to a page of ours, or to what it loads before anybody is logged in.
fn is_gone_to(headers: &HeaderMap, path: &str) -> bool {
    let is = |name: &str, value: &str| headers.get(name).is_none_or(|found| found == value);
    let is_window = is("sec-fetch-mode", "navigate") && is("sec-fetch-dest", "document");
    (is_page(path) || path == "/login") && is_window
}

/// Whether the local socket answers to this name. A forwarded socket is open to every browser of its host, and a name can
/// be made to lead there ("DNS rebinding"), one without a dot too by who answers for the names of a network. Browsers
/// themselves keep `localhost` on their host.
pub fn is_local_name(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    match name.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => {
            let name = name.to_ascii_lowercase();
            name.is_empty() || name == "localhost" || name.ends_with(".localhost")
        }
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
            for method in [Method::POST, Method::GET] {
                let is_so = is_from_elsewhere(&method, "/v1/scrub", &headers(pairs));
                assert_eq!(is_so, elsewhere, "{method} {pairs:?}");
            }
        }
    }

    #[test]
    fn a_link_elsewhere_leads_to_pages_and_to_nothing_else() {
        let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        let frame = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
        let picture = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")];
        for path in ["/", "/login", "/ui/images"] {
            assert!(!is_from_elsewhere(&Method::GET, path, &headers(&link)), "{path}");
            assert!(is_from_elsewhere(&Method::POST, path, &headers(&link)), "{path}");
            assert!(is_from_elsewhere(&Method::GET, path, &headers(&frame)), "{path}");
            assert!(is_from_elsewhere(&Method::GET, path, &headers(&picture)), "{path}");
        }
        for path in ["/v1/scrub", "/v1/audit/verify", "/v1/boots/b/logs", "/v1/exports/web:v1", "/metrics"] {
            assert!(is_from_elsewhere(&Method::GET, path, &headers(&link)), "{path}");
        }
    }

    #[test]
    fn the_local_socket_is_nobodys_name_on_the_web() {
        assert!(is_local_name(&HeaderMap::new()), "HTTP/1.0");
        for name in ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "[::1]", "a.localhost", ""] {
            assert!(is_local_name(&headers(&[("host", name)])), "{name}");
        }
        for name in [
            "bennu",
            "bennu:8000",
            "evil",
            "notlocalhost",
            "evil.example",
            "evil.example:8000",
            "10.0.0.1",
            "localhost.evil.example",
            "[2001:db8::1]:1",
        ] {
            assert!(!is_local_name(&headers(&[("host", name)])), "{name}");
        }
    }
}
