//! What a loader's requests can say: the path with its MAC address, the query with its facts, a blob's digest, a range.

use crate::world::{OURS, World};
use axum::extract::Query;
use bennu_appliance::range;
use bennu_rules::{
    MacAddress,
    boot::{
        Token,
        plan::{self, PlanRequest},
        script::{self, ScriptRequest},
    },
    facts::Facts,
    image::{BlobRef, Digest},
    settings::DhcpMode,
};
use http::{HeaderMap, HeaderValue, Uri, header};
use std::collections::BTreeMap;

/// A request target, a line break, and the value of a Range header.
pub fn run(data: &[u8]) {
    let cut = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (target, rest) = data.split_at(cut);
    ranges(rest.get(1..).unwrap_or_default());
    let Ok(uri) = Uri::try_from(target) else { return };
    let said = Query::<BTreeMap<String, String>>::try_from_uri(&uri).map(|query| query.0).unwrap_or_default();
    let path = percent_encoding::percent_decode_str(uri.path()).decode_utf8_lossy();
    for part in path.split('/') {
        if let Ok(digest) = part.parse::<Digest>() {
            assert_eq!(digest.to_string().parse(), Ok(digest));
        }
        token(part);
        let Ok(mac) = part.strip_suffix(".ipxe").unwrap_or(part).parse::<MacAddress>() else { continue };
        assert_eq!(mac.to_string().parse(), Ok(mac));
        machine(mac, &Facts::from_loader(&said));
    }
}

fn machine(mac: MacAddress, facts: &Facts) {
    let mut world = World::new(DhcpMode::Full);
    let stage1 = BlobRef { digest: Digest([7; 32]), size: 1000 };
    for (vouched, tftp) in [(false, None), (true, None), (true, Some(OURS))] {
        let (facts, stage1, origin) = (facts.clone(), stage1.clone(), format!("http://{OURS}"));
        let request = ScriptRequest { mac, facts, origin, stage1, starts: true, vouched, tftp };
        let script = world.decide(&request, script::decide);
        let rendered = if tftp.is_some() { bennu_ipxe::grub::render(&script) } else { bennu_ipxe::render(&script) };
        let Ok(text) = rendered else { continue };
        assert_eq!(text.starts_with("#!ipxe\n"), tftp.is_none());
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "a script has a control character");
    }
}

fn token(text: &str) {
    let mut world = World::new(DhcpMode::Full);
    let request = PlanRequest { token: Token(text.to_owned()), origin: format!("http://{OURS}") };
    if world.decide(&request, plan::decide).is_some() {
        assert_eq!(text, crate::world::TOKEN, "a plan was opened without its token");
    }
}

fn ranges(value: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(value) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(header::RANGE, value);
    for length in [0, 1, 1 << 20, u64::MAX] {
        if let range::Selection::Part(part) = range::select(&headers, "\"etag\"", length) {
            assert!(part.start < part.end && part.end <= length, "{part:?} of {length}");
        }
    }
}
