//! Names that try to climb out of what is served, against the routes of a whole appliance.

use super::Client;
use crate::{
    appliance::{Appliance, Counters},
    config::Config,
    interfaces::Interfaces,
    ledger::Ledger,
    loaders::Loaders,
    secrets::Keyring,
    tftp::{
        content::{self, Wanted},
        server::{Event, Listener, Service},
    },
};
use bennu_images::store::Store;
use bennu_rules::tftp::{Answer, Packet, answer, peer::Standing};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

const NAMES: usize = 10_000;
const CANARY: &[u8] = b"what nobody may read";
const LOADER: &[u8] = b"MZ a loader of the site";

const STARTS: &[&[u8]] = &[
    b"",
    b"/",
    b"//",
    b"\\",
    b"./",
    b"loaders/",
    b"C:\\",
    b"\\\\server\\share\\",
    b"file:///",
    b"blobs/sha256/",
    b"boot/52:54:00:00:00:01/",
    b"signed/",
    b"site.efi/",
    b"\xff\xfe",
];
const CLIMBS: &[&[u8]] = &[
    b"",
    b"../",
    b"..\\",
    b"..//",
    b"./../",
    b".../",
    b"....//",
    b"..;/",
    b"..\0/",
    b"%2e%2e%2f",
    b"%2e%2e/",
    b"..%2f",
    b"..%5c",
    b"%252e%252e%252f",
    b"..%c0%af",
    b"\xc0\xae\xc0\xae/",
    b"\xc0\xae\xc0\xae\xc0\xaf",
    b".\0.\0/\0",
    b"\0.\0.\0/",
    "\u{ff0e}\u{ff0e}/".as_bytes(),
    "..\u{2215}".as_bytes(),
    "\u{2025}/".as_bytes(),
];
const TARGETS: &[&[u8]] = &[
    b"canary",
    b"state/canary",
    b"state/ledger.redb",
    b"state/images/index.json",
    b"state/images/oci-layout",
    b"etc/passwd",
    b"proc/self/environ",
    b"proc/self/fd/3",
    b"dev/zero",
    b"con",
    b"aux.efi",
    b"loaders/../canary",
];
const ENDS: &[&[u8]] = &[b"", b"/", b"/.", b".", b" ", b"\0.efi", b"%00.efi", b"::$DATA", b"\n"];

/// So many names, spread evenly over all combinations, and some of their own kind.
fn names(directory: &Path) -> Vec<Vec<u8>> {
    let depths = 1..=12;
    let all = STARTS.len() * CLIMBS.len() * depths.clone().count() * TARGETS.len() * ENDS.len();
    let absolute = directory.join("canary").into_os_string().into_encoded_bytes();
    let mut names = vec![absolute.clone(), [b"/..", &absolute[..]].concat(), vec![b'a'; 60_000], vec![b'/'; 1500]];
    names.push([b"../".repeat(80), b"canary".to_vec()].concat());
    let more = NAMES - names.len();
    names.extend((0..more).map(|nth| {
        // An odd step visits every factor's values in all orders.
        let mut rest = (nth * (all / more) + nth) % all;
        let mut pick = |count: usize| {
            let picked = rest % count;
            rest /= count;
            picked
        };
        let (start, climb, target, end) = (
            STARTS[pick(STARTS.len())],
            CLIMBS[pick(CLIMBS.len())],
            TARGETS[pick(TARGETS.len())],
            ENDS[pick(ENDS.len())],
        );
        [start, &climb.repeat(1 + pick(12)), target, end].concat()
    }));
    names
}

fn request(name: &[u8]) -> Vec<u8> {
    [b"\0\x01", name, b"\0octet\0"].concat()
}

