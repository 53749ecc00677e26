//! The web page in a Chromium, by keyboard: somebody logs in, assigns an image, watches a machine boot, brings an image and
//! takes it back; every view is looked at for accessibility, and pictures of all of them are kept.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    appliance::{Appliance, Config},
    browser::{Browser, Looks},
    harness::Life,
    machine::{Firmware, Machine},
    workshop,
};

const ORIGIN: &str = "https://127.0.0.1:8443";

/// What the page shows and does.
pub const BROWSER: Life = Life {
    name: "browser",
    shows: &[
        "browser_login",
        "browser_assigns",
        "browser_watches_a_boot",
        "browser_reads_logs",
        "browser_imports_and_rolls_back",
        "browser_views",
    ],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full().with_images().api("listen = \"127.0.0.1:8443\""))?;
        let mut machine = rack.machine(Firmware::UefiPxe).install()?;
        let certificate = bennu.state().join("tls/cert.pem");
        let mut browser = Browser::start(Rc::clone(rack.home_shared()), bennu.namespace(), ORIGIN, &certificate)?;
        story.show("browser_login", || log_in(&mut browser, &bennu))?;
        story.show("browser_assigns", || assign(&mut browser, &bennu, &machine))?;
        story.show("browser_watches_a_boot", || watch(&mut browser, &bennu, &mut machine))?;
        story.show("browser_reads_logs", || read_logs(&mut browser, &mut machine))?;
        story.show("browser_imports_and_rolls_back", || import(&mut browser, &bennu, rack.home().dir()))?;
        story.show("browser_views", || views(&mut browser, &bennu, &machine))
    },
};

fn log_in(browser: &mut Browser, bennu: &Appliance) -> Result<String> {
    let made = bennu.json(["token", "create", "browser", "--scope", "admin"])?;
    let token = made["token"].as_str().context("no token came")?;
    browser.look(Looks { dark: false, phone: false })?;
    browser.open("/")?;
    ensure!(browser.evaluate("location.pathname")? == "/login", "a stranger sees the rack");
    for looks in Looks::ALL {
        look(browser, "login", looks)?;
    }
    browser.look(Looks { dark: false, phone: false })?;
    ensure!(browser.evaluate("document.activeElement.id")? == "token", "the field has no focus");
    browser.write(token)?;
    browser.press("Enter")?;
    browser.wait("rack", "document.body.dataset.view === 'rack'", 20)?;
    let seen = browser.evaluate("document.cookie")?;
    ensure!(seen == "", "the page's script sees the cookie: {seen}");
    browser.behaved().map(|_| "by keyboard, and no script sees the cookie".to_owned())
}

fn assign(browser: &mut Browser, bennu: &Appliance, machine: &Machine) -> Result<String> {
    let mac = machine.mac();
    bennu.bennu(["machine", "label", &mac, "rack=r1"])?;
    browser.open("/")?;
    browser.tab_to(&format!("a[href='/ui/machines/{mac}']"))?;
    browser.press("Enter")?;
    browser.wait("machine", "document.body.dataset.view === 'machine'", 20)?;
    browser.tab_to("#image")?;
    // A list that is closed chooses by the letters that are typed.
    browser.write("debian:v1")?;
    ensure!(browser.evaluate("document.activeElement.value")? == "debian:v1", "nothing was chosen");
    browser.tab_to("form[action$='/assignment'] button")?;
    browser.press("Enter")?;
    browser.wait(
        "word that it is assigned",
        "document.querySelector('.done')?.textContent.includes('Assigned')",
        20,
    )?;
    let shown = bennu.json(["machine", "show", &mac])?;
    ensure!(shown["assignment"] == "debian:v1", "it is assigned {}", shown["assignment"]);
    Ok("debian:v1, chosen from the list".to_owned())
}

/// The page writes down what its line shows, and when; an ear of its own for the same events hears when they came.
const NOTE: &str = "(() => { const row = () => document.querySelector('tr[data-mac]'); \
    window.noted = { words: [], percents: [], came: {}, drawn: {} }; \
    const ear = new EventSource('/v1/events'); \
    ear.addEventListener('boot', ({ data }) => { const { state } = JSON.parse(data); noted.came[state] ??= performance.now(); }); \
    const look = () => { const word = row().querySelector('.word').textContent; \
        if (noted.words.at(-1) !== word) { noted.words.push(word); noted.drawn[word] ??= performance.now(); } \
        const bar = row().querySelector('progress'); \
        if (bar && noted.percents.at(-1) !== bar.value) noted.percents.push(bar.value); }; \
    new MutationObserver(look).observe(document.getElementById('content'), { subtree: true, childList: true, characterData: true, attributes: true }); \
    look(); })()";

