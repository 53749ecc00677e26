//! The host of an appliance that runs from its disc, with a first process that is made up.

use super::Bench;
use crate::door::Door;
use bennu_host::door::{Answer, Request, Running, Source};
use http::{Method, StatusCode};
use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixListener,
    path::Path,
    sync::{Arc, Mutex},
};

/// Answers at a socket, and notes what was asked.
fn first_process(socket: &Path) -> Arc<Mutex<Vec<Request>>> {
    let listener = UnixListener::bind(socket).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            let request: Request = serde_json::from_str(&line).unwrap();
            let answer = match request {
                Request::Describe => Answer::Running(Running {
                    version: "0.2.0".into(),
                    built: 1_767_225_600,
                    from: Source::Medium,
                    state_disk: Some("/dev/sda".into()),
                }),
                Request::PowerOff => Answer::refused("it is needed", "ask later"),
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
