//! The report, in Markdown.

use anyhow::Result;
use bennu_tests::{command, workshop};
use std::{collections::BTreeMap, fmt::Write, fs, process::Command, time::Duration};

use crate::{
    bars::{self, Verdict, short},
    contenders::{OURS, PROGRAMS},
    measure::{Samples, median},
    suites::{Run, dhcp, http, lossy, storm, tftp},
};

/// A section's title, the tests it begins with, and the figures that are shown: name and title.
type Section = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

const SECTIONS: &[Section] = &[
    (
        "DHCP",
        &[dhcp::NEW_32, dhcp::NEW_256, dhcp::KNOWN, dhcp::BURST, dhcp::START, dhcp::RESTART],
        &[
            ("per_s", "a second"),
            ("p99_ms", "p99, ms"),
            ("failed", "failed"),
            ("unanswered", "unanswered after 1 s"),
            ("cpu_us_each", "CPU each, µs"),
            ("first_offer_s", "first offer, s"),
            ("rss_mib", "resident, MiB"),
        ],
    ),
    (
        "TFTP",
        &[tftp::SMALL, tftp::LARGE, tftp::MANY, tftp::LOSSY, tftp::HALF_OPEN],
        &[
            ("mb_per_s", "MB/s"),
            ("read_p99_s", "p99 of a transfer, s"),
            ("failed", "failed"),
            ("client_timeouts", "client's timeouts"),
            ("server_cpu_s", "CPU, s"),
            ("answered", "answered"),
            ("open", "open at once"),
            ("kib_each", "memory of each, KiB"),
            ("rss_peak_mib", "resident, MiB"),
        ],
    ),
    (
        "HTTP",
        &[http::ALONE, http::EIGHT, http::SCRIPTS, http::NEW_SCRIPTS],
        &[
            ("mb_per_s", "MB/s"),
            ("cpu_s_per_gb", "CPU, s/GB"),
            ("per_s", "a second"),
            ("answer_p99_s", "p99 of an answer, s"),
            ("failed", "failed"),
            ("cpu_us_each", "CPU each, µs"),
            ("rss_peak_mib", "resident, MiB"),
        ],
    ),
    (
        "Boot storm",
        &[storm::STORM],
        &[
            ("wall_s", "wall, s"),
            ("machine_p50_s", "machine p50, s"),
            ("machine_p99_s", "machine p99, s"),
            ("dhcp_p99_s", "DHCP p99, s"),
            ("tftp_p99_s", "TFTP p99, s"),
            ("script_p99_s", "script p99, s"),
            ("kernel_p99_s", "kernel p99, s"),
            ("initrd_p99_s", "initrd p99, s"),
            ("failed", "failed machines"),
            ("dhcp_resends", "DHCP messages sent again"),
            ("tftp_timeouts", "client's TFTP timeouts"),
            ("server_cpu_s", "CPU, s"),
            ("rss_peak_mib", "resident, MiB"),
        ],
    ),
    (
        "Firmware over a bad cable",
        &[lossy::FIFTIETH, lossy::TENTH],
        &[("transfer_s", "transfer, s"), ("since_ack_s", "since the DHCP ack, s"), ("failed", "failed")],
    ),
];

/// The whole report.
pub fn written(run: &Run<'_>, took: Duration) -> Result<String> {
    let mut text = String::new();
    writeln!(text, "# Bennu beside its peers\n")?;
    writeln!(
        text,
        "Written by `make bench`{}.\n",
        if run.quick { " in a quick run: one round with smaller numbers, which judges nothing" } else { "" }
    )?;
    circumstances(&mut text, run, took)?;
    judged(&mut text, &run.samples)?;
    for (title, tests, figures) in SECTIONS {
        section(&mut text, &run.samples, title, tests, figures)?;
    }
    wrong(&mut text, &run.samples)?;
    text.push_str(NOTES);
    Ok(text)
}

