//! `/api`: the API's description as a page to browse (Swagger UI), from the appliance alone.

use super::problem::{Answer, Kind, Problem};
use axum::{
    extract::Path,
    response::{IntoResponse, Response},
};
use http::header;

/// Nothing comes from elsewhere. Swagger UI sets styles of its own, and its icons are data.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

const PAGE: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Bennu's API</title>\n\
    <link rel=\"stylesheet\" href=\"/api/swagger-ui.css\">\n<link rel=\"icon\" href=\"data:,\">\n</head>\n\
    <body>\n<div id=\"api\"></div>\n<script src=\"/api/swagger-ui-bundle.js\"></script>\n\
    <script src=\"/api/start.js\"></script>\n</body>\n</html>\n";

const START: &str = "SwaggerUIBundle({url: '/openapi.json', dom_id: '#api', deepLinking: true, filter: true,\n  \
    docExpansion: 'none', validatorUrl: null, presets: [SwaggerUIBundle.presets.apis]});\n";

/// Swagger UI, packed with gzip as every browser takes it.
const BUNDLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js.gz"));
const STYLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.css.gz"));

/// `GET /api`: a page to browse this description
#[utoipa::path(
    get,
    path = "/api",
    tag = "appliance",
    responses((status = OK, content_type = "text/html; charset=utf-8", body = String))
)]
pub async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, PAGE).into_response()
}

/// `GET /api/{file}`: what the page is made of
#[utoipa::path(
    get,
    path = "/api/{file}",
    tag = "appliance",
    params(("file" = String, Path, description = "`swagger-ui-bundle.js`, `swagger-ui.css` or `start.js`.")),
    responses((status = OK, description = "A script or a style sheet"))
)]
pub async fn asset(Path(file): Path<String>) -> Answer<Response> {
    let (kind, bytes, is_packed) = match file.as_str() {
        "swagger-ui-bundle.js" => ("text/javascript; charset=utf-8", BUNDLE, true),
        "swagger-ui.css" => ("text/css; charset=utf-8", STYLE, true),
        "start.js" => ("text/javascript; charset=utf-8", START.as_bytes(), false),
        _ => return Err(Problem::new(Kind::NotFound, "the page has no such file", "the page is at /api")),
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "private, max-age=86400"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let mut response = (headers, bytes).into_response();
    if is_packed {
        response.headers_mut().insert(header::CONTENT_ENCODING, http::HeaderValue::from_static("gzip"));
    }
    Ok(response)
}
