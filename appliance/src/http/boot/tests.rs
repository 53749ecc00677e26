//! The provisioning plane's real routes: a boot from its script on, and whoever else is on its wire.

mod secrets;
mod sessions;

use super::PeerAddr;
use crate::http::{
    api::tests::{Bench, Got},
    connection::LocalAddr,
    provisioning_router,
};
use axum::{Router, body::Body};
use bennu_rules::{
    Change, Decision, MacAddress, Machine, Moment, View,
    facts::Architecture,
    image::{BlobRef, Content, Digest, FileSystem, Image, ImageConfig, ImageName, Tag},
    lease::{Lease, LeaseKey},
};
use http::{Method, Request};
use http_body_util::BodyExt;
use std::net::SocketAddr;
use tower::ServiceExt;

pub const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 1]);
/// On no wire of this host: no neighbour table knows whose it is.
pub const MACHINE: &str = "10.77.0.50:1000";

/// An appliance as its machines see it.
pub struct Plane {
    pub bench: Bench,
    router: Router,
}

impl Plane {
    /// With a machine that is assigned an image with a root.
    pub async fn new() -> Self {
        Self::of(Bench::new()).await
    }

    pub async fn of(bench: Bench) -> Self {
        let router = provisioning_router(bench.appliance.clone());
        let plane = Self { bench, router };
        plane.change(assigned()).await;
        plane
    }

    /// Writes into the ledger.
    pub async fn change(&self, changes: Vec<Change>) {
        let write = |changes: &Vec<Change>, _: &View<'_>, _: &Moment| Decision {
            changes: changes.clone(),
            ..Decision::just(())
        };
        self.bench.record(changes, write).await;
    }

    /// Asks as the machine does.
    pub async fn ask(&self, method: Method, path: &str, fields: &[(&str, &str)], body: impl Into<Body>) -> Raw {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body.into()).unwrap();
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        request.extensions_mut().insert(PeerAddr(address(MACHINE)));
        request.extensions_mut().insert(LocalAddr(address("10.77.0.1:80")));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Raw { status: parts.status.as_u16(), body: body.collect().await.unwrap().to_bytes().to_vec() }
    }

    /// The firmware asks DHCP, the loader for its script; what follows is under `/boot/<token>/`.
    pub async fn starts(&self) -> String {
        self.bench.boot(&MAC.to_string(), vec![crate::http::api::tests::discover()]).await;
        let script = self.ask(Method::GET, &format!("/boot/{}.ipxe", MAC.hyphened()), &[], "").await;
        let text = String::from_utf8(script.body).unwrap();
        let (_, rest) = text.split_once("bennu.boot=http://10.77.0.1").unwrap_or_else(|| panic!("no boot: {text}"));
        rest.split_whitespace().next().unwrap().to_owned()
    }

    /// What the API tells of the machine's last boot.
    pub async fn boot(&self) -> serde_json::Value {
        let Got { text, .. } = self.bench.get(&format!("/v1/machines/{MAC}/boots")).await;
        let listed: serde_json::Value = serde_json::from_str(&text).unwrap();
        let id = listed["items"][0]["id"].as_str().unwrap();
        self.bench.get(&format!("/v1/boots/{id}")).await.json()
    }
}

/// An answer, which need not be text.
pub struct Raw {
    pub status: u16,
    pub body: Vec<u8>,
}

fn assigned() -> Vec<Change> {
    let blob = |n: u8| BlobRef { digest: Digest([n; 32]), size: 100 };
    let content = Content::Root {
        kernel: blob(1),
        modules: blob(2),
        root: blob(3),
        filesystem: FileSystem::Squashfs,
        verity: None,
        kernel_release: "6.1.0".into(),
    };
    let digest = Digest([7; 32]);
    let image = Image {
        digest,
        manifest_size: 1,
        config_blob: blob(9),
        config: ImageConfig::of(Architecture::X86_64, content),
        imported: bennu_rules::Timestamp(0),
        source: "test".into(),
        verdict: None,
        adopted: false,
    };
    let name: ImageName = "web:v1".parse().unwrap();
    let mut machine = Machine::new(MAC, bennu_rules::Timestamp(0));
    machine.assignment = Some("web:v1".parse().unwrap());
    let tag = Tag { name, digest, others: Default::default(), history: Vec::new() };
    // It came by DHCP: that is how the appliance tells whose an address is that is on no wire of its own.
    let lease = Lease {
        key: LeaseKey { subnet: "10.77.0.0/24".parse().unwrap(), mac: MAC },
        address: "10.77.0.50".parse().unwrap(),
        granted: bennu_rules::Timestamp(0),
        expires: bennu_rules::Timestamp(u64::MAX),
        hostname: None,
        declined: false,
    };
    vec![Change::PutImage(image), Change::PutTag(tag), Change::PutMachine(machine), Change::PutLease(lease)]
}
