//! The root and its hash tree on their way into memory, over as many connections as it takes.

use crate::console::{self, mib};
use crate::download::{Download, DownloadError};
use crate::entropy::Backoff;
use crate::report::Reports;
use crate::root;
use bennu_plan::{Blob, RootPlan, Step};
use std::path::Path;
use std::time::{Duration, Instant};

/// Tries without a byte of progress before the plan is asked for again.
const IDLE_TRIES: u32 = 20;
const REPORT_EVERY: Duration = Duration::from_secs(2);

/// What a plan wants fetched, and where it goes.
fn parts(wanted: &RootPlan) -> impl Iterator<Item = (&Blob, &'static str)> {
    let tree = wanted.verity.as_ref().map(|verity| (&verity.tree, root::TREE));
    std::iter::once((&wanted.root, root::FILE)).chain(tree)
}

/// Bytes of all that a plan wants fetched.
pub fn size(wanted: &RootPlan) -> u64 {
    parts(wanted).map(|(blob, _)| blob.size).sum()
}

/// What has come so far.
pub struct Fetch {
    downloads: Vec<Download>,
}

impl Fetch {
    /// Starts with empty files.
    pub fn start(wanted: &RootPlan) -> Result<Self, DownloadError> {
        let start = |(blob, path): (&Blob, &str)| Download::start(Path::new(path), blob.clone());
        Ok(Self { downloads: parts(wanted).map(start).collect::<Result<_, _>>()? })
    }

    /// Whether this is what is wanted, so that what is here can be used.
    pub fn is_of(&self, wanted: &RootPlan) -> bool {
        let parts: Vec<&Blob> = parts(wanted).map(|(blob, _)| blob).collect();
        parts.len() == self.downloads.len()
            && self.downloads.iter().zip(parts).all(|(download, blob)| download.is_of(blob))
    }

    /// Bytes that are here.
    pub fn have(&self) -> u64 {
        self.downloads.iter().map(Download::have).sum()
    }

    /// Fetches what is missing and checks it.
    pub fn finish(&mut self, wanted: &RootPlan, reports: &Reports) -> Result<(), DownloadError> {
        let mut progress = Progress::new(reports, size(wanted), self.have());
        progress.report(self.have());
        let mut before = 0;
        for (download, (blob, _)) in self.downloads.iter_mut().zip(parts(wanted)) {
            progress.base = before;
            finish(download, &blob.url, &mut progress)?;
            before += blob.size;
        }
        progress.done();
        Ok(())
    }
}

fn finish(download: &mut Download, url: &str, progress: &mut Progress<'_>) -> Result<(), DownloadError> {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(8));
    let mut idle = 0;
    loop {
        let before = download.have();
        let Err(error) = download.attempt(url, &mut |have| progress.at(have)) else { return Ok(()) };
        if download.have() > before {
            idle = 0;
            backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(8));
        }
        idle += 1;
        if !error.is_transient() || idle > IDLE_TRIES {
            return Err(error);
        }
        let wait = backoff.step();
        let at = progress.base + download.have();
        let text = format!("the download stopped at {} of {}: {error}", mib(at), mib(progress.size));
        console::say(&format!("{text}; going on in {:.0} s (try {idle})", wait.as_secs_f64().max(1.0)));
        progress.reports.progress(Step::Downloading, text, at);
        std::thread::sleep(wait);
    }
}

/// Progress of the downloads, on the consoles and to the appliance.
struct Progress<'a> {
    reports: &'a Reports,
    size: u64,
    first: u64,
    /// Bytes of the parts before this one.
    base: u64,
    started: Instant,
    reported: Instant,
}

impl<'a> Progress<'a> {
    fn new(reports: &'a Reports, size: u64, first: u64) -> Self {
        Self { reports, size, first, base: 0, started: Instant::now(), reported: Instant::now() }
    }

    fn at(&mut self, have: u64) {
        let have = self.base + have;
        console::progress(&self.line(have));
        if self.reported.elapsed() >= REPORT_EVERY {
            self.report(have);
        }
    }

    fn report(&mut self, have: u64) {
        self.reported = Instant::now();
        self.reports.progress(Step::Downloading, format!("{} of {}", mib(have), mib(self.size)), have);
    }

    fn done(&mut self) {
        let seconds = self.started.elapsed().as_secs_f64();
        console::say(&format!("root fetched: {} in {seconds:.1} s", mib(self.size)));
        self.report(self.size);
    }

    fn line(&self, have: u64) -> String {
        let percent = have * 100 / self.size.max(1);
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        let rate = (have.saturating_sub(self.first)) as f64 / seconds;
        let left = self.size.saturating_sub(have) as f64 / rate.max(1.0);
        format!("root {percent:3} %, {} of {}, {}/s, {left:.0} s left", mib(have), mib(self.size), mib(rate as u64))
    }
}
