//! The command line's client against a TLS listener on loopback.

use super::*;
use crate::{
    cli::client::Client,
    http::{
        connection::{Limits, Listener, serve},
        tls::Identity,
    },
};
use axum::{Router, http::HeaderMap, routing::get};
use bennu_rules::token::TokenId;
use serde_json::{Value, json};
use std::{path::Path, process::ExitCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

fn token() -> String {
    Bearer { id: TokenId([1, 2, 3, 4]), secret: [7; 32] }.reveal()
}

fn credentials(cacert: Option<&Path>) -> Credentials {
    Credentials { token: Some(token()), cacert: cacert.map(Path::to_owned) }
}

/// Serves what it was sent; its port and its certificate.
async fn server(directory: &Path, names: &[&str]) -> (u16, PathBuf) {
    let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
    let identity = Identity::own(directory, &names, 2026).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new().route(
        "/v1/headers",
        get(|headers: HeaderMap| async move {
            let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            axum::Json(json!({ "host": text("host"), "authorization": text("authorization") }))
        }),
    );
    let listener = Listener::Tls(listener, identity.config.clone());
    tokio::spawn(serve(listener, router, Limits::management(), CancellationToken::new(), Arc::new(|| {})));
    (port, identity.certificate)
}

async fn error(server: &str, credentials: Credentials) -> CliError {
    Client::with(server, credentials).unwrap().get::<Value>("/v1/headers").await.unwrap_err()
}

#[tokio::test]
async fn a_trusted_appliance_gets_the_token() {
    let directory = tempfile::tempdir().unwrap();
    let (port, certificate) = server(directory.path(), &["localhost", "127.0.0.1"]).await;
    let place = format!("127.0.0.1:{port}");
    let client = Client::with(&format!("https://{place}/"), credentials(Some(&certificate))).unwrap();
    let sent: Value = client.get("/v1/headers").await.unwrap();
    assert_eq!(sent, json!({ "host": place, "authorization": format!("Bearer {}", token()) }));
}

#[tokio::test]
async fn whom_nobody_trusts_is_not_sent_the_token_and_the_error_names_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let (port, _) = server(&directory.path().join("a"), &["127.0.0.1"]).await;
    let (_, other) = server(&directory.path().join("b"), &["127.0.0.1"]).await;
    let place = format!("https://127.0.0.1:{port}");
    let unknown = error(&place, credentials(None)).await;
    assert!(unknown.what.contains("signed by nobody that is trusted here"), "{unknown}");
    assert!(unknown.help.contains("tls/cert.pem") && unknown.help.contains("BENNU_CACERT"), "{unknown}");
    let wrong = error(&place, credentials(Some(&other))).await;
    assert!(wrong.help.starts_with("BENNU_CACERT names another appliance's certificate"), "{wrong}");
}

#[tokio::test]
async fn a_wrong_name_is_told_with_the_names_there_are() {
    let directory = tempfile::tempdir().unwrap();
    let (port, certificate) = server(directory.path(), &["rack1.example", "10.0.0.1"]).await;
    let error = error(&format!("https://127.0.0.1:{port}"), credentials(Some(&certificate))).await;
    assert!(error.what.contains("not for this name, but for"), "{error}");
    assert!(error.what.contains("rack1.example") && error.what.contains("10.0.0.1"), "{error}");
    assert!(error.help.contains("api.names"), "{error}");
}

#[tokio::test]
async fn who_does_not_answer_is_told_with_what_to_look_at() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refused = error(&format!("https://{closed}"), credentials(None)).await;
    assert!(refused.help.contains("api.listen"), "{refused}");
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = plain.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let (mut socket, _) = plain.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        socket
    });
    let plain = error(&format!("https://{address}"), credentials(None)).await;
    assert!(plain.what.contains("does not speak TLS"), "{plain}");
}

#[test]
fn what_is_missing_or_wrong_is_a_usage_error() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let with = |token: Option<&str>, cacert: Option<&Path>| Credentials {
        token: token.map(str::to_owned),
        cacert: cacert.map(Path::to_owned),
    };
    let token = token();
    for (server, credentials, says) in [
        ("https://rack", with(None, None), "BENNU_TOKEN"),
        ("https://rack", with(Some("bnu_half"), None), "BENNU_TOKEN"),
        ("https://rack", with(Some(&token), Some(&empty)), "empty.pem holds no certificate"),
        ("https://rack", with(Some(&token), Some(Path::new("/none.pem"))), "No such file"),
        ("https://rack/v1", with(Some(&token), None), "more in it than a host and a port"),
        ("https://a:b@rack", with(Some(&token), None), "more in it than a host and a port"),
        ("https://", with(Some(&token), None), "BENNU_SERVER"),
        ("https://a_b..c", with(Some(&token), None), "neither a name nor an address"),
    ] {
        let error = Client::with(server, credentials).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::from(2), "{server}");
        assert!(format!("{} {}", error.what, error.help).contains(says), "{server}: {error}");
        assert!(!error.to_string().contains(&token[13..]), "no error shows the secret");
    }
    assert!(Client::with("https://[::1]:8443", with(Some(&token), None)).is_ok());
}

#[test]
fn names_are_shown_as_people_write_them() {
    let presented = ["DnsName(\"rack1\")".to_owned(), "IpAddress(10.0.0.1)".to_owned()];
    assert_eq!((shown(&presented), shown(&[])), ("rack1, 10.0.0.1".to_owned(), "none".to_owned()));
}
