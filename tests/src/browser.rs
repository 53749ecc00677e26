//! A Chromium that is driven by its DevTools protocol over a pipe, with keys, and watched for errors and for requests that
//! leave the appliance. The protocol is JSON with a NUL after each message; the crates that speak it generate a type for
//! each of its thousand messages, and take longer to compile than all of these tests.

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    rc::Rc,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use crate::{command, home::Home, wire::Namespace, workshop};

/// How long one command of the protocol may take: a machine under test has little left for its browser.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page, in a namespace.
#[derive(Debug)]
pub struct Browser {
    home: Rc<Home>,
    process: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: String,
    messages: u64,
    origin: String,
    /// What the page fetched.
    fetched: Vec<String>,
    /// What it complained of.
    complaints: Vec<String>,
}

/// Whether a colour scheme is dark, and whether the window is a phone's.
#[derive(Debug, Clone, Copy)]
pub struct Looks {
    /// `prefers-color-scheme: dark`.
    pub dark: bool,
    /// 390 by 844 with touch, else 1360 by 850.
    pub phone: bool,
}

impl Looks {
    /// All four.
    pub const ALL: [Self; 4] = [
        Self { dark: false, phone: false },
        Self { dark: true, phone: false },
        Self { dark: false, phone: true },
        Self { dark: true, phone: true },
    ];

    fn name(self) -> String {
        let (size, scheme) = (if self.phone { "phone" } else { "desktop" }, if self.dark { "dark" } else { "light" });
        format!("{size}-{scheme}")
    }
}

