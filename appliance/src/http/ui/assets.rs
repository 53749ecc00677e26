//! The style sheet, the script and the icon. Their addresses hold a digest of them all, so that browsers keep them for good.

use crate::http::access::digest_of;
use axum::{
    extract::Path,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use ring::digest::{SHA256, digest};
use std::sync::LazyLock;

const FILES: [(&str, &str, &str); 3] = [
    ("bennu.css", "text/css; charset=utf-8", include_str!("../../../ui/assets/bennu.css")),
    ("bennu.js", "text/javascript; charset=utf-8", include_str!("../../../ui/assets/bennu.js")),
    ("bennu.svg", "image/svg+xml", include_str!("../../../ui/assets/bennu.svg")),
];

/// Of all of them: one changes, all are fetched again.
pub static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut all = [0; 32];
    for (_, _, content) in FILES {
        for (byte, of_file) in all.iter_mut().zip(digest(&SHA256, content.as_bytes()).as_ref()) {
            *byte ^= of_file;
        }
    }
    digest_of(&all).short()
});

/// `GET /ui/assets/{version}/{file}`
pub async fn get(Path((version, file)): Path<(String, String)>, headers: HeaderMap) -> Response {
    let Some((_, media_type, content)) = FILES.iter().find(|(name, _, _)| *name == file) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let etag = format!("\"{}\"", *VERSION);
    // Whoever asks for another version has a page of another appliance: this one's assets are not to stay under that name.
    let lasts = if version == *VERSION { "public, max-age=31536000, immutable" } else { "no-cache" };
    let common = [(header::ETAG, etag.as_str()), (header::CACHE_CONTROL, lasts)];
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    (common, [(header::CONTENT_TYPE, *media_type)], *content).into_response()
}
