//! Requests that two readers would take for different ones: each is refused with 400, and its connection ends.

use super::{Lab, quick};
use crate::http::connection::Limits;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

/// How the second of two readers would go on: to be answered in no case.
const SMUGGLED: &[u8] = b"GET /loader/snponly.efi HTTP/1.1\r\nHost: x\r\n\r\n";

fn post(headers: &[u8], body: &[u8]) -> Vec<u8> {
    [b"POST /echo HTTP/1.1\r\nHost: x\r\n", headers, b"\r\n\r\n", body].concat()
}

fn get(target: &[u8], headers: &[u8]) -> Vec<u8> {
    [b"GET ", target, b" HTTP/1.1\r\nHost: x\r\n", headers, b"\r\n"].concat()
}

fn lengths_and_encodings() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let chunk = b"5;a=\"\n\r\nhello\r\n0\r\n\r\n";
    for name in ["Transfer-Encoding", "transfer-encoding", "tRANSFER-eNCODING"] {
        for coding in [
            "chunked",
            "Chunked",
            "identity",
            "gzip, chunked",
            "chunked, chunked",
            "chunked, identity",
            "xchunked",
            "\tchunked",
            "chunked;q=1",
            "\"chunked\"",
            "chunked,",
            "",
            ",chunked",
            "chunked\r\nTransfer-Encoding: identity",
        ] {
            let encoding = format!("{name}: {coding}");
            all.push(post(encoding.as_bytes(), chunk));
            all.push(post(format!("Content-Length: 5\r\n{encoding}").as_bytes(), chunk));
            all.push(post(format!("{encoding}\r\nContent-Length: 5").as_bytes(), chunk));
        }
    }
    for length in [
        "+5",
        "-5",
        "5 5",
        "5,5",
        "5, 5",
        "5;",
        "5.0",
        "0x5",
        "5e0",
        "",
        "5\t6",
        "18446744073709551616",
        "99999999999999999999",
        "5_0",
        "five",
        "5#",
        "\"5\"",
        "(5)",
        "5/1",
        "\u{665}",
        "\u{b}5",
        "5\u{c}",
    ] {
        all.push(post(format!("Content-Length: {length}").as_bytes(), b"hello"));
        all.push(post(format!("content-length:{length}").as_bytes(), b"hello"));
    }
    for (one, other) in [("5", "5"), ("5", "6"), ("0", "5"), ("5", "0"), ("05", "5")] {
        all.push(post(format!("Content-Length: {one}\r\nContent-Length: {other}").as_bytes(), b"hello"));
        all.push(post(format!("Content-Length: {one}\r\nX: y\r\ncontent-LENGTH: {other}").as_bytes(), b"hello"));
    }
    all
}

fn lines() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        "GET / HTTP/1.1\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA: b\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n\n",
        "GET / HTTP/1.1\nHost: x\n\n",
        "\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\rHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n",
        "GET / HTTP/1.1\r\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\r\n\r\n",
        "GET / HTTP/1.1\r\n\rHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: x\r\n\r\n",
        "GET / HTTP/1.1\r\n: x\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n=\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    for blank in [" ", "\t", "  ", " \t"] {
        for header in ["Content-Length", "Transfer-Encoding", "Host", "A"] {
            all.push(post(format!("{header}{blank}: 5").as_bytes(), b"hello"));
        }
        for header in ["Content-Length: 5", "Content-Length:", "A: b", "Transfer-Encoding:"] {
            all.push(post(format!("{header}\r\n{blank}chunked").as_bytes(), b"hello"));
        }
    }
    all
}

fn controls() -> Vec<Vec<u8>> {
    let controls = (0..32).chain([127]).filter(|byte| !matches!(byte, b'\t' | b'\r' | b'\n'));
    controls
        .flat_map(|byte| {
            [
                get(&[b'/', byte], b""),
                get(b"/", &[b'A', byte, b':', b'b', b'\r', b'\n']),
                get(b"/", &[b'A', b':', b'b', byte, b'b', b'\r', b'\n']),
            ]
        })
        .collect()
}

fn targets() -> Vec<Vec<u8>> {
    let targets = [
        "http://x/loader/snponly.efi",
        "HTTP://x/",
        "https://x/",
        "http://x",
        "ftp://x/",
        "x:80",
        "x",
        "*",
        "loader/snponly.efi",
        "?a",
        "/#a",
        "/a#",
        "/a b",
        "",
        " /",
        "/ ",
        "/\t",
        "/<",
        "/a\\\"b",
        "//x\u{a0}/",
    ];
    let of_get = targets.iter().map(|target| get(target.as_bytes(), b""));
    let whole = [
        "CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.10\r\nHost: x\r\n\r\n",
        "GET / http/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
        "GET / HTTP/3.1\r\nHost: x\r\n\r\n",
        "GET /\r\nHost: x\r\n\r\n",
        "GET\r\n\r\n",
        "G(T / HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    of_get.chain(whole.map(|text| text.as_bytes().to_vec())).collect()
}

/// All that the server says before it closes.
async fn said(address: SocketAddr, request: Vec<u8>) -> (Vec<u8>, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may have closed before the last byte.
    let _ = stream.write_all(&[&request, SMUGGLED].concat()).await;
    let mut said = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut said)).await;
    let text = String::from_utf8_lossy(&said).into_owned();
    (request, if read.is_err() { format!("(left open) {text}") } else { text })
}

#[tokio::test]
async fn whatever_could_be_read_in_two_ways_is_refused_and_closed() {
    let lab = Lab::open(Limits { deadlines: quick(), ..Limits::provisioning() }).await;
    let variants: Vec<_> = [lengths_and_encodings(), lines(), controls(), targets()].concat();
    assert!(variants.len() >= 300, "{} variants", variants.len());
    let (mut wrong, mut waiting) = (Vec::new(), JoinSet::new());
    let mut check = |(request, said): (Vec<u8>, String)| {
        if !said.starts_with("HTTP/1.1 400 ") || said.matches("HTTP/1.1 ").count() != 1 {
            wrong.push(format!("{:?}: {:?}", String::from_utf8_lossy(&request), said.get(..200.min(said.len()))));
        }
    };
    for request in variants {
        if waiting.len() == 64
            && let Some(ended) = waiting.join_next().await
        {
            check(ended.unwrap());
        }
        waiting.spawn(said(lab.address, request));
    }
    waiting.join_all().await.into_iter().for_each(check);
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn what_comes_before_it_is_answered_first() {
    let lab = Lab::open(Limits { deadlines: quick(), ..Limits::provisioning() }).await;
    let good = format!("GET /blobs/sha256/{} HTTP/1.1\r\nHost: x\r\n\r\n", lab.small.hex());
    let bad = post(b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"hello");
    let (_, said) = said(lab.address, [good.as_bytes(), &bad].concat()).await;
    let statuses: Vec<&str> = said.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "400"], "{said}");
}
