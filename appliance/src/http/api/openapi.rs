//! `/openapi.json`: the API's description (OpenAPI 3.1), made of the handlers themselves.
//!
//! A route is added with [`Described::routes`] and in no other way, so that none exists without its description. What
//! is true of every operation (problem documents, who may ask, conditions) is added here and written nowhere else.

use super::{Api, idempotency, problem::Problem};
use crate::ledger::BootEvent;
use axum::{
    Router,
    body::Bytes,
    response::{IntoResponse, Response},
};
use bennu_rules::{
    MacAddress,
    boot::BootId,
    image::{ImageName, ImageReference},
    metadata::MetadataName,
    notice::Noticed,
    rule::RuleName,
    secret::SecretName,
    token::TokenId,
};
use http::header;
use serde_json::{Map, Value, json};
use std::sync::{Arc, LazyLock};
use utoipa::{
    OpenApi, ToSchema,
    openapi::{
        Schema,
        schema::{ObjectBuilder, SchemaType, Type},
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

/// Bytes that are no text.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary, min_length = 1)]
#[allow(dead_code)]
pub struct Binary(Vec<u8>);

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Bennu",
        description = "The management API of a Bennu appliance.\n\n\
            Points in time are milliseconds since 1970 (UTC). Errors are problem documents (RFC 9457), whose `pointer` \
            says which part of the body is wrong. A listing is a page; `next` is what to ask as `after` for the page \
            after it. The answer to every GET has an ETag, which `If-None-Match` compares (304), and which `If-Match` \
            takes at a write (412). A request that is not idempotent takes an `Idempotency-Key`. A body is JSON with the content type application/json; fields that are not \
            described are refused.\n\n\
            The registry at `/v2/` is not described here: it is the OCI distribution API, specification 1.1.",
        license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT")
    ),
    components(schemas(
        Problem,
        MacAddress,
        ImageName,
        ImageReference,
        BootId,
        TokenId,
        MetadataName,
        RuleName,
        SecretName,
        BootEvent,
        Noticed
    )),
    security(("token" = []), ("basic" = []))
)]
struct Frame;

/// Routes, each with its description.
pub struct Described {
    router: OpenApiRouter<Arc<Api>>,
    /// Names that two types have, so that one hides the other: `#[schema(as = …)]` parts them.
    clashes: Vec<String>,
}

impl Default for Described {
    fn default() -> Self {
        Self { router: OpenApiRouter::with_openapi(Frame::openapi()), clashes: Vec::new() }
    }
}

impl Described {
    /// Adds a path, its methods and their descriptions: what `routes!` makes of handlers.
    pub fn routes(mut self, described: UtoipaMethodRouter<Arc<Api>>) -> Self {
        let known = self.router.get_openapi().components.as_ref();
        for (name, schema) in &described.0 {
            if known.and_then(|known| known.schemas.get(name)).is_some_and(|before| before != schema) {
                self.clashes.push(name.clone());
            }
        }
        Self { router: self.router.routes(described), clashes: self.clashes }
    }

    /// The routes, and what they are described as.
    pub fn parts(self) -> (Router<Arc<Api>>, Value) {
        let (router, mut description) = self.router.split_for_parts();
        let components = description.components.get_or_insert_default();
        let scheme =
            |scheme, text| SecurityScheme::Http(HttpBuilder::new().scheme(scheme).description(Some(text)).build());
        components.add_security_scheme("token", scheme(HttpAuthScheme::Bearer, "A token of `bennu token create`."));
        let basic = scheme(HttpAuthScheme::Basic, "The same token as the password of any user.");
        components.add_security_scheme("basic", basic);
        (router, complete(serde_json::to_value(description).unwrap_or_default()))
    }
}

/// Properties to set, and to remove with `null`; keys and values as the patterns have them.
pub fn changes(key: &str, value: &str) -> Schema {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let value = text().schema_type(SchemaType::from_iter([Type::String, Type::Null])).pattern(Some(value));
    let properties = ObjectBuilder::new().property_names(Some(text().pattern(Some(key))));
    properties.additional_properties(Some(value)).into()
}

static DOCUMENT: LazyLock<Bytes> =
    LazyLock::new(|| Bytes::from(serde_json::to_vec(&super::routes().parts().1).unwrap_or_default()));

/// `GET /openapi.json`: this description
#[utoipa::path(get, path = "/openapi.json", tag = "appliance", responses((status = OK, body = Object)))]
pub async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone()).into_response()
}

/// Adds what is true of every operation.
fn complete(mut document: Value) -> Value {
    let Some(Value::Object(paths)) = document.get_mut("paths").map(Value::take) else { return document };
    let paths = paths.into_iter().map(|(path, mut item)| {
        // axum's mark for a parameter that may hold slashes.
        let path = path.replace("{*", "{");
        if let Some(operations) = item.as_object_mut() {
            for (method, operation) in operations.iter_mut().filter_map(|(key, it)| Some((key, it.as_object_mut()?))) {
                complete_operation(&path, &method.to_uppercase(), operation);
            }
        }
        (path, item)
    });
    document["paths"] = Value::Object(paths.collect());
    widen(&mut document);
    document
}

