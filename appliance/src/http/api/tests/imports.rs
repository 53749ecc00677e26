//! Imports: what streams in and out, and what a broken one leaves.

use super::*;
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::{net::UnixStream, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;

fn last_line(text: &str) -> Value {
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[tokio::test]
async fn an_import_is_on_record_with_its_tag_and_in_the_index() {
    let bench = Bench::new();
    let image = bench.import("web:v1", 1).await;
    assert_eq!((&image["config"]["kind"], &image["source"]), (&"foreign".into(), &"test".into()));
    let again = bench.import("web:v1", 1).await;
    assert_eq!((&again["digest"], again["tags"][0]["history"].as_array().unwrap().len()), (&image["digest"], 1));
    let moved = bench.import("web:v1", 2).await;
    assert_eq!(moved["tags"][0]["history"].as_array().unwrap().len(), 2);
    let tagged =
        bench.write(Method::PUT, "/v1/tags/team/web:old", &format!(r#"{{"image":{}}}"#, image["digest"])).await;
    assert_eq!(tagged.json()["digest"], image["digest"]);
    let shown = bench.get("/v1/images/team/web:old").await;
    assert_eq!(shown.json()["digest"], image["digest"]);
    serde_json::from_str::<crate::http::api::images::ImageShown>(&shown.text).expect("the command line reads it");
    assert_eq!(bench.get("/v1/images").await.json()["items"].as_array().unwrap().len(), 2);
    assert!(bench.index().contains("team/web:old"));
}

#[tokio::test]
async fn a_source_that_is_no_image_leaves_the_store_as_it_was() {
    let bench = Bench::new();
    let before = (bench.blobs(), bench.index());
    let whole = foreign_tar(1);
    let truncated = whole[..whole.len() - 3000].to_vec();
    for (kind, body, says) in [
        ("foreign", b"not a tar".to_vec(), "not a tar"),
        ("foreign", truncated.clone(), "cut short"),
        ("root", truncated, ""),
        ("root", whole, "no root filesystem"),
        ("foreign", tar::Builder::new(Vec::new()).into_inner().unwrap(), "no file 'kernel'"),
        ("disk", vec![0; 1 << 20], "no root partition"),
        ("disk", b"QFI\xfb\0\0\0\x03".to_vec(), "cut within its header"),
        ("iso", vec![0; 1 << 20], "no ISO 9660 disc"),
        ("efi", b"#!/bin/sh".to_vec(), "no EFI program"),
    ] {
        let path = format!("/v1/imports?kind={kind}&name=web:v1&source=test");
        let got = bench.send(Request::post(path).body(Body::from(body)).unwrap()).await;
        let problem = last_line(&got.text)["problem"].clone();
        assert_eq!(problem["status"], 422, "{}", got.text);
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
        assert_eq!((bench.blobs(), bench.index()), before, "{kind}: {says}");
    }
    assert_eq!(std::fs::read_dir(bench.appliance.store.tmp()).unwrap().count(), 0);
    for query in ["name=W&source=x", "name=web:v1", "name=web:v1&source=x&kind=floppy", "name=web:v1&source=x&typo=1"] {
        let got = bench.send(Request::post(format!("/v1/imports?{query}")).body(Body::empty()).unwrap()).await;
        assert_eq!(got.status, StatusCode::BAD_REQUEST, "{query}");
    }
}

/// The API on a real socket, as the command line meets it.
async fn on_a_socket(bench: &Bench) -> UnixStream {
    let (client, server) = UnixStream::pair().unwrap();
    let service = hyper_util::service::TowerToHyperService::new(bench.router.clone());
    tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service));
    client
}

type Chunks = mpsc::Sender<std::io::Result<Frame<Bytes>>>;

/// Begins an import whose body is sent by hand.
async fn begin(
    bench: &Bench,
    path: &str,
) -> (Chunks, hyper::Response<hyper::body::Incoming>, tokio::task::JoinHandle<()>) {
    let (chunks, receiver) = mpsc::channel(1);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(on_a_socket(bench).await)).await.unwrap();
    let connection = tokio::spawn(async move {
        let _ = connection.await;
    });
    let body = StreamBody::new(ReceiverStream::new(receiver));
    let request = Request::post(path).header("host", "localhost").body(body).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(10), sender.send_request(request)).await;
    (chunks, answer.expect("the answer begins before the body ends").unwrap(), connection)
}

const FOREIGN: &str = "/v1/imports?kind=foreign&name=web:v1&source=test";