/// A directory with loaders, canaries around them, and an appliance that serves them.
fn appliance(directory: &Path) -> Arc<Appliance> {
    let state = directory.join("state");
    for inside in ["loaders", "state"] {
        fs::create_dir_all(directory.join(inside)).unwrap();
    }
    for canary in ["canary", "state/canary", "canary.efi"] {
        fs::write(directory.join(canary), CANARY).unwrap();
    }
    fs::write(directory.join("loaders/site.efi"), LOADER).unwrap();
    std::os::unix::fs::symlink(directory.join("canary"), directory.join("loaders-link")).unwrap();
    let config = Config::parse("[boot]\ninterface = \"boot0\"\n[[boot.subnet]]\nnetwork = \"10.77.0.0/24\"\n").unwrap();
    let store = Store::open(state.join("images")).unwrap();
    Arc::new(Appliance {
        ledger: Ledger::open(&state, config.settings.clone()).unwrap(),
        stage1: store.put(b"stage 1").unwrap(),
        store,
        loaders: Loaders::with_directory(Some(&directory.join("loaders"))).unwrap(),
        interfaces: Interfaces::default(),
        registry: Default::default(),
        keyring: Keyring::made_up(),
        remote: None,
        counters: Counters::default(),
        metrics: Default::default(),
        logs: crate::logs::Logs::open(state.join("logs"), config.logs).unwrap(),
        door: Default::default(),
        started: Instant::now(),
        shutdown: CancellationToken::new(),
        restart: CancellationToken::new(),
        config,
    })
}

#[tokio::test]
async fn ten_thousand_names_lead_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let routes = content::routes(&appliance(directory.path()));
    let (peer, local): (IpAddr, IpAddr) = ([10, 77, 0, 50].into(), [10, 77, 0, 1].into());
    let mut looked_for = 0;
    let names = names(directory.path());
    assert_eq!(names.len(), NAMES);
    for name in names {
        let Ok(packet) = Packet::parse(&request(&name)) else { continue };
        let Answer::Read { name, .. } = answer(&packet) else { continue };
        looked_for += 1;
        assert!(routes.find(&Wanted { name: name.clone(), peer, local }).await.is_none(), "{name:?}");
    }
    // The rest is refused before anything is looked for.
    assert!((500..NAMES).contains(&looked_for), "{looked_for}");
    let known = Wanted { name: "site.efi".to_owned(), peer, local };
    assert_eq!(routes.find(&known).await.unwrap().content.read_ahead(0, 0).unwrap(), LOADER);
}

#[tokio::test]
async fn ten_thousand_names_on_the_wire_bring_errors_alone() {
    let directory = tempfile::tempdir().unwrap();
    let counted = Arc::<Mutex<Vec<Event>>>::default();
    let shutdown = CancellationToken::new();
    let listener = Listener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).unwrap();
    let server = listener.local();
    let service = Service {
        routes: Arc::new(content::routes(&appliance(directory.path()))),
        observe: Arc::new(|_, _| ()),
        count: Arc::new({
            let counted = counted.clone();
            move |event| counted.lock().unwrap().push(event)
        }),
        judge: Arc::new(|_| Standing::Known),
        shutdown: shutdown.clone(),
    };
    let serving = tokio::spawn(listener.serve(service));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut errors = 0;
    for (nth, name) in names(directory.path()).iter().enumerate() {
        socket.send_to(&request(name), server).await.unwrap();
        if nth % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut datagram = [0; 2048];
        while let Ok(length) = socket.try_recv(&mut datagram) {
            assert!(matches!(Packet::parse(&datagram[..length]), Ok(Packet::Error { .. })), "{datagram:?}");
            errors += 1;
        }
    }
    assert!(errors > 0, "nothing was refused");
    // Whoever made such a noise waits a little for more errors, not for files.
    let mut client = Client { socket: UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(), peer: None };
    client.socket.send_to(&request(b"/site.efi"), server).await.unwrap();
    assert_eq!(client.fetch(512, 1).await, LOADER);
    let told = counted.lock().unwrap().clone();
    assert!(told.iter().filter(|event| **event == Event::Started).count() == 1, "more than one transfer began");
    assert!(told.len() > NAMES * 9 / 10, "{} of {NAMES} packets were taken", told.len());
    shutdown.cancel();
    serving.await.unwrap().unwrap();
}
