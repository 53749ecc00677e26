//! `/v1/metadata`: documents that say what one image becomes on each machine.

use super::{
    Api, Shared,
    conditional::versioned,
    problem::{Answer, Kind, Problem},
    request::{IfMatch, LongBody, Page, Paging, Params, expected, mac},
};
use axum::{
    Json,
    extract::{Path, State},
    response::Response,
};
use bennu_rules::{
    MacAddress, Records,
    boot::explain,
    commands::{
        Refusal,
        metadata::{self as commands, PutMetadata, RemoveMetadata, version},
    },
    metadata::{Document, Merged, MetadataName, Unrendered},
};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

/// A document as `PUT` takes it: the name may be left out, since the path has it.
struct DocumentBody;

impl PartialSchema for DocumentBody {
    fn schema() -> RefOr<Schema> {
        let mut schema = Document::schema();
        if let RefOr::T(Schema::Object(document)) = &mut schema {
            document.required.retain(|field| field != "name");
        }
        schema
    }
}

impl ToSchema for DocumentBody {
    fn name() -> Cow<'static, str> {
        "MetadataBody".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Document::schemas(schemas);
    }
}

/// What a machine's documents come to, or why they do not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MetadataShown {
    /// What they come to.
    #[serde(flatten)]
    pub merged: Merged,
    /// Why they do not: a boot would be refused with these words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl From<Result<Merged, Unrendered>> for MetadataShown {
    fn from(rendered: Result<Merged, Unrendered>) -> Self {
        match rendered {
            Ok(merged) => Self { merged, error: None },
            Err(unrendered) => Self { merged: Merged::default(), error: Some(unrendered.to_string()) },
        }
    }
}

/// `GET /v1/metadata`, by name
#[utoipa::path(
    get,
    path = "/v1/metadata",
    tag = "metadata",
    params(Paging),
    responses((status = OK, body = Page<Document>))
)]
pub async fn list(State(api): Shared, Params(paging): Params<Paging>) -> Answer<Json<Page<Document>>> {
    let documents = api.ledger.stored(|records| records.all_metadata())?;
    Ok(Json(paging.page(documents, |document| document.name.to_string(), |document| document)))
}

/// `GET /v1/metadata/{name}`
#[utoipa::path(
    get,
    path = "/v1/metadata/{name}",
    tag = "metadata",
    params(("name" = MetadataName, Path, description = "The document's name.")),
    responses((status = OK, body = Document))
)]
pub async fn show(State(api): Shared, Path(text): Path<String>) -> Answer<Response> {
    let name = named(&text)?;
    let document = api.ledger.stored(|records| records.metadata(&name))?;
    Ok(with_etag(document.ok_or_else(|| Problem::from(Refusal::UnknownMetadata(name)))?))
}

/// `PUT /v1/metadata/{name}`: adds or replaces
#[utoipa::path(
    put,
    path = "/v1/metadata/{name}",
    tag = "metadata",
    params(("name" = MetadataName, Path, description = "The document's name."), IfMatch),
    request_body = DocumentBody,
    responses((status = OK, body = Document))
)]
pub async fn set(
    State(api): Shared,
    Path(text): Path<String>,
    headers: HeaderMap,
    LongBody(mut body): LongBody<serde_json::Value>,
) -> Answer<Response> {
    let name = named(&text)?;
    if let Some(fields) = body.as_object_mut() {
        let written = fields.entry("name").or_insert_with(|| name.as_str().into());
        if written != name.as_str() {
            let advice = "leave it out, or write the name that is in the path";
            return Err(
                Problem::new(Kind::Unprocessable, "the document has another name than its path", advice).at("/name")
            );
        }
    }
    let document = super::request::read(body)?;
    let request = PutMetadata { document, expected: expected(&headers)? };
    Ok(with_etag(api.ledger.decide(request, commands::put).await??))
}

/// `DELETE /v1/metadata/{name}`
#[utoipa::path(
    delete,
    path = "/v1/metadata/{name}",
    tag = "metadata",
    params(("name" = MetadataName, Path, description = "The document's name."), IfMatch),
    responses((status = NO_CONTENT))
)]
pub async fn remove(State(api): Shared, Path(text): Path<String>, headers: HeaderMap) -> Answer<StatusCode> {
    let request = RemoveMetadata { name: named(&text)?, expected: expected(&headers)? };
    api.ledger.decide(request, commands::remove).await??;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/machines/{mac}/metadata`: what a machine's documents would come to at its next boot
#[utoipa::path(
    get,
    path = "/v1/machines/{mac}/metadata",
    tag = "metadata",
    params(("mac" = MacAddress, Path, description = "Any MAC of the machine.")),
    responses((status = CONFLICT, content_type = "application/problem+json", body = Problem, description = "It boots no image of its own, and only with one it is given metadata"), (status = OK, body = Object, description = "What the documents come to, each value with the document that gives it, or why they do not."))
)]
pub async fn render(State(api): Shared, Path(text): Path<String>) -> Answer<Json<MetadataShown>> {
    let mac = mac(&text)?;
    super::machines::find(&api, mac)?;
    rendered(&api, mac).map(Json)
}

fn rendered(api: &Api, mac: MacAddress) -> Answer<MetadataShown> {
    let request = crate::http::boot::next_boot(api, mac);
    match api.ledger.ponder(&request, explain::metadata_of)?.answer {
        Some(rendered) => Ok(rendered.into()),
        None => Err(Problem::new(
            Kind::Conflict,
            format!("{mac} boots no image of its own, and only with one it is given metadata"),
            "assign it an image: bennu machine assign MAC IMAGE",
        )),
    }
}

fn named(text: &str) -> Answer<MetadataName> {
    text.parse().map_err(|error| Problem::told(Kind::Malformed, &error))
}

fn with_etag(document: Document) -> Response {
    versioned(&version(&document), &document)
}