#[tokio::test]
async fn progress_comes_while_the_body_is_still_sent() {
    let bench = Bench::new();
    let (chunks, response, _connection) = begin(&bench, FOREIGN).await;
    let mut answer = response.into_body();
    let tar = foreign_tar(1);
    // The kernel and the header behind it: enough for the first step.
    chunks.send(Ok(Frame::data(Bytes::copy_from_slice(&tar[..6000])))).await.unwrap();
    let first = tokio::time::timeout(Duration::from_secs(10), answer.frame()).await.expect("progress comes");
    let first = first.unwrap().unwrap().into_data().unwrap();
    assert!(std::str::from_utf8(&first).unwrap().starts_with(r#"{"step":"read""#), "{first:?}");
    chunks.send(Ok(Frame::data(Bytes::copy_from_slice(&tar[6000..])))).await.unwrap();
    drop(chunks);
    let rest = answer.collect().await.unwrap().to_bytes();
    assert!(last_line(std::str::from_utf8(&rest).unwrap())["image"].is_object());
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing() {
    let bench = Bench::new();
    let before = bench.blobs();
    for sent in [5000, foreign_tar(1).len()] {
        let (chunks, response, connection) = begin(&bench, FOREIGN).await;
        chunks.send(Ok(Frame::data(Bytes::copy_from_slice(&foreign_tar(1)[..sent])))).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        connection.abort();
        drop((chunks, response));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(bench.blobs(), before, "after {sent} bytes");
    }
    assert_eq!(bench.get("/v1/images").await.json()["items"], serde_json::json!([]));
    assert_eq!(std::fs::read_dir(bench.appliance.store.tmp()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_problem_reaches_a_client_that_still_sends() {
    let bench = Bench::new();
    let (chunks, response, _connection) = begin(&bench, FOREIGN).await;
    chunks.send(Ok(Frame::data(Bytes::from(vec![b'x'; 1 << 20])))).await.unwrap();
    let mut answer = response.into_body();
    let line = tokio::time::timeout(Duration::from_secs(10), answer.frame()).await.expect("the problem comes");
    let line = line.unwrap().unwrap().into_data().unwrap();
    assert!(last_line(std::str::from_utf8(&line).unwrap())["problem"].is_object(), "{line:?}");
    // The rest is taken and thrown away.
    for _ in 0..4 {
        chunks.send(Ok(Frame::data(Bytes::from(vec![b'x'; 1 << 20])))).await.unwrap();
    }
}

#[tokio::test]
async fn a_tag_tells_its_history_and_goes_back() {
    let bench = Bench::new();
    let first = bench.import("team/web:v", 1).await["digest"].clone();
    let second = bench.import("team/web:v", 2).await["digest"].clone();
    let tag = bench.get("/v1/tags/team/web:v").await.json();
    assert_eq!((&tag["digest"], tag["history"].as_array().unwrap().len()), (&second, 2));
    let act = |body| bench.write(Method::POST, "/v1/tags/team/web:v", body);
    assert_eq!(act(r#"{"do":"rollback"}"#).await.json()["digest"], first);
    assert_eq!(bench.get("/v1/images/team/web:v").await.json()["digest"], first);
    let again = act(r#"{"do":"rollback"}"#).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    assert!(again.json()["advice"].as_str().unwrap().contains("bennu image history team/web:v"), "{}", again.text);
    assert_eq!(act(r#"{"do":"fly"}"#).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(bench.get("/v1/tags/team/web:w").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_scrub_names_what_is_damaged_and_who_needs_it() {
    let bench = Bench::new();
    let image = bench.import("web:v1", 1).await;
    bench.import("web:v2", 2).await;
    let scrub = async |query: &str| {
        let got = bench.get(&format!("/v1/scrub{query}")).await;
        got.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let whole = scrub("").await;
    assert_eq!(whole.last().unwrap()["damaged"], 0, "{whole:?}");
    let kernel: bennu_rules::image::Digest = image["config"]["kernel"]["digest"].as_str().unwrap().parse().unwrap();
    let path = bench.appliance.store.blob_path(&kernel);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[0] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let lines = scrub("").await;
    assert_eq!(lines.last().unwrap()["damaged"], 1, "{lines:?}");
    let damaged = lines.iter().find(|line| line["digest"] == kernel.to_string()).unwrap();
    assert_eq!(
        (&damaged["used_by"][0]["part"], &damaged["used_by"][0]["tags"][0]),
        (&"kernel".into(), &"web:v1".into())
    );
    assert_eq!(scrub("?image=web:v2").await.last().unwrap()["damaged"], 0);
    assert_eq!(bench.get("/v1/scrub?image=web:v3").await.status, StatusCode::NOT_FOUND);
    bench.import("web:v1", 1).await;
    assert_eq!(scrub("").await.last().unwrap()["damaged"], 0, "importing it again repairs it");
}
