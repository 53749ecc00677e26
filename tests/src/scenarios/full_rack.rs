//! The rack page in a Chromium while five hundred machines boot.

use anyhow::{Context, Result, ensure};
use dhcproto::v4::borrowed::Message;
use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use super::siege::{FAR, RELAY};
use crate::{
    appliance::Config,
    browser::{Browser, Looks},
    conformance::{
        ask::{Ask, kind},
        place::{Bench, SERVER},
    },
    harness::Life,
};

const ORIGIN: &str = "https://127.0.0.1:8443";
const MACHINES: u16 = 500;
/// UEFI for x86-64 (RFC 4578 §2.1).
const X86_64: u16 = 7;
/// Milliseconds.
const PAINT: f64 = 1000.0;
const UPDATE: f64 = 200.0;

/// First paint and updates.
pub const FULL_RACK: Life = Life {
    name: "browser full rack",
    shows: &["rack_of_500_paints", "rack_of_500_updates"],
    live: |story| {
        let bench = Bench::new(
            Config::full().unknown("discover").more(FAR).api("listen = \"127.0.0.1:8443\""),
            &["10.78.0.0/16"],
        )?;
        bench.place.host.ip(&format!("address add {RELAY}/32 dev net0"))?;
        let socket = bench.place.host.inside(|| {
            let socket = UdpSocket::bind((RELAY, 67)).context("the relay's port")?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            Ok(socket)
        })?;
        declare(&bench)?;
        (1..=MACHINES).try_for_each(|number| leases(&socket, number))?;
        let certificate = bench.bennu.state().join("tls/cert.pem");
        let home = Rc::clone(bench.rack.home_shared());
        let mut browser = Browser::start(home, bench.bennu.namespace(), ORIGIN, &certificate)?;
        let made = bench.bennu.json(["token", "create", "browser", "--scope", "admin"])?;
        browser.look(Looks { dark: false, phone: false })?;
        browser.open("/")?;
        browser.write(made["token"].as_str().context("no token came")?)?;
        browser.press("Enter")?;
        browser.wait("rack", "document.body.dataset.view === 'rack'", 20)?;
        story.show("rack_of_500_paints", || paints(&mut browser))?;
        story.show("rack_of_500_updates", || updates(&mut browser, &socket))
    },
};

fn paints(browser: &mut Browser) -> Result<String> {
    let mut painted = Vec::new();
    for _ in 0..5 {
        browser.open("/?state=booting")?;
        let rows = browser.evaluate("document.querySelectorAll('tr[data-kind=booting]').length")?;
        ensure!(rows.as_u64().is_some_and(|rows| rows >= 100), "the page shows {rows} machines that boot");
        let counted = browser.evaluate("document.querySelector('[data-count=booting] b').textContent")?;
        ensure!(
            counted.as_str() == Some(MACHINES.to_string().as_str()),
            "the page counts {counted} machines that boot"
        );
        browser.wait("paint", "performance.getEntriesByName('first-contentful-paint').length > 0", 20)?;
        let paint = browser.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")?;
        painted.push(paint.as_f64().context("no time of the first paint")?);
    }
    painted.sort_by(f64::total_cmp);
    let median = painted[painted.len() / 2];
    ensure!(median < PAINT, "the first paint came after {median:.0} ms: {painted:?}");
    Ok(format!("{MACHINES} machines boot; first paint after {median:.0} ms, at most {:.0}", painted[4]))
}

/// Notes when an event of a machine came, and when its line changed after that.
const NOTE: &str = "(() => { window.noted = { came: {}, drawn: {} }; \
    const ear = new EventSource('/v1/events'); \
    ear.addEventListener('boot', ({ data }) => { const { machine } = JSON.parse(data); noted.came[machine] ??= performance.now(); }); \
    const look = (changes) => { for (const { target } of changes) { \
        const row = (target.nodeType === 1 ? target : target.parentElement)?.closest('tr[data-mac]'); \
        if (row) noted.drawn[row.dataset.mac] ??= performance.now(); } }; \
    new MutationObserver(look).observe(document.getElementById('content'), { subtree: true, childList: true, characterData: true, attributes: true }); \
    return new Promise((resolve) => { ear.onopen = () => resolve(true); }); })()";

fn updates(browser: &mut Browser, socket: &UdpSocket) -> Result<String> {
    browser.open("/?state=booting")?;
    browser.wait("live stream", "document.getElementById('live').textContent === 'live'", 20)?;
    browser.evaluate(NOTE)?;
    const CHANGED: u16 = 50;
    for number in 1..=CHANGED {
        // A packet of iPXE after one of the firmware: the machine is a step further.
        answered(socket, &Ask::new(kind::DISCOVER, 0x2000 + u32::from(number), mac(number)).ipxe(X86_64))?;
        thread::sleep(Duration::from_millis(20));
    }
    let both = "Object.keys(noted.came).filter((mac) => noted.drawn[mac]).length";
    browser.wait("changes of lines", &format!("{both} >= {CHANGED}"), 20)?;
    let lags = browser.evaluate(
        "Object.keys(noted.came).filter((mac) => noted.drawn[mac]).map((mac) => noted.drawn[mac] - noted.came[mac])",
    )?;
    let mut lags: Vec<f64> = lags.as_array().into_iter().flatten().filter_map(|lag| lag.as_f64()).collect();
    lags.sort_by(f64::total_cmp);
    let (median, slowest) = (lags[lags.len() / 2], lags[lags.len() - 1]);
    ensure!(median < UPDATE, "a line changed {median:.0} ms after its event (median), {slowest:.0} at most");
    browser.behaved()?;
    Ok(format!("a line changed {median:.0} ms after its event (median of {}), {slowest:.0} at most", lags.len()))
}

fn mac(number: u16) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [0x52, 0x54, 0x5f, 0, high, low]
}

/// Puts them on record: others are there when they ask for their script.
fn declare(bench: &Bench) -> Result<()> {
    let document = |number| {
        let mac = mac(number).map(|byte| format!("{byte:02x}")).join(":");
        format!("kind: Machine\nname: {mac}\nlabels: {{ rack: r{} }}\n---\n", number / 40)
    };
    let file = bench.rack.home().dir().join("rack.yaml");
    fs::write(&file, (1..=MACHINES).map(document).collect::<String>())?;
    bench.bennu.bennu(["apply".as_ref(), "-f".as_ref(), file.as_os_str()]).map(drop)
}

/// A firmware's DORA.
fn leases(socket: &UdpSocket, number: u16) -> Result<()> {
    let ask = |kind| Ask::new(kind, u32::from(number), mac(number)).pxe(X86_64);
    let offered = answered(socket, &ask(kind::DISCOVER))?;
    answered(socket, &ask(kind::REQUEST).address(50, offered).address(54, SERVER)).map(drop)
}

/// Sends a packet as a relay does, again and again until an answer comes; the address in it.
fn answered(socket: &UdpSocket, ask: &Ask) -> Result<Ipv4Addr> {
    let packet = ask.clone().relayed(RELAY, SERVER).bytes();
    let until = Instant::now() + Duration::from_secs(20);
    let mut buffer = [0; 2048];
    while Instant::now() < until {
        socket.send_to(&packet, SocketAddrV4::new(SERVER, 67))?;
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        if let Ok(message) = Message::new(&buffer[..length])
            && buffer.get(4..8) == packet.get(4..8)
        {
            return Ok(message.yiaddr());
        }
    }
    anyhow::bail!("nobody answered the packet of {:02x?}", &packet[28..34])
}
