//! Counts what passes a router, by kind and never by client or path.

use crate::appliance::{Appliance, Counters};
use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use std::{sync::Arc, time::Instant};

/// Counts what the management plane answers, refusals too: to be the outermost layer.
pub fn management(router: Router, appliance: &Arc<Appliance>) -> Router {
    router.layer(middleware::from_fn_with_state(appliance.clone(), count_api))
}

async fn count_api(State(appliance): State<Arc<Appliance>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let response = next.run(request).await;
    appliance.metrics.api_request(response.status(), started.elapsed());
    response
}

/// Counts what the provisioning plane answers.
pub async fn provisioning(State(appliance): State<Arc<Appliance>>, request: Request, next: Next) -> Response {
    Counters::count(&appliance.counters.http_requests);
    let resource = resource(request.uri().path());
    let response = next.run(request).await;
    appliance.metrics.http_request(resource, response.status());
    if response.status().is_client_error() || response.status().is_server_error() {
        Counters::count(&appliance.counters.http_refused);
    }
    response
}

/// Of which kind a path is.
pub const RESOURCES: [&str; 8] = ["script", "plan", "report", "session", "metadata", "loader", "blob", "other"];

fn resource(path: &str) -> &'static str {
    let mut parts = path.trim_start_matches('/').split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("boot.ipxe"), None, _) | (Some("boot"), Some(_), None) => "script",
        (Some("boot"), _, Some("plan.json")) => "plan",
        (Some("boot"), _, Some("report")) => "report",
        (Some("boot"), _, Some("session")) => "session",
        (Some("boot"), _, Some(_)) => "metadata",
        (Some("loader"), ..) => "loader",
        (Some("blobs"), ..) => "blob",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_apart_by_kind_whatever_is_in_them() {
        let cases = [
            ("/boot.ipxe", "script"),
            ("/boot/52-54-00-00-00-01.ipxe", "script"),
            ("/boot/0123/plan.json", "plan"),
            ("/boot/0123/report", "report"),
            ("/boot/0123/session", "session"),
            ("/boot/0123/nocloud/user-data", "metadata"),
            ("/loader/ipxe.efi", "loader"),
            ("/blobs/sha256/00/filesystem.squashfs", "blob"),
            ("/", "other"),
            ("/robots.txt", "other"),
        ];
        for (path, expected) in cases {
            assert_eq!(resource(path), expected, "{path}");
            assert!(RESOURCES.contains(&expected));
        }
    }
}
