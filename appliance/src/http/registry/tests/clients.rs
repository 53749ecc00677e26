//! Clients of other makes over TLS, with a token: what Docker sent, and what oras sends.

use super::{code, digest, header, location};
use crate::http::api::tests::{Got, remote::Far};
use axum::body::Body;
use base64::{Engine, prelude::BASE64_STANDARD};
use bennu_images::oci::{OCI_INDEX, OCI_MANIFEST};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// `docker login`, `push`, `push` again and under another name, and after `rmi` a `pull`, as Docker 20.10.24 asked Debian's docker-registry 2.8.2
/// for it, and what that one answered. Upload addresses are numbered, and the credentials a placeholder.
const DOCKER: &str = include_str!("recorded/docker.json");

/// A request and its answer on record.
#[derive(Debug, Deserialize)]
struct Exchange {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    /// In base64.
    body: String,
    answer: Recorded,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Recorded {
    status: u16,
    location: Option<String>,
    docker_content_digest: Option<String>,
    content_type: Option<String>,
    content_length: Option<String>,
    range: Option<String>,
}

impl Exchange {
    fn is_chunked(&self) -> bool {
        self.headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked")
    }
}

impl Recorded {
    /// What both must say alike.
    fn compare(&self, got: &Got, what: &str) {
        let same = [
            ("docker-content-digest", &self.docker_content_digest),
            ("content-type", &self.content_type),
            ("content-length", &self.content_length),
            // Of an upload without a byte that one says `0-0`.
            ("range", &self.range.clone().filter(|range| range != "0-0")),
        ];
        for (name, recorded) in same {
            if let Some(recorded) = recorded {
                assert_eq!(header(got, name), recorded, "{what}");
            }
        }
        if self.status == 401 {
            assert_eq!(
                (header(got, "www-authenticate"), code(got).as_str()),
                ("Basic realm=\"bennu\"", "UNAUTHORIZED")
            );
        }
    }
}

/// Somebody who may push, at the far end of a TLS connection.
struct Client {
    far: Far,
    credentials: String,
}

impl Client {
    async fn new() -> Self {
        let far = Far::new().await;
        let (_, token) = far.token("ci", &["read", "images"]).await;
        // The token is the password of any user, as `docker login` asks for it.
        let password = token.strip_prefix("Bearer ").unwrap();
        let credentials = format!("Basic {}", BASE64_STANDARD.encode(format!("ci:{password}")));
        Self { far, credentials }
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> (Got, Vec<u8>) {
        let mut sender = self.far.connect().await;
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let (parts, body) = sender.send_request(request.body(body).unwrap()).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (Got { status: parts.status, headers: parts.headers, text }, bytes)
    }

    /// A request on record once more, to where its counterpart lies here.
    async fn again(&self, exchange: &Exchange, path: &str) -> (Got, Vec<u8>) {
        let own = |value: &'_ String| if value == "{credentials}" { &self.credentials } else { value }.clone();
        let headers: Vec<(&str, String)> =
            exchange.headers.iter().map(|(name, value)| (name.as_str(), own(value))).collect();
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let bytes = BASE64_STANDARD.decode(&exchange.body).unwrap();
        let body = match exchange.is_chunked() {
            true => {
                let pieces: Vec<_> = bytes.chunks(100).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
                Body::from_stream(futures_util::stream::iter(pieces))
            }
            false => Body::from(bytes),
        };
        self.send(&exchange.method, path, &headers, body).await
    }

    /// As oras asks: credentials with every request, bodies with their length.
    async fn oras(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (Got, Vec<u8>) {
        let own = [("user-agent", "oras/1.2.0"), ("authorization", self.credentials.as_str())];
        self.send(method, path, &[&own, headers].concat(), Body::from(body.to_vec())).await
    }

    /// A blob's upload by oras: is it there, where to, all of it.
    async fn oras_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        let path = format!("/v2/{repository}/blobs/{digest}");
        assert_eq!(self.oras("HEAD", &path, &[], b"").await.0.status, StatusCode::NOT_FOUND);
        let begun = self.oras("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"").await.0;
        assert_eq!(begun.status, StatusCode::ACCEPTED, "{}", begun.text);
        let put = format!("{}?digest={}", location(&begun), digest.replace(':', "%3A"));
        let put = self.oras("PUT", &put, &[("content-type", "application/octet-stream")], bytes).await.0;
        assert_eq!((put.status, header(&put, "docker-content-digest")), (StatusCode::CREATED, digest.as_str()));
        digest
    }

    async fn oras_manifest(&self, path: &str, manifest: &Value) -> Got {
        let bytes = manifest.to_string().into_bytes();
        let got = self.oras("PUT", path, &[("content-type", OCI_MANIFEST)], &bytes).await.0;
        assert_eq!(got.status, StatusCode::CREATED, "{}", got.text);
        assert_eq!(header(&got, "docker-content-digest"), digest(&bytes));
        got
    }
}

#[tokio::test]
async fn a_docker_push_replayed() {
    let record: Vec<Exchange> = serde_json::from_str(DOCKER).unwrap();
    let client = Client::new().await;
    let mut uploads = BTreeMap::new();
    let mut patched = 0;
    for (number, exchange) in record.iter().enumerate() {
        let path = whither(&exchange.path, &uploads);
        let what = format!("request {number}, {} {path}", exchange.method);
        patched += usize::from(exchange.is_chunked());
        let (got, read) = client.again(exchange, &path).await;
        // That one keeps its repositories apart; Bennu's share one store, and the client is spared a mount.
        let is_shared = exchange.method == "HEAD" && path.starts_with("/v2/other/web/blobs/");
        let expected = if is_shared { 200 } else { exchange.answer.status };
        assert_eq!(got.status.as_u16(), expected, "{what}: {}", got.text);
        exchange.answer.compare(&got, &what);
        match &exchange.answer.location {
            Some(upload) if upload.starts_with('{') => drop(uploads.insert(upload.clone(), location(&got))),
            // Of a manifest that one names the digest, and Bennu the tag: both can be pulled.
            Some(manifest) if manifest.contains("/manifests/") => assert_eq!(location(&got), path, "{what}"),
            Some(blob) => assert_eq!(location(&got), *blob, "{what}"),
            None => {}
        }
        if exchange.method == "GET" && exchange.answer.docker_content_digest.is_some() {
            assert_eq!(Some(digest(&read)), exchange.answer.docker_content_digest, "{what}");
        }
    }
    assert!(record.len() == 32 && patched == 3, "the record is not whole: {} and {patched}", record.len());
}

/// Where a recorded request goes here: an upload's address is what the answer before it named.
fn whither(path: &str, uploads: &BTreeMap<String, String>) -> String {
    let Some(end) = path.starts_with('{').then(|| path.find('}')).flatten() else { return path.to_owned() };
    let (upload, rest) = path.split_at(end + 1);
    let address = &uploads[upload];
    // Docker adds its digest to the query that the address has.
    if address.contains('?') { format!("{address}{}", rest.replace('?', "&")) } else { format!("{address}{rest}") }
}

/// `oras push`, `attach`, `discover`, `repo tags` and `pull`, request by request as oras-go 2 makes them.
#[tokio::test]
async fn artifacts_as_oras_pushes_them() {
    const EMPTY: &str = "application/vnd.oci.empty.v1+json";
    let client = Client::new().await;
    let refused = client.send("HEAD", "/v2/team/notes/blobs/sha256:00", &[("user-agent", "oras/1.2.0")], Body::empty());
    let refused = refused.await.0;
    assert_eq!(
        (refused.status, header(&refused, "www-authenticate")),
        (StatusCode::UNAUTHORIZED, "Basic realm=\"bennu\"")
    );

    let (file, empty) = (b"what a person wrote\n", b"{}");
    let (file_digest, empty_digest) =
        (client.oras_blob("team/notes", file).await, client.oras_blob("team/notes", empty).await);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/vnd.example.notes",
        "config": {"mediaType": EMPTY, "digest": empty_digest, "size": 2, "data": "e30="},
        "layers": [{"mediaType": "text/plain", "digest": file_digest, "size": file.len(),
            "annotations": {"org.opencontainers.image.title": "notes.txt"}}],
        "annotations": {"org.opencontainers.image.created": "2025-11-21T17:00:00Z"},
    });
    let subject = digest(manifest.to_string().as_bytes());
    let by_digest = format!("/v2/team/notes/manifests/{subject}");
    let accept = [("accept", [OCI_MANIFEST, OCI_INDEX].join(", "))];
    let accept = accept.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(client.oras("HEAD", &by_digest, &accept, b"").await.0.status, StatusCode::NOT_FOUND);
    client.oras_manifest("/v2/team/notes/manifests/v1", &manifest).await;