fn circumstances(text: &mut String, run: &Run<'_>, took: Duration) -> Result<()> {
    let said = |program: &str, arguments: &[&str]| {
        command::run(Command::new(program).args(arguments)).map_or("unknown".to_owned(), |text| text.trim().to_owned())
    };
    let field = |file: &str, key: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.trim_start_matches(key).trim_matches(['\t', ' ', ':', '=', '"']).to_owned()
    };
    let foreign: Vec<f64> = run.samples.0.iter().filter_map(|sample| sample.figures.get("foreign_percent")).collect();
    let most = foreign.iter().copied().fold(0.0, f64::max);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let syncs = run.samples.median(dhcp::DISK, "disk", "per_s").map_or("not measured".to_owned(), short);
    writeln!(text, "| circumstance | value |\n|---|---|")?;
    writeln!(text, "| date | {} |", said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]))?;
    writeln!(text, "| machine | {cores} x {} |", field("/proc/cpuinfo", "model name"))?;
    writeln!(text, "| memory | {} |", field("/proc/meminfo", "MemTotal"))?;
    writeln!(text, "| system | {}, Linux {} |", field("/etc/os-release", "PRETTY_NAME"), said("uname", &["-r"]))?;
    writeln!(text, "| disk of the state directories | {syncs} fdatasync/s (4 KiB writes in place) |")?;
    writeln!(
        text,
        "| Bennu | {}{} |",
        said(&workshop::bennu_binary()?.display().to_string(), &["--version"]),
        commit()
    )?;
    let peers: Vec<String> = PROGRAMS.iter().map(|(name, _)| format!("{name} {}", version(name))).collect();
    writeln!(text, "| peers | {} |", peers.join(", "))?;
    writeln!(
        text,
        "| rounds | {} (thrice as many of DHCP, twice of HTTP and the storm) in {:.0} min |",
        run.rounds,
        took.as_secs_f64() / 60.0
    )?;
    let usual = median(foreign).unwrap_or(0.0);
    writeln!(text, "| other work on the machine | {usual:.0} % of its CPU in the median, {most:.0} % at most |")?;
    let source = if run.lab.group().is_some() { "a control group (v2)" } else { "/proc, in steps of 10 ms" };
    writeln!(text, "| CPU of servers from | {source} |\n")?;
    Ok(())
}

fn commit() -> String {
    let mut git = Command::new("git");
    git.arg("-C").arg(workshop::checkout()).args(["describe", "--always", "--dirty"]);
    command::run(&mut git).map_or(String::new(), |said| format!(", commit {}", said.trim()))
}

/// A package's version: that of the unpacked one, else that of the installed one.
fn version(package: &str) -> String {
    let unpacked = workshop::cache("peers").map(|peers| fs::read_to_string(peers.join(package).join("VERSION")));
    if let Ok(Ok(version)) = unpacked {
        return version.trim().to_owned();
    }
    command::run(Command::new("dpkg-query").args(["-W", "-f", "${Version}", package])).unwrap_or("unknown".to_owned())
}

fn judged(text: &mut String, samples: &Samples) -> Result<()> {
    let bars = bars::judge(samples);
    let count = |verdict| bars.iter().filter(|bar| bar.verdict == verdict).count();
    writeln!(text, "## Bars\n")?;
    writeln!(
        text,
        "{} met, {} not met, {} void, {} not measured. Medians: of ours, of theirs, and of what ours is as a multiple of \
         theirs in the same round.\n",
        count(Verdict::Met),
        count(Verdict::NotMet),
        count(Verdict::Void),
        count(Verdict::NotMeasured)
    )?;
    writeln!(text, "| bar | measured | verdict |\n|---|---|---|")?;
    for bar in bars {
        writeln!(text, "| {} | {} | {} |", bar.asked, bar.found, bar.verdict)?;
    }
    text.push('\n');
    Ok(())
}

