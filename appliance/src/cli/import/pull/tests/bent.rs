//! Registries that lie, break, hang, and lead in circles.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

fn layer_path(image: &Image) -> String {
    format!("/v2/web/blobs/{}", digest_of(&image.layer))
}

/// Replies to requests for the layer by their number.
async fn layer_replies(image: &Image, reply: impl Fn(usize, &[u8]) -> Reply + Send + Sync + 'static) -> Script {
    let (path, layer, count) = (layer_path(image), image.layer.clone(), AtomicUsize::new(0));
    registry(image, move |asked| {
        asked.path.starts_with(&path).then(|| reply(count.fetch_add(1, Ordering::Relaxed), &layer))
    })
    .await
}

#[tokio::test]
async fn a_damaged_blob_breaks_the_body_off() {
    let image = Image::new("amd64", 5000);
    let server = layer_replies(&image, |_, layer| {
        let mut damaged = layer.to_vec();
        damaged[4000] ^= 1;
        Reply::ok(&damaged)
    })
    .await;
    let error = pull(&server.image(":v1")).await.unwrap_err();
    assert!(error.what.contains("is damaged"), "{error}");
    let (pulled, _) = look_at(&server.image(":v1"), &Options::default(), &[]).await.unwrap();
    let (sender, body) = crate::cli::import::sender::from_task(|out| pulled.send(out));
    assert!(http_body_util::BodyExt::collect(body).await.is_err(), "such a body has no end, and so is none");
    assert!(sender.failure().await.unwrap().what.contains("is damaged"));
}

#[tokio::test]
async fn manifests_are_held_to_their_digests() {
    let image = Image::new("amd64", 10);
    let digest = image.digest();
    let other = Image::new("amd64", 20).manifest;
    let server = registry(&image, move |asked| match asked.path.strip_prefix("/v2/web/manifests/") {
        Some("v2") => Some(Reply::ok(&other).with("Docker-Content-Digest", &digest)),
        Some(version) if version == digest => Some(Reply::ok(&other)),
        _ => None,
    })
    .await;
    for version in [format!("@{}", image.digest()), ":v2".to_owned()] {
        let error = pull(&server.image(&version)).await.unwrap_err();
        assert!(error.what.contains(&format!("should be {}", image.digest())), "{error}");
    }
}

#[tokio::test]
async fn a_manifest_of_an_index_is_held_to_its_size_and_digest() {
    let image = Image::new("amd64", 10);
    for (key, value, says) in [
        ("size", json!(7), "has another size"),
        ("digest", json!(digest_of(b"x")), "is not there"),
        ("mediaType", json!(OCI_INDEX), "came as"),
    ] {
        let mut descriptor = image.descriptor("amd64");
        descriptor[key] = value;
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor]}).to_string();
        let v1 = "/v2/web/manifests/v1";
        let server = registry(&image, move |asked| (asked.path == v1).then(|| Reply::ok(index.as_bytes()))).await;
        let error = pull(&server.image(":v1")).await.unwrap_err();
        assert!(error.what.contains(says), "{error}");
    }
}

#[tokio::test]
async fn sizes_must_be_those_of_the_descriptors() {
    let image = Image::new("amd64", 5000);
    for (size, chunked, says) in
        [(4999, false, "more"), (4999, true, "more"), (5001, false, "fewer"), (5001, true, "fewer")]
    {
        let lying = image.clone().changed(|manifest| manifest["layers"][0]["size"] = json!(size));
        let server = layer_replies(
            &lying,
            move |_, layer| {
                if chunked { Reply::ok(layer).without_length() } else { Reply::ok(layer) }
            },
        )
        .await;
        let error = pull(&server.image(":v1")).await.unwrap_err();
        assert!(error.what.contains(&format!("has {says} bytes than the {size}")), "{error}");
        assert_eq!(server.asked(&layer_path(&image)).len(), 1, "asking again would change nothing");
    }
    let endless = image.clone().changed(|manifest| manifest["layers"][0]["size"] = json!(u64::MAX));
    let server = registry(&endless, |_| None).await;
    assert!(pull(&server.image(":v1")).await.unwrap_err().what.contains("sizes that no disk has"));
    let twice = image.changed(|manifest| {
        let mut second = manifest["layers"][0].clone();
        second["size"] = json!(1);
        manifest["layers"].as_array_mut().unwrap().push(second);
    });
    let server = registry(&twice, |_| None).await;
    assert!(pull(&server.image(":v1")).await.unwrap_err().what.contains("5000 bytes and 1 at once"));
}

#[tokio::test]
async fn a_broken_connection_is_taken_up_where_it_broke() {
    let image = Image::new("amd64", 300_000);
    let path = layer_path(&image);
    let (layer, at) = (image.layer.clone(), path.clone());
    let server = registry(&image, move |asked| {
        let range = asked.header("range").map(|range| range.strip_prefix("bytes=").unwrap().trim_end_matches('-'));
        (asked.path == at).then(|| match range.map(|from| from.parse::<usize>().unwrap()) {
            None => Reply::ok(&layer).cut(100_000),
            Some(from) => {
                let reply = Reply::ok(&layer[from..]).partial(from, layer.len());
                if from < 200_000 { reply.cut(100_000) } else { reply }
            }
        })
    })
    .await;
    let files = pull(&server.image(":v1")).await.unwrap();
    assert_eq!(files[&format!("blobs/sha256/{}", hex(&digest_of(&image.layer)))], image.layer);
    let ranges: Vec<_> = server.asked(&path).iter().map(|asked| asked.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, Some("bytes=100000-".to_owned()), Some("bytes=200000-".to_owned())]);
}

