//! The host of an appliance that runs from its disc, with a first process that is made up.

use super::Bench;
use crate::door::Door;
use bennu_host::{
    door::{Answer, Disc, InSlot, Request, Running, Source, Standing},
    slots::{Release, Slot},
};
use http::{Method, StatusCode};
use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixListener,
    path::Path,
    sync::{Arc, Mutex},
};

fn new() -> Release {
    Release { version: "0.3.0".into(), built: 1_767_225_601 }
}

/// Answers at a socket, and notes what was asked.
pub(super) fn first_process(socket: &Path) -> Arc<Mutex<Vec<Request>>> {
    let listener = UnixListener::bind(socket).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            reader.read_line(&mut line).unwrap();
            let request: Request = serde_json::from_str(&line).unwrap();
            let answer = match request {
                Request::Describe => Answer::Running(Running {
                    version: "0.2.0".into(),
                    built: 1_767_225_600,
                    from: Source::Medium,
                    state_disk: Some("/dev/sda".into()),
                    slots: vec![InSlot { slot: Slot::B, release: new(), standing: Standing::Failed }],
                    failed: Some(new().version),
                    upgradable: true,
                }),
                Request::Logs => Answer::Logs {
                    kernel: "[    1.000000] Linux version 6\n".into(),
                    appliance: "init: state: on /dev/sda\ninit: wifi psk=hunter2-canary\n".into(),
                },
                Request::PowerOff => Answer::refused("it is needed", "ask later"),
                Request::Install(Disc { size, ref signature, .. }) if signature == "good" => {
                    writeln!(stream, "{}", serde_json::to_string(&Answer::Send).unwrap()).unwrap();
                    let mut disc = Vec::new();
                    reader.take(size).read_to_end(&mut disc).unwrap();
                    match disc == b"a disc" && size == 6 {
                        true => Answer::Installed { slot: Slot::A, release: new() },
                        false => Answer::refused("the disc was cut short", "send it again"),
                    }
                }
                Request::Install(_) => Answer::refused("the key has not signed these bytes", "sign them"),
                _ => Answer::Done,
            };
            noted.lock().unwrap().push(request);
            writeln!(stream, "{}", serde_json::to_string(&answer).unwrap()).unwrap();
        }
    });
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn elsewhere_the_host_is_not_ours() {
    let bench = Bench::new();
    for (method, path) in [(Method::GET, ""), (Method::POST, "/restart"), (Method::POST, "/power-off")] {
        let got = bench.write(method, &format!("/v1/appliance{path}"), "").await;
        assert_eq!(got.status, StatusCode::CONFLICT, "{}", got.text);
        assert!(got.text.contains("does not run from Bennu's own disc"), "{}", got.text);
    }
    assert!(bench.get("/v1/audit").await.json()["items"].as_array().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_the_host_is_on_record_and_done() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("init.sock");
    let asked = first_process(&socket);
    let bench = Bench::at(Door::at(&socket));
    let shown = bench.get("/v1/appliance").await.json();
    assert_eq!((&shown["version"], &shown["from"]), (&"0.2.0".into(), &"medium".into()));
    let got = bench.write(Method::POST, "/v1/appliance/restart", "").await;
    assert_eq!(got.status, StatusCode::ACCEPTED, "{}", got.text);
    assert_eq!(asked.lock().unwrap().last(), Some(&Request::Restart));
    let refused = bench.write(Method::POST, "/v1/appliance/power-off", "").await;
    assert_eq!((refused.status, refused.json()["advice"].as_str()), (StatusCode::CONFLICT, Some("ask later")));
    let log = bench.get("/v1/audit").await.json();
    let orders: Vec<&str> =
        log["items"].as_array().unwrap().iter().filter_map(|record| record["after"]["what"].as_str()).collect();
    assert!(orders.contains(&"restart") && orders.contains(&"power off"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_is_meant_for_this_host_and_elsewhere_people_are_told_what_to_remove() {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let body = |confirm: &str| serde_json::json!({"confirm": confirm, "keep_configuration": true}).to_string();
    let bench = Bench::new();
    let got = bench.write(Method::POST, "/v1/appliance/reset", &body(&name)).await;
    let place = bench.directory.path().display().to_string();
    assert_eq!(got.status, StatusCode::CONFLICT, "{}", got.text);
    assert!(got.text.contains(&place) && got.text.contains("systemctl stop bennu"), "{}", got.text);
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("init.sock");
    let asked = first_process(&socket);
    let bench = Bench::at(Door::at(&socket));
    for confirm in ["", "another", &format!("{name}x")] {
        let got = bench.write(Method::POST, "/v1/appliance/reset", &body(confirm)).await;
        assert_eq!((got.status.as_u16(), &got.json()["pointer"]), (422, &"/confirm".into()), "{}", got.text);
    }
    assert!(bench.write(Method::POST, "/v1/appliance/reset", "{}").await.status.is_client_error());
    let resets = || asked.lock().unwrap().iter().filter(|request| matches!(request, Request::Reset(_))).count();
    assert_eq!(resets(), 0);
    let got = bench.write(Method::POST, "/v1/appliance/reset", &body(&name)).await;
    assert_eq!(got.status, StatusCode::ACCEPTED, "{}", got.text);
    let wanted = bennu_host::reset::Reset { keep_configuration: true };
    assert_eq!(asked.lock().unwrap().last(), Some(&Request::Reset(wanted)));
    assert!(bench.get("/v1/audit").await.text.contains("reset, keeping the configuration"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_before_an_upgrade_which_is_refused_without() {
    use bennu_rules::backup::Reason;
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("init.sock");
    let asked = first_process(&socket);
    let bench = Bench::at(Door::at(&socket));
    let send = |more: &str| {
        let path = format!("/v1/appliance/upgrade?size=6&signature=good{more}");
        let bench = &bench;
        async move { bench.write(Method::POST, &path, "a disc").await }
    };
    let state = bench.directory.path();
    let kept = || crate::backup::kept(state);
    assert_eq!(send("&backup=false").await.status, StatusCode::OK);
    assert!(kept().is_empty());
    for _ in 0..3 {
        assert_eq!(send("").await.status, StatusCode::OK);
        assert_eq!(kept().iter().map(|kept| kept.reason).collect::<Vec<_>>(), [Reason::Upgrade], "one an occasion");
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    }
    crate::backup::check(std::fs::File::open(&kept()[0].file).unwrap()).unwrap();
    // Nothing can be written where a file stands in its way.
    std::fs::remove_dir_all(state.join("backups")).unwrap();
    std::fs::write(state.join("backups"), "").unwrap();
    let before = asked.lock().unwrap().len();
    let refused = send("").await;
    assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR, "{}", refused.text);
    assert!(refused.text.contains("--no-backup"), "{}", refused.text);
    let after: Vec<_> = asked.lock().unwrap()[before..].to_vec();
    assert!(!after.iter().any(|request| matches!(request, Request::Install(_))), "{after:?}");
    assert_eq!(send("&backup=false").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disc_goes_through_the_door_and_a_refusal_comes_back() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("init.sock");
    let _asked = first_process(&socket);
    let bench = Bench::at(Door::at(&socket));
    let send = |query: &str| {
        let path = format!("/v1/appliance/upgrade?{query}");
        let bench = &bench;
        async move { bench.write(Method::POST, &path, "a disc").await }
    };
    let installed = send("size=6&signature=good").await;
    assert_eq!(installed.status, StatusCode::OK, "{}", installed.text);
    let installed = installed.json();
    assert_eq!((&installed["slot"], &installed["standing"]), (&"a".into(), &"trial".into()));
    for (query, status, said) in [
        ("size=6&signature=bad", 409, "has not signed"),
        ("size=7&signature=good", 409, "cut short"),
        ("size=6", 400, "signature"),
    ] {
        let got = send(query).await;
        assert_eq!(got.status.as_u16(), status, "{query}: {}", got.text);
        assert!(got.text.contains(said), "{query}: {}", got.text);
    }
    let log = bench.get("/v1/audit").await.json();
    assert_eq!(log["items"].as_array().unwrap().len(), 1, "{log}");
    assert!(log["items"][0]["after"]["what"].as_str().unwrap().starts_with("try 0.3.0"), "{log}");
    let shown = bench.get("/v1/appliance").await.json();
    assert_eq!((&shown["failed"], &shown["slots"][0]["standing"]), (&"0.3.0".into(), &"failed".into()));
}