impl Browser {
    /// Starts one that trusts this certificate and no other of its own making. Its sandbox would need a user of its own;
    /// the only pages it opens are the appliance's.
    pub fn start(home: Rc<Home>, namespace: &Namespace, origin: &str, certificate: &Path) -> Result<Self> {
        let profile = home.dir().join("chromium");
        fs::create_dir_all(&profile)?;
        let log = File::create(home.dir().join("chromium.log"))?;
        let mut chromium = namespace.command("sh");
        // The pipe is at the descriptors 3 and 4.
        chromium.args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >&2", "sh", "chromium", "--headless=new"]);
        chromium.args(["--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]);
        chromium.args(["--disable-background-networking", "--disable-component-update", "--disable-default-apps"]);
        chromium.args(["--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb"]);
        chromium.arg(format!("--ignore-certificate-errors-spki-list={}", pin(certificate)?));
        chromium.arg(format!("--user-data-dir={}", profile.display())).arg("about:blank");
        chromium.env("HOME", &profile).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut process = chromium.spawn().context("cannot start chromium: run scripts/setup")?;
        home.note_process(process.id())?;
        let to = process.stdin.take().context("chromium has no input")?;
        let output = process.stdout.take().context("chromium has no output")?;
        let (messages, from) = channel();
        thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { break };
                if messages.send(message).is_err() {
                    break;
                }
            }
        });
        let mut browser = Self {
            home,
            process,
            to,
            from,
            session: String::new(),
            messages: 0,
            origin: origin.to_owned(),
            fetched: Vec::new(),
            complaints: Vec::new(),
        };
        browser.attach()?;
        Ok(browser)
    }

    fn attach(&mut self) -> Result<()> {
        let targets = self.call("Target.getTargets", json!({}))?;
        let pages = targets["targetInfos"].as_array().context("chromium has no targets")?;
        let page = pages.iter().find(|target| target["type"] == "page").context("chromium has no page")?;
        let attached = self.call("Target.attachToTarget", json!({ "targetId": page["targetId"], "flatten": true }))?;
        self.session = attached["sessionId"].as_str().context("chromium gave no session")?.to_owned();
        for domain in ["Page", "Runtime", "Network", "Log", "DOM"] {
            self.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(())
    }

    /// One command of the protocol.
    pub fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.messages += 1;
        let mut message = json!({ "id": self.messages, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).context("chromium is gone")?;
        self.to.flush()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.from.recv_timeout(left) {
                Ok(message) if message["id"] == self.messages => {
                    ensure!(message["error"].is_null(), "{method}: {}", message["error"]);
                    return Ok(message["result"].clone());
                }
                Ok(event) => self.notice(&event),
                Err(RecvTimeoutError::Timeout) => bail!("{method}: no answer within {} s", PATIENCE.as_secs()),
                Err(RecvTimeoutError::Disconnected) => bail!("{method}: chromium ended"),
            }
        }
    }

    fn notice(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                self.fetched.push(parameters["request"]["url"].as_str().unwrap_or_default().to_owned());
            }
            "Runtime.exceptionThrown" => self.complaints.push(parameters["exceptionDetails"].to_string()),
            "Runtime.consoleAPICalled" if parameters["type"] == "error" => {
                self.complaints.push(parameters["args"].to_string())
            }
            "Log.entryAdded" if parameters["entry"]["level"] == "error" => {
                self.complaints.push(parameters["entry"].to_string())
            }
            _ => {}
        }
    }

    /// What an expression comes to in the page.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true });
        let came = self.call("Runtime.evaluate", parameters)?;
        ensure!(came["exceptionDetails"].is_null(), "{expression}: {}", came["exceptionDetails"]);
        Ok(came["result"]["value"].clone())
    }

    /// Waits until an expression is true.
    pub fn wait(&mut self, what: &str, expression: &str, seconds: u64) -> Result<Duration> {
        let (began, deadline) = (Instant::now(), Instant::now() + Duration::from_secs(seconds));
        loop {
            // While a page gives way to the next there is nothing to ask.
            if self.evaluate(&format!("Boolean({expression})")).is_ok_and(|value| value == true) {
                return Ok(began.elapsed());
            }
            if Instant::now() > deadline {
                let at = self.evaluate("location.href + ': ' + document.body.innerText.slice(0, 2000)")?;
                bail!("no {what} within {seconds} s; the page is {at}");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Opens a page of the appliance.
    pub fn open(&mut self, path: &str) -> Result<()> {
        let url = format!("{}{path}", self.origin);
        let gone = self.call("Page.navigate", json!({ "url": url }))?;
        ensure!(gone["errorText"].is_null(), "{url}: {}", gone["errorText"]);
        self.wait(&format!("page {path}"), "document.readyState === 'complete' && location.protocol === 'https:'", 30)?;
        Ok(())
    }

    /// Presses a key such as `Tab`, `Enter` or `Space`.
    pub fn press(&mut self, key: &str) -> Result<()> {
        let (name, code, text) = match key {
            "Tab" => ("Tab", 9, ""),
            "Enter" => ("Enter", 13, "\r"),
            "Space" => (" ", 32, " "),
            "End" => ("End", 35, ""),
            other => bail!("nobody knows the key {other}"),
        };
        let code_name = if key == "Space" { "Space" } else { name };
        let kind = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        for (kind, text) in [(kind, text), ("keyUp", "")] {
            let mut event = json!({ "type": kind, "key": name, "code": code_name, "windowsVirtualKeyCode": code });
            if !text.is_empty() {
                event["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", event)?;
        }
        Ok(())
    }

    /// Types text, key by key.
    pub fn write(&mut self, text: &str) -> Result<()> {
        for letter in text.chars() {
            self.call(
                "Input.dispatchKeyEvent",
                json!({ "type": "keyDown", "text": letter.to_string(), "key": letter.to_string() }),
            )?;
            self.call("Input.dispatchKeyEvent", json!({ "type": "keyUp", "key": letter.to_string() }))?;
        }
        Ok(())
    }

    /// Goes on with Tab until the focus is on what a selector names; everything on the way must show that it has it.
    pub fn tab_to(&mut self, selector: &str) -> Result<()> {
        let has = format!("Boolean(document.activeElement?.matches({}))", json!(selector));
        let shows = "(() => { const on = document.activeElement; if (!on || on === document.body) return ''; \
                     const style = getComputedStyle(on); \
                     return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0 ? '' : on.outerHTML.slice(0, 200); })()";
        for _ in 0..150 {
            self.press("Tab")?;
            let unseen = self.evaluate(shows)?;
            ensure!(unseen == "", "the focus cannot be seen on {unseen}");
            if self.evaluate(&has)? == true {
                return Ok(());
            }
        }
        let at = self.evaluate("location.href + ': ' + document.body.innerText.slice(0, 1500)")?;
        bail!("Tab never comes to {selector} of {at}")
    }

    /// Gives a file to a field: the dialog that a person would use is the system's, not the page's.
    pub fn choose_file(&mut self, selector: &str, file: &Path) -> Result<()> {
        let root = self.call("DOM.getDocument", json!({}))?;
        let found =
            self.call("DOM.querySelector", json!({ "nodeId": root["root"]["nodeId"], "selector": selector }))?;
        let file = file.canonicalize()?;
        self.call("DOM.setFileInputFiles", json!({ "nodeId": found["nodeId"], "files": [file] })).map(drop)
    }

    /// Makes it seem so.
    pub fn look(&mut self, looks: Looks) -> Result<()> {
        let (width, height) = if looks.phone { (390, 844) } else { (1360, 850) };
        let scale = if looks.phone { 2 } else { 1 };
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": looks.phone });
        self.call("Emulation.setDeviceMetricsOverride", metrics)?;
        let scheme = if looks.dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }, { "name": "prefers-reduced-motion", "value": "reduce" }] });
        self.call("Emulation.setEmulatedMedia", media).map(drop)
    }

    /// A picture of the page in `.cache/screenshots`.
    pub fn screenshot(&mut self, view: &str, looks: Looks) -> Result<PathBuf> {
        let taken = self.call("Page.captureScreenshot", json!({ "format": "png" }))?;
        let data = taken["data"].as_str().context("no picture came")?;
        let file = workshop::cache("screenshots")?.join(format!("{view}-{}.png", looks.name()));
        fs::write(&file, BASE64_STANDARD.decode(data)?)?;
        Ok(file)
    }

    /// Faults of the page that axe-core calls serious or critical, each with where it is.
    pub fn faults(&mut self) -> Result<Vec<String>> {
        let axe = workshop::checkout().join(".cache/axe-core/axe.min.js");
        let axe =
            fs::read_to_string(&axe).with_context(|| format!("{} is missing: run scripts/setup", axe.display()))?;
        if self.evaluate("typeof axe")? == "undefined" {
            self.evaluate(&format!("{axe}; true"))?;
        }
        let run = "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations \
                   .filter(({ impact }) => impact === 'serious' || impact === 'critical') \
                   .map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => html.slice(0, 160) + ' ' + failureSummary).join(' | ')}`))";
        let found = self.evaluate(run)?;
        let found = found.as_array().context("axe-core gave no list")?;
        Ok(found.iter().filter_map(|fault| fault.as_str().map(str::to_owned)).collect())
    }

    /// Fails if a page complained, or fetched anything from elsewhere.
    pub fn behaved(&mut self) -> Result<String> {
        self.evaluate("0")?;
        ensure!(self.complaints.is_empty(), "the browser complained: {}", self.complaints.join("\n"));
        let elsewhere: Vec<&String> =
            self.fetched.iter().filter(|url| !url.starts_with(&format!("{}/", self.origin))).collect();
        ensure!(elsewhere.is_empty(), "it fetched {elsewhere:?}");
        ensure!(self.fetched.len() >= 5, "only {} requests were seen", self.fetched.len());
        Ok(format!("{} requests, all of them to the appliance, and no complaint", self.fetched.len()))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.home.forget_process(self.process.id());
    }
}

/// The SHA-256 of a certificate's public key, as Chromium wants it.
fn pin(certificate: &Path) -> Result<String> {
    let script = "openssl x509 -in \"$0\" -noout -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64";
    let pin = command::run(Command::new("sh").args(["-c", script]).arg(certificate))?;
    let pin = pin.trim();
    if pin.len() == 44 { Ok(pin.to_owned()) } else { Err(anyhow!("no pin came of {}: {pin}", certificate.display())) }
}