/// A parameter that is not given is absent: there is no `null` in a path, a query or a header.
fn absent_is_no_null(schema: &mut Value) {
    if let Some(types) = schema["type"].as_array() {
        let types: Vec<&Value> = types.iter().filter(|of| **of != "null").collect();
        if let [only] = types[..] {
            schema["type"] = only.clone();
        }
    }
    let choices = schema["oneOf"].as_array().cloned().unwrap_or_default();
    let choices: Vec<Value> = choices.into_iter().filter(|choice| choice["type"] != "null").collect();
    if let [only] = &choices[..] {
        *schema = only.clone();
    } else if !choices.is_empty() {
        schema["oneOf"] = Value::Array(choices);
    }
    // Looking leaves `null` behind.
    if let Some(fields) = schema.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
}

/// `int64` and `int32` end where numbers without a sign go on.
fn widen(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let is_unsigned = fields.get("minimum") == Some(&json!(0));
            let greatest = match fields.get("format").and_then(Value::as_str) {
                Some("int32") if is_unsigned => Some(u64::from(u32::MAX)),
                Some("int64") if is_unsigned => Some(u64::MAX),
                _ => None,
            };
            if let Some(greatest) = greatest {
                fields.remove("format");
                fields.entry("maximum").or_insert(json!(greatest));
            }
            fields.values_mut().for_each(widen);
        }
        Value::Array(items) => items.iter_mut().for_each(widen),
        _ => {}
    }
}

fn complete_operation(path: &str, method: &str, operation: &mut Map<String, Value>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    // Handlers of several resources share a name: `machines_list`, `boots_list`.
    let resource = path.trim_start_matches("/v1").split('/').nth(1).unwrap_or_default();
    let name = operation.get("operationId").map(text).unwrap_or_default();
    operation.insert("operationId".to_owned(), json!(format!("{}_{name}", resource.replace('.', "_"))));
    let is_open = bennu_rules::access::is_open(method, path);
    if !is_open {
        operation.insert("x-bennu-scopes".to_owned(), json!(bennu_rules::access::needed(method, path)));
    }
    let mut parameters = operation.get("parameters").and_then(Value::as_array).cloned().unwrap_or_default();
    parameters.iter_mut().for_each(|parameter| absent_is_no_null(&mut parameter["schema"]));
    if idempotency::is_heeded(method, path) {
        parameters.push(idempotency_key());
    }
    if !parameters.is_empty() {
        operation.insert("parameters".to_owned(), Value::Array(parameters.clone()));
    }
    let has = |key: &str, value: &str| parameters.iter().any(|parameter| parameter[key] == value);
    let has_body = operation.contains_key("requestBody");
    let conditional = method == "GET" && answers_json(operation);
    let problems = [
        (has_body || !parameters.is_empty(), 400, "The request cannot be read"),
        (!is_open, 401, "No token, or one that is unknown or has ended"),
        (!is_open, 403, "The token may not do this"),
        (has("in", "path") || has("in", "query") || has_body, 404, "There is no such thing"),
        (method != "GET", 409, "The present state forbids it"),
        (has("name", "If-Match"), 412, "The resource is not as it was expected"),
        (has_body, 413, "The body is too long"),
        (has_body, 415, "The body's content type is another"),
        (method != "GET" || has("in", "query"), 422, "The request asks for what cannot be"),
        (
            !is_open,
            429,
            "Too many requests with wrong tokens came from there, or too much of this work goes on: see Retry-After",
        ),
        (!is_open, 500, "Bennu failed"),
        (path != "/healthz", 503, "Bennu cannot do this now"),
        (method != "GET", 507, "The disk is full"),
    ];
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    for (_, status, description) in problems.into_iter().filter(|(applies, ..)| *applies) {
        let schema = json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}});
        let problem = json!({"description": description, "content": schema});
        if responses.get(status.to_string()).is_none() {
            responses[status.to_string()] = problem;
        }
    }
    for (status, response) in responses.as_object_mut().into_iter().flatten() {
        if response["description"] == "" {
            response["description"] = json!(if status == "204" { "Done" } else { "The answer" });
        }
    }
    if conditional {
        let description = "What the answer is known by. As `If-Match` it stands for the resource's record.";
        responses["200"]["headers"]["ETag"] = json!({"description": description, "schema": {"type": "string"}});
        responses["304"] = json!({"description": "It is what the client has (RFC 9110 §15.4.5)"});
        parameters.push(json!({
            "name": "If-None-Match", "in": "header", "required": false, "schema": {"type": "string"},
            "description": "ETags of answers that the client has: 304 where nothing has changed (RFC 9110 §13.1.2)."
        }));
        operation.insert("parameters".to_owned(), Value::Array(parameters));
    }
}

fn idempotency_key() -> Value {
    json!({
        "name": "Idempotency-Key", "in": "header", "required": false,
        "schema": {"type": "string", "pattern": idempotency::PATTERN},
        "description": "A key of the client's own, such as a UUID, by which the same request that comes again is not carried \
            out again: it gets the answer of before, with `Idempotency-Replayed: true`. While the first is being carried \
            out it is 409, and another request under the key is 422. Keys are each caller's own. Answers, refusals too, \
            are kept for 24 hours, a thousand of a caller, in memory: a restart forgets them. Send `If-Match` as well \
            where that matters."
    })
}

fn answers_json(operation: &Map<String, Value>) -> bool {
    operation.get("responses").is_some_and(|responses| responses["200"]["content"].get("application/json").is_some())
}

#[cfg(test)]
mod tests;
