//! The API's real router on a real ledger and store in a temporary directory.

mod appliance;
mod audit;
mod gc;
mod idempotency;
mod imports;
mod life;
mod machines;
mod metadata;
mod preconditions;
mod profiles;
pub(in crate::http) mod remote;
mod rules;
mod secrets;
mod speed;
mod support;
mod tokens;
mod trials;
mod watching;

use crate::{
    appliance::{Appliance, Counters},
    author,
    config::Config,
    door::Door,
    http::access,
    interfaces::{Interface, Interfaces},
    ledger::{Ledger, Rule},
    loaders::Loaders,
    secrets::Keyring,
};
use axum::{Router, body::Body};
use bennu_images::store::Store;
use bennu_rules::{
    MacAddress, Volatile,
    audit::{AuditRecord, Author, Who},
    boot::Boot,
    journey::Seen,
};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use std::{ops::ControlFlow, sync::Arc, time::Instant};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// An appliance that serves nothing but its API.
pub(crate) struct Bench {
    pub appliance: Arc<Appliance>,
    pub router: Router,
    pub directory: tempfile::TempDir,
}

/// An answer.
pub(crate) struct Got {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn etag(&self) -> &str {
        self.headers["etag"].to_str().unwrap()
    }
}

pub(in crate::http) const CONFIG: &str = r#"
    [boot]
    interface = "boot0"
    [[boot.subnet]]
    network = "10.77.0.0/24"
    range = "10.77.0.50-10.77.0.199"
    router = "10.77.0.1"
"#;

impl Bench {
    pub fn new() -> Self {
        Self::with("")
    }

    /// With more in its configuration.
    pub fn with(config: &str) -> Self {
        let mut config = Config::parse(&format!("{CONFIG}\n{config}")).unwrap();
        config.signatures.read().unwrap();
        Self::of(config)
    }

    pub fn of(config: Config) -> Self {
        Self::with_door(config, Default::default())
    }

    /// On a host whose first process is asked there.
    fn at(door: Door) -> Self {
        Self::with_door(Config::parse(CONFIG).unwrap(), door)
    }

    fn with_door(mut config: Config, door: Door) -> Self {
        let directory = tempfile::tempdir().unwrap();
        config.state_dir = directory.path().to_owned();
        let store = Store::open(directory.path().join("images")).unwrap();
        let interface = Interface {
            name: "boot0".into(),
            index: 1,
            address: "10.77.0.1".parse().unwrap(),
            network: "10.77.0.1/24".parse().unwrap(),
        };
        let appliance = Arc::new(Appliance {
            ledger: Ledger::open(directory.path(), config.settings.clone()).unwrap(),
            stage1: store.put(b"stage 1").unwrap(),
            store,
            loaders: Loaders::with_directory(None).unwrap(),
            interfaces: Interfaces::new([interface]),
            registry: Default::default(),
            keyring: Keyring::made_up(),
            remote: None,
            counters: Counters::default(),
            metrics: Default::default(),
            logs: crate::logs::Logs::open(directory.path().join("logs"), config.logs).unwrap(),
            door,
            started: Instant::now(),
            shutdown: CancellationToken::new(),
            restart: CancellationToken::new(),
            config,
        });
        Self { router: access::local(crate::http::management_router(appliance.clone())), appliance, directory }
    }

    async fn send(&self, request: Request<Body>) -> Got {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Got { status: parts.status, headers: parts.headers, text }
    }

    pub async fn get(&self, path: &str) -> Got {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub async fn write(&self, method: Method, path: &str, body: &str) -> Got {
        self.send(Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap()).await
    }

    pub async fn delete(&self, path: &str) -> Got {
        self.write(Method::DELETE, path, "").await
    }

    /// Imports a foreign image whose parts depend on `seed`.
    pub async fn import(&self, name: &str, seed: u8) -> Value {
        let path = format!("/v1/imports?kind=foreign&name={name}&source=test");
        let got = self.send(Request::post(path).body(Body::from(foreign_tar(seed))).unwrap()).await;
        let last: Value = serde_json::from_str(got.text.lines().last().unwrap()).unwrap();
        assert!(last["image"].is_object(), "{}", got.text);
        last["image"].clone()
    }

    /// Has a rule change the records behind the API's back.
    pub async fn record<R, A>(&self, request: R, rule: Rule<R, A>) -> A
    where
        R: Send + Sync + 'static,
        A: Send + 'static,
    {
        author::by(Author::bennu(None), self.appliance.ledger.decide(request, rule)).await.unwrap()
    }

    /// Opens a boot as DHCP does, and sees things of it.
    pub async fn boot(&self, mac: &str, seen: Vec<Seen>) -> Boot {
        let mac: MacAddress = mac.parse().unwrap();
        let boot = self
            .appliance
            .ledger
            .decide(mac, |mac, view, at| {
                let boot = Boot::open(*mac, view.records.machine(*mac).as_ref(), view, at);
                let volatile = vec![Volatile::PutBoot(boot.clone())];
                bennu_rules::Decision { volatile, ..bennu_rules::Decision::just(boot) }
            })
            .await
            .unwrap();
        for seen in seen {
            self.appliance.ledger.observe(mac, seen);
        }
        boot
    }

    pub fn blobs(&self) -> usize {
        std::fs::read_dir(self.appliance.store.dir().join("blobs/sha256")).unwrap().count()
    }

    fn index(&self) -> String {
        std::fs::read_to_string(self.appliance.store.dir().join("index.json")).unwrap()
    }
}

/// Whatever a test did: each write of people is on record with its author, and that record is whole.
impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let ledger = &self.appliance.ledger;
        let verified = ledger.verify_audit(None).unwrap();
        assert!(verified.intact, "{verified:?}");
        let extent = ledger.audit_extent().unwrap();
        let look = |record: AuditRecord| {
            assert_ne!(record.who, Who::Unknown, "nobody is named for {record:?}");
            ControlFlow::Continue(())
        };
        ledger.audit_records(extent.first..=extent.last, look).unwrap();
    }
}

pub(crate) fn discover() -> Seen {
    Seen::DhcpDiscover { asker: "pxe".into(), arch: Some(7) }
}

/// The first sectors of a bzImage for x86-64 (Linux/x86 boot protocol 2.12), told apart by `seed`.
fn kernel(seed: u8) -> Vec<u8> {
    let mut kernel = vec![seed; 4096];
    kernel[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x206..0x208].copy_from_slice(&0x020c_u16.to_le_bytes());
    kernel[0x236..0x238].copy_from_slice(&1_u16.to_le_bytes());
    kernel
}

pub(crate) fn foreign_tar(seed: u8) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in [("kernel", kernel(seed)), ("initrd-0", vec![seed; 9000])] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}
