//! What machines say of themselves is hostile: whatever it is, it is text on a page.

use super::*;
use crate::logs::{Kept, Said, Which};
use bennu_plan::{Disk, Inventory, Nic, Step};
use bennu_rules::{
    Change, Decision, MacAddress, Machine, Moment, Timestamp, View,
    boot::BootId,
    facts::Facts,
    journey::Seen,
    lease::{Lease, LeaseKey},
    syslog::{Message, Severity},
};
use std::sync::Arc;

/// Ways out of text and out of attributes, and what shows that one was taken.
const WAYS_OUT: [&str; 4] = [
    "<img src=x onerror=alert(1)>",
    "\"><svg onload=alert(1)>",
    "'><script>alert(1)</script>",
    "</title></textarea>-->]]><b>{{7*7}}",
];

fn machine(hostile: &str) -> Machine {
    let text = || Some(hostile.to_owned());
    let inventory = Inventory {
        manufacturer: hostile.into(),
        cpu_model: hostile.into(),
        disks: vec![Disk { name: hostile.into(), model: hostile.into(), serial: hostile.into(), ..Disk::default() }],
        nics: vec![Nic { name: hostile.into(), mac: hostile.into(), driver: hostile.into(), ..Nic::default() }],
        ..Inventory::default()
    };
    let facts = Facts {
        uuid: text(),
        serial: text(),
        manufacturer: text(),
        product: text(),
        asset: text(),
        inventory: Some(inventory),
        ..Facts::default()
    };
    let labels = [("rack".to_owned(), hostile.to_owned()), (hostile.to_owned(), hostile.to_owned())];
    Machine {
        facts,
        labels: labels.into(),
        arguments: hostile.into(),
        ..Machine::new(MAC.parse().unwrap(), Timestamp(1))
    }
}

fn lease(hostile: &str) -> Lease {
    let mac: MacAddress = MAC.parse().unwrap();
    Lease {
        key: LeaseKey { subnet: "10.77.0.0/24".parse().unwrap(), mac },
        address: "10.77.0.60".parse().unwrap(),
        granted: Timestamp(1),
        expires: Timestamp(u64::MAX / 2),
        hostname: Some(hostile.to_owned()),
        declined: false,
    }
}

fn put(changes: &Arc<[Change]>, _: &View<'_>, _: &Moment) -> Decision<()> {
    Decision { changes: changes.to_vec(), ..Decision::just(()) }
}

#[tokio::test]
async fn hostile_names_are_text_on_every_page() {
    for hostile in WAYS_OUT {
        let far = Far::new();
        let records: Arc<[Change]> = [Change::PutMachine(machine(hostile)), Change::PutLease(lease(hostile))].into();
        far.bench.record(records, put).await;
        let seen = vec![
            Seen::DhcpDiscover { asker: hostile.into(), arch: Some(7) },
            Seen::LoaderRead {
                by: "tftp".into(),
                file: hostile.into(),
                bytes: 1,
                complete: false,
                detail: hostile.into(),
                took_ms: 1,
            },
            Seen::Reported { step: Step::Failed, message: hostile.into(), progress: 0 },
        ];
        let boot = far.bench.boot(MAC, seen).await.id;
        speaks(&far, &boot, hostile).await;
        let browser = far.browser("admin").await;
        let machine = format!("/ui/machines/{MAC}");
        let log = format!("/ui/boots/{boot}/logs");
        for path in [
            "/",
            "/?q=%22%3E%3Csvg+onload%3Dalert(1)%3E",
            "/?group=rack",
            &machine,
            &log,
            "/ui/leases",
            "/ui/images",
            "/ui/events",
            "/ui/audit",
        ] {
            let got = far.open(&browser, path).await;
            assert_eq!(got.status, 200, "{path}: {}", got.text);
            check(path, &got, hostile);
        }
        for path in [
            format!("/ui/machines/{}", "%3Cimg%20src=x%3E"),
            format!("{machine}?boot=%3Cimg%20src=x%3E"),
            format!("{log}?severity=%3Cimg%20src=x%3E"),
            "/ui/boots/%3Cimg%20src=x%3E/logs".into(),
            "/ui/%3Cb%3E".into(),
        ] {
            let got = far.open(&browser, &path).await;
            assert!(got.status.is_client_error(), "{path}");
            assert!(!got.text.contains("<img") || got.header("content-type").contains("json"), "{path}: {}", got.text);
        }
    }
}

/// The machine's program and what it says, on their way through syslog.
async fn speaks(far: &Far, boot: &BootId, hostile: &str) {
    let message = Message { severity: Severity::Error, program: hostile.into(), text: hostile.into() };
    let line = Kept::new(Timestamp(1), None, message);
    let machine: MacAddress = MAC.parse().unwrap();
    assert!(far.bench.appliance.logs.keep(Said { machine, boot: boot.clone(), line }));
    let which = Which { count: 1, ..Which::default() };
    while far.bench.appliance.logs.read(machine, boot, &which).unwrap().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_log_of_a_boot_is_shown_by_severity_to_who_may_read() {
    let far = Far::new();
    far.bench.write(Method::PATCH, &format!("/v1/machines/{MAC}"), "{}").await;
    let boot = far.bench.boot(MAC, vec![]).await.id;
    speaks(&far, &boot, "no entry").await;
    let browser = far.browser("read").await;
    let machine = far.open(&browser, &format!("/ui/machines/{MAC}")).await;
    let path = format!("/ui/boots/{boot}/logs");
    assert!(machine.text.contains(&format!("href=\"{path}\"")), "{}", machine.text);
    let all = far.open(&browser, &path).await;
    assert!(all.text.contains("<li class=\"s-error\">") && all.text.contains("data-last=\"1-0\""), "{}", all.text);
    assert!(all.text.contains(">no entry</bdi>") && all.text.contains("<span class=\"unproven\">"), "{}", all.text);
    let errors = far.open(&browser, &format!("{path}?severity=error")).await;
    assert!(errors.text.contains(">no entry</bdi>") && errors.text.contains("value=\"error\" selected"));
    let worse = far.open(&browser, &format!("{path}?severity=critical")).await;
    assert!(!worse.text.contains(">no entry</bdi>") && worse.text.contains("Nothing of that kind"), "{}", worse.text);
    assert_eq!(far.send("GET", &path, &[], "").await.status, 303, "a stranger is asked to log in");
}

/// That a page is only what its templates wrote, and fetches nothing from elsewhere.
fn check(path: &str, got: &Got, hostile: &str) {
    let text = &got.text;
    assert!(!text.contains(hostile), "{path} has it as it is: {hostile}");
    for broken in ["<img", "<svg onload", "<script>", "</textarea>", "<b>{{", "\"><svg o"] {
        assert!(!text.contains(broken), "{path} has {broken} out of {hostile}");
    }
    for (at, _) in text.match_indices("<script") {
        assert!(text[at..].starts_with("<script src=\"/ui/assets/"), "{path}: a script of its own");
    }
    for inline in ["<style", " style=", "javascript:"] {
        assert!(!text.contains(inline), "{path} has {inline}");
    }
    for link in
        text.split(" href=\"").skip(1).chain(text.split(" src=\"").skip(1)).chain(text.split(" action=\"").skip(1))
    {
        let target = link.split('"').next().unwrap();
        let own = target.starts_with('/') && !target.starts_with("//") || target.starts_with('#');
        assert!(own, "{path} leads to {target}");
    }
    let policy = got.header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'") && !policy.contains("unsafe")
    );
    assert_eq!((got.header("x-content-type-options"), got.header("referrer-policy")), ("nosniff", "same-origin"));
}