#[tokio::test]
async fn a_registry_without_ranges_is_read_from_the_start_again() {
    let image = Image::new("amd64", 300_000);
    let server = layer_replies(&image, |count, layer| match count {
        0 => Reply::ok(layer).cut(150_000),
        1 => Reply::ok(layer).cut(50_000),
        _ => Reply::ok(layer).without_length(),
    })
    .await;
    let files = pull(&server.image(":v1")).await.unwrap();
    assert_eq!(files[&format!("blobs/sha256/{}", hex(&digest_of(&image.layer)))], image.layer);
}

#[tokio::test]
async fn what_breaks_again_and_again_is_given_up() {
    let image = Image::new("amd64", 3000);
    let server = layer_replies(&image, |_, layer| Reply::ok(layer).cut(1000)).await;
    let error = pull(&server.image(":v1")).await.unwrap_err();
    assert!(error.what.contains("at byte 1000 of 3000, after 3 more attempts"), "{error}");
    assert_eq!(server.asked(&layer_path(&image)).len(), 4);
    let wrong = layer_replies(&image, |count, layer| match count {
        0 => Reply::ok(layer).cut(1000),
        _ => Reply::ok(&layer[900..]).partial(900, 3000),
    })
    .await;
    let error = pull(&wrong.image(":v1")).await.unwrap_err();
    assert!(error.what.contains("gave 'bytes 900-2999/3000'"), "{error}");
}

#[tokio::test]
async fn silence_has_an_end() {
    let (connect, silence) = (Duration::from_millis(600), Duration::from_millis(500));
    let hurried = async |image: &str| {
        let reference = Reference::parse(image.strip_prefix("docker:").unwrap()).unwrap();
        let patience = Patience { connect, silence, ..patience() };
        sent(look(&reference, &Options::default(), |_| None, patience).await?).await
    };
    let image = Image::new("amd64", 3000);
    let begins = layer_replies(&image, |_, layer| Reply::ok(layer).cut(500).hanging()).await;
    let error = hurried(&begins.image(":v1")).await.unwrap_err();
    assert!(error.what.contains("nothing came for 0.5 s (at byte 500 of 3000"), "{error}");
    let config = format!("/v2/web/blobs/{}", digest_of(&image.config));
    let says_nothing = registry(&image, move |asked| (asked.path == config).then(Reply::mute)).await;
    let error = hurried(&says_nothing.image(":v1")).await.unwrap_err();
    assert!(error.what.contains("nothing came for 0.5 s"), "{error}");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let error = hurried(&format!("docker://{address}/web:v1")).await.unwrap_err();
    assert!(error.what.contains("nobody answered for 0.6 s"), "{error}");
}

#[tokio::test]
async fn a_manifest_has_at_most_four_mebibytes() {
    let image = Image::new("amd64", 10);
    let server = registry(&image, |asked| match asked.path.as_str() {
        "/v2/web/manifests/v1" => Some(Reply::ok(&vec![b' '; (4 << 20) + 1])),
        "/v2/web/manifests/v2" => Some(Reply::ok(&vec![b' '; 5 << 20]).without_length()),
        _ => None,
    })
    .await;
    for version in [":v1", ":v2"] {
        let error = pull(&server.image(version)).await.unwrap_err();
        assert!(error.what.contains("more than the 4194304 bytes"), "{error}");
    }
}

#[tokio::test]
async fn redirects_have_an_end() {
    let image = Image::new("amd64", 10);
    let server =
        layer_replies(&image, |count, _| Reply::to("307 Temporary Redirect", &format!("?again={count}"))).await;
    let error = pull(&server.image(":v1")).await.unwrap_err();
    assert!(error.what.contains("more than 5 times"), "{error}");
    assert_eq!(server.asked(&layer_path(&image)).len(), 6);
    for location in ["http://192.0.2.1/blob", "ftp://127.0.0.1/", "http://"] {
        let server = layer_replies(&image, move |_, _| Reply::to("302 Found", location)).await;
        let error = pull(&server.image(":v1")).await.unwrap_err();
        assert!(error.what.contains("leads to"), "{error}");
    }
}

#[tokio::test]
async fn what_a_registry_says_of_its_errors_is_told() {
    let image = Image::new("amd64", 10);
    let server = registry(&image, |asked| match asked.path.as_str() {
        "/v2/web/manifests/v1" => {
            let body = r#"{"errors":[{"code":"UNKNOWN","message":"the disk\nis full"}]}"#;
            Some(Reply::status("500 Internal Server Error").says(body))
        }
        _ => None,
    })
    .await;
    let error = pull(&server.image(":v1")).await.unwrap_err();
    assert!(error.what.ends_with("answered 500 Internal Server Error (the disk is full)"), "{error}");
    let none = Script::new(|_| Reply::status("404 Not Found")).await;
    assert!(pull(&none.image(":v1")).await.unwrap_err().what.contains("no registry"));
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(pull(&format!("docker://{gone}/web")).await.unwrap_err().what.contains("refused"));
}