    // attach: the tag is resolved, the artifact goes to its digest, and the answer says that the subject is known.
    let resolved = client.oras("HEAD", "/v2/team/notes/manifests/v1", &accept, b"").await.0;
    assert_eq!((resolved.status, header(&resolved, "docker-content-digest")), (StatusCode::OK, subject.as_str()));
    assert_eq!(header(&resolved, "content-type"), OCI_MANIFEST);
    let size = header(&resolved, "content-length").parse::<usize>().unwrap();
    let attached = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/vnd.example.review",
        "config": {"mediaType": EMPTY, "digest": empty_digest, "size": 2, "data": "e30="},
        "layers": [{"mediaType": EMPTY, "digest": empty_digest, "size": 2, "data": "e30="}],
        "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": size},
        "annotations": {"org.opencontainers.image.created": "2025-11-21T17:01:00Z", "by": "somebody"},
    });
    let review = digest(attached.to_string().as_bytes());
    let got = client.oras_manifest(&format!("/v2/team/notes/manifests/{review}"), &attached).await;
    assert_eq!(header(&got, "oci-subject"), subject, "without it, oras would write the referrers' tag");

    // discover
    let path = format!("/v2/team/notes/referrers/{subject}?artifactType=application%2Fvnd.example.review");
    let found = client.oras("GET", &path, &[], b"").await.0;
    assert_eq!((found.status, header(&found, "content-type")), (StatusCode::OK, OCI_INDEX));
    let expected = json!([{
        "mediaType": OCI_MANIFEST, "digest": review, "size": attached.to_string().len(),
        "artifactType": "application/vnd.example.review", "annotations": attached["annotations"],
    }]);
    assert_eq!(found.json()["manifests"], expected);

    // repo tags, page by page
    client.oras_manifest("/v2/team/notes/manifests/v2", &manifest).await;
    let first = client.oras("GET", "/v2/team/notes/tags/list?n=1", &[], b"").await.0;
    assert_eq!((first.json()["tags"].clone(), first.headers.contains_key("link")), (json!(["v1"]), true));
    let rest = client.oras("GET", "/v2/team/notes/tags/list?last=v1&n=1", &[], b"").await.0;
    assert_eq!(rest.json()["tags"], json!(["v2"]));

    // pull
    let (got, bytes) = client.oras("GET", &by_digest, &accept, b"").await;
    assert_eq!((got.status, bytes), (StatusCode::OK, manifest.to_string().into_bytes()));
    let path = format!("/v2/team/notes/blobs/{file_digest}");
    let (got, bytes) = client.oras("GET", &path, &[], b"").await;
    assert_eq!((got.status, bytes.as_slice()), (StatusCode::OK, file.as_slice()));
    assert_eq!((header(&got, "accept-ranges"), header(&got, "docker-content-digest")), ("bytes", file_digest.as_str()));
    let (got, bytes) = client.oras("GET", &path, &[("range", "bytes=5-19")], b"").await;
    assert_eq!((got.status, bytes.as_slice()), (StatusCode::PARTIAL_CONTENT, &file[5..]));
    // It is kept as what it is, and nobody tries to boot it.
    let pushes = client.far.bench.get("/v1/pushes").await.json();
    let outcomes: Vec<&Value> =
        pushes["items"].as_array().unwrap().iter().map(|push| &push["outcome"]["outcome"]).collect();
    assert_eq!(outcomes, ["kept", "kept"]);
}