fn watch(browser: &mut Browser, bennu: &Appliance, machine: &mut Machine) -> Result<String> {
    browser.open("/")?;
    browser.wait("live stream", "document.getElementById('live').textContent === 'live'", 20)?;
    browser.evaluate(NOTE)?;
    machine.power_on()?;
    let took =
        browser.wait("machine that is up", "document.querySelector('tr[data-mac]').dataset.kind === 'up'", 240)?;
    let noted = browser.evaluate("window.noted")?;
    let words = texts(&noted["words"]);
    for word in ["not seen", "firmware", "loader", "stage 1", "up"] {
        ensure!(words.iter().any(|shown| shown == word), "it never showed '{word}', but {words:?}");
    }
    let percents: Vec<f64> = noted["percents"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    ensure!(percents.len() >= 5 && percents.is_sorted(), "the bar went {percents:?}");
    let lag = lag(&noted).context("no change of the line can be timed")?;
    ensure!(lag < 1000.0, "the line changed {lag:.0} ms after its event");
    bennu.wait_for_state(&machine.mac(), "up", 10)?;
    let counted = browser.wait("count of one", "document.querySelector('[data-count=up] b').textContent === '1'", 20);
    counted?;
    Ok(format!(
        "{} in {:.0} s without a reload, {} steps of the bar, the slowest change {lag:.0} ms after its event",
        words.join(", "),
        took.as_secs_f64(),
        percents.len()
    ))
}

/// From an event to the line that shows it, at most, in milliseconds.
fn lag(noted: &Value) -> Option<f64> {
    let pairs = [("loader", "loader"), ("stage1", "stage 1"), ("init", "services"), ("up", "up")];
    let between = |(state, word): (&str, &str)| Some(noted["drawn"][word].as_f64()? - noted["came"][state].as_f64()?);
    pairs.into_iter().filter_map(between).reduce(f64::max)
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// From the rack to what the machine said, and to what it says now.
fn read_logs(browser: &mut Browser, machine: &mut Machine) -> Result<String> {
    machine.login()?;
    browser.open("/")?;
    browser.tab_to(&format!("a[href='/ui/machines/{}']", machine.mac()))?;
    browser.press("Enter")?;
    browser.wait("machine", "document.body.dataset.view === 'machine'", 20)?;
    browser.tab_to("#log-link")?;
    browser.press("Enter")?;
    browser.wait("log", "document.body.dataset.view === 'logs'", 20)?;
    let has = |text: &str| {
        format!("[...document.querySelectorAll('#log li')].some((line) => line.textContent.includes({}))", json!(text))
    };
    browser.wait("stage 1's words", &has("root verified"), 60)?;
    browser.wait("live stream", "document.getElementById('live').textContent === 'live'", 20)?;
    browser.tab_to("#log")?;
    machine.run("logger -p user.err -t probe 'said while somebody looks'")?;
    let took = browser.wait("line that was just said", &has("said while somebody looks"), 60)?;
    let at_end = "(() => { const log = document.getElementById('log'); return log.scrollHeight - log.scrollTop - log.clientHeight; })()";
    ensure!(browser.evaluate(at_end)?.as_f64().is_some_and(|left| left < 40.0), "the log does not stay at its end");
    let path = browser.evaluate("location.pathname")?;
    browser.open(path.as_str().context("the page has no path")?)?;
    browser.tab_to("#severity")?;
    browser.write("errors")?;
    ensure!(browser.evaluate("document.activeElement.value")? == "error", "the severity was not chosen");
    browser.tab_to("form[action$='/logs'] button")?;
    browser.press("Enter")?;
    browser.wait(
        "errors alone",
        "location.search.includes('severity=error') && document.body.dataset.view === 'logs'",
        20,
    )?;
    browser.wait("the error among them", &has("said while somebody looks"), 20)?;
    ensure!(browser.evaluate(&has("root verified"))? == false, "it shows what is no error");
    browser.behaved().map(|_| format!("a line was there {:.1} s after it was asked for", took.as_secs_f64()))
}

/// An EFI program with room behind it, which differs by `seed`.
fn program(home: &Path, seed: u8) -> Result<PathBuf> {
    let stub = workshop::installed(&["/usr/lib/systemd/boot/efi/linuxx64.efi.stub"], "systemd-boot-efi")?;
    let mut program = fs::read(stub)?;
    program.resize(12 << 20, seed);
    let file = home.join(format!("program-{seed}.efi"));
    fs::write(&file, program)?;
    Ok(file)
}

fn import(browser: &mut Browser, bennu: &Appliance, home: &Path) -> Result<String> {
    // Slow enough that its progress can be seen: 4 MB a second.
    throttle(browser, 4_000_000)?;
    let said = upload(browser, &program(home, 1)?)?;
    ensure!(said.len() >= 2, "the upload showed {said:?}");
    throttle(browser, -1)?;
    let first = bennu.digest("tool:v1")?;
    upload(browser, &program(home, 2)?)?;
    ensure!(bennu.digest("tool:v1")? != first, "the tag has not moved");
    browser.tab_to("[id='tag-tool:v1'] summary")?;
    browser.press("Enter")?;
    browser.tab_to("[id='tag-tool:v1'] button[value=rollback]")?;
    browser.press("Enter")?;
    browser.wait("word of the rollback", "document.querySelector('.done')?.textContent.includes('Rolled back')", 20)?;
    ensure!(bennu.digest("tool:v1")? == first, "the tag did not go back");
    Ok(format!("{} steps of the upload's progress; the tag is back at its first image", said.len()))
}

/// Limits what the page may send, in bytes a second; -1: not at all.
fn throttle(browser: &mut Browser, rate: i64) -> Result<()> {
    let rate = json!({ "offline": false, "latency": 0, "downloadThroughput": -1, "uploadThroughput": rate });
    browser.call("Network.emulateNetworkConditions", rate).map(drop)
}

/// Uploads a file; what the page said of how far it was.
fn upload(browser: &mut Browser, file: &Path) -> Result<BTreeSet<String>> {
    browser.open("/ui/images")?;
    browser.tab_to("#import-file")?;
    browser.choose_file("#import-file", file)?;
    browser.tab_to("#import-kind")?;
    browser.write("an")?;
    ensure!(browser.evaluate("document.activeElement.value")? == "efi", "the kind was not chosen");
    browser.tab_to("#import-name")?;
    browser.write("tool:v1")?;
    browser.press("Enter")?;
    let (mut said, deadline) = (BTreeSet::new(), Instant::now() + Duration::from_secs(60));
    loop {
        // In between there is a moment without a page.
        let now = browser.evaluate(
            "[document.getElementById('import-said')?.textContent, document.querySelector('.done')?.textContent]",
        );
        let now = now.unwrap_or_default();
        if now[1].as_str().is_some_and(|done| done.contains("is here")) {
            return Ok(said);
        }
        said.extend(now[0].as_str().filter(|text| text.starts_with("Sending: ")).map(str::to_owned));
        ensure!(Instant::now() < deadline, "the upload does not end; the page says {now}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn views(browser: &mut Browser, bennu: &Appliance, machine: &Machine) -> Result<String> {
    let boot = bennu.last_boot(&machine.mac())?;
    let logs = format!("/ui/boots/{}/logs", boot["id"].as_str().context("the boot has no id")?);
    let machine = format!("/ui/machines/{}", machine.mac());
    let views = [
        ("rack", "/"),
        ("machine", &machine),
        ("logs", &logs),
        ("images", "/ui/images"),
        ("rules", "/ui/rules"),
        ("leases", "/ui/leases"),
        ("events", "/ui/events"),
        ("audit", "/ui/audit"),
        ("tokens", "/ui/tokens"),
    ];
    for (name, path) in views {
        browser.look(Looks { dark: false, phone: false })?;
        browser.open(path)?;
        for looks in Looks::ALL {
            look(browser, name, looks)?;
        }
    }
    browser.look(Looks { dark: false, phone: false })?;
    let behaved = browser.behaved()?;
    Ok(format!("{} views in 4 looks without a serious fault; {behaved}", views.len() + 1))
}

/// Takes a picture, and asks axe-core where it could differ: its rules look at colours and at what is laid out.
fn look(browser: &mut Browser, view: &str, looks: Looks) -> Result<()> {
    browser.look(looks)?;
    browser.screenshot(view, looks)?;
    let faults = browser.faults()?;
    ensure!(faults.is_empty(), "{view} ({looks:?}) has faults: {}", faults.join("\n"));
    let wide = browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")?;
    ensure!(wide.as_f64().is_some_and(|wide| wide <= 1.0), "{view} ({looks:?}) is {wide} too wide");
    Ok(())
}