fn section(text: &mut String, samples: &Samples, title: &str, tests: &[&str], figures: &[(&str, &str)]) -> Result<()> {
    let of = |sample: &&crate::measure::Sample| tests.iter().any(|test| sample.test.starts_with(test));
    let mut servers: Vec<&str> = Vec::new();
    let mut found: Vec<&str> = Vec::new();
    for sample in samples.0.iter().filter(of) {
        for (list, name) in [(&mut servers, &sample.server), (&mut found, &sample.test)] {
            if !list.contains(&name.as_str()) {
                list.push(name);
            }
        }
    }
    if servers.is_empty() {
        return Ok(());
    }
    servers.sort_by_key(|server| *server != OURS);
    found.sort_by_key(|test| tests.iter().position(|begins| test.starts_with(begins)));
    writeln!(text, "## {title}\n\n| test | figure | {} |", servers.join(" | "))?;
    writeln!(text, "|---|---|{}", "---|".repeat(servers.len()))?;
    for test in found {
        for (figure, name) in figures {
            let cells: Vec<String> = servers.iter().map(|server| cell(samples, test, server, figure)).collect();
            let all_nothing = cells.iter().all(|cell| cell == "-");
            let all_well = *figure == "failed" && cells.iter().all(|cell| cell == "0" || cell == "-");
            if !all_nothing && !all_well {
                writeln!(text, "| {test} | {name} | {} |", cells.join(" | "))?;
            }
        }
    }
    text.push('\n');
    Ok(())
}

/// Median, least and most, and for others the ratio of ours to it.
fn cell(samples: &Samples, test: &str, server: &str, figure: &str) -> String {
    let values = samples.values(test, server, figure);
    let (Some(least), Some(most)) = (values.iter().copied().reduce(f64::min), values.iter().copied().reduce(f64::max))
    else {
        return "-".to_owned();
    };
    let middle = median(values).unwrap_or_default();
    let spread = if least < most { format!(" [{} to {}]", short(least), short(most)) } else { String::new() };
    let ratio = samples.ratio(test, figure, OURS, server).filter(|ratio| server != OURS && ratio.is_finite());
    let ratio = ratio.map_or(String::new(), |ratio| format!(" (x{ratio:.2})"));
    format!("{}{spread}{ratio}", short(middle))
}

fn wrong(text: &mut String, samples: &Samples) -> Result<()> {
    let mut errors: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
    for sample in &samples.0 {
        for (error, count) in &sample.figures.errors {
            *errors.entry((&sample.test, &sample.server, error)).or_default() += count;
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    writeln!(text, "## What went wrong\n\n| test | server | what | times |\n|---|---|---|---|")?;
    for ((test, server, error), count) in errors {
        writeln!(text, "| {test} | {server} | {} | {count} |", error.replace(['|', '\n'], " "))?;
    }
    text.push('\n');
    Ok(())
}

const NOTES: &str = "\
## How it is measured

- Server and load are in two network namespaces of one machine, joined by a veth pair, and share its cores: the ratios
  say more than the absolute figures. Every round visits all servers in an order that rotates. A cell is the median of
  the rounds, [least to most], and in parentheses the median of what ours is as a multiple of theirs in the same round:
  they are measured within seconds of each other, and this machine may be half as fast a minute later.
- The machines' network lies behind a router and relay, so DHCP comes from a relay's address, and each simulated machine
  speaks TFTP and HTTP from an address of its own, which it has leased where the server leases any.
- Every server starts with an empty state. Bennu makes each lease durable (fdatasync) before its ACK, and each boot
  before its script; Kea and nginx never sync, dnsmasq syncs its lease file. The DHCP bars are void where the disk gives
  fewer than 1,000 fdatasync/s and they are not met.
- DHCP: DISCOVER, OFFER, REQUEST, ACK with the options of a UEFI PXE client. Nothing is sent again: what is not
  answered within 1 s (2 s for known machines) counts as unanswered.
- TFTP: blocks of 1468 bytes. Loss is simulated in the client, which ignores received packets; the peers run that test
  once, with 20 clients, and ours in every round with 100. A half-open request is never answered by its client; memory
  is what the resident set grew by, divided by the transfers that were open at once.
- HTTP: the client discards bodies in the kernel. nginx's script is a file of 1000 bytes; ours are rendered for each
  machine.
- Storm: 200 machines at once, each DHCP with iPXE's timers, 300 KB by TFTP (window 1, timer 1 s), then by HTTP a
  script, 8 MiB and 30 MiB.
- Bad cable: OVMF in QEMU, window and timers its own, over a bridge that drops frames both ways; at most three rounds.
- Resident memory is the sum over a server's processes, pages that they share counted for each.
";
