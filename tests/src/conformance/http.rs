//! Lines 51 to 54: boot files over HTTP.

use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

use super::{
    Places,
    tftp_client::{Packet, Tftp},
};

const LOADER: &str = "/loader/snponly.efi";

pub fn line_51_head_then_get_and_resume(places: &Places) -> Result<()> {
    let place = &places.loaders;
    let head = place.http(&format!(
        "HEAD {LOADER} HTTP/1.1\r\nHost: 10.77.0.1\r\nUser-Agent: UefiHttpBoot/1.0\r\nConnection: close\r\n\r\n"
    ))?;
    let whole = place.fetch("GET", LOADER, &["User-Agent: UefiHttpBoot/1.0"])?;
    ensure!((head.status, whole.status) == (200, 200), "{} and {}", head.status, whole.status);
    ensure!(head.body.is_empty(), "HEAD brought {} bytes", head.body.len());
    let length = whole.body.len().to_string();
    ensure!(whole.body.len() > 50_000, "{length} bytes are no loader");
    for page in [&head, &whole] {
        ensure!(
            page.header("content-length") == Some(&length),
            "{:?} for {length} bytes",
            page.header("content-length")
        );
        ensure!(page.header("transfer-encoding").is_none(), "EDK2 takes no chunks");
    }
    let tag = whole.header("etag").context("no ETag to resume by")?.to_owned();
    let rest = place.fetch("GET", LOADER, &["Range: bytes=1000-", &format!("If-Match: {tag}")])?;
    ensure!(rest.status == 206 && rest.body == whole.body[1000..], "the rest: {}", rest.status);
    let expected = format!("bytes 1000-{}/{length}", whole.body.len() - 1);
    ensure!(rest.header("content-range") == Some(&expected), "{:?}", rest.header("content-range"));
    let part = place.fetch("GET", LOADER, &["Range: bytes=10-19"])?;
    ensure!(part.status == 206 && part.body == whole.body[10..20], "a part: {}", part.status);
    let changed = place.fetch("GET", LOADER, &["Range: bytes=10-", "If-Match: \"another\""])?;
    ensure!(changed.status == 412, "a file that has changed: {}", changed.status);
    let beyond = place.fetch("GET", LOADER, &["Range: bytes=999999999-"])?;
    ensure!(beyond.status == 416, "beyond its end: {}", beyond.status);
    Ok(())
}

pub fn line_52_uefi_knows_it_for_a_program(places: &Places) -> Result<()> {
    for method in ["HEAD", "GET"] {
        let page = places.loaders.fetch(method, LOADER, &[])?;
        ensure!(page.header("content-type") == Some("application/efi"), "{:?}", page.header("content-type"));
    }
    Ok(())
}

pub fn line_53_slashes_collapse(places: &Places) -> Result<()> {
    let length = places.loaders.fetch("GET", LOADER, &[])?.body.len();
    for path in ["/loader//snponly.efi", "//loader/snponly.efi", "//loader///snponly.efi"] {
        let page = places.loaders.fetch("GET", path, &[])?;
        ensure!(
            (page.status, page.body.len()) == (200, length),
            "{path}: {} with {} bytes",
            page.status,
            page.body.len()
        );
    }
    for name in ["//snponly.efi", "\\snponly.efi", "/./snponly.efi"] {
        let mut tftp = Tftp::new(&places.loaders)?;
        let file = tftp.read(name, &[("blksize", "1400")])?;
        ensure!(file.len() == length, "{name} by TFTP: {} bytes", file.len());
    }
    Ok(())
}

pub fn line_54_what_shim_asks_for_is_refused_at_once(places: &Places) -> Result<String> {
    let mut slowest = Duration::ZERO;
    for name in ["revocations_sku.efi", "revocations_sbat.efi", "shim_certificate_0.efi"] {
        let begun = Instant::now();
        for path in [format!("/loader/{name}"), format!("/{name}")] {
            let page = places.loaders.fetch("GET", &path, &[])?;
            ensure!(page.status == 404, "{path}: {}", page.status);
        }
        let mut tftp = Tftp::new(&places.loaders)?;
        tftp.ask(name, "octet", &[("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")])?;
        let answer = tftp.hear(Duration::from_secs(1))?.context("no answer within a second")?;
        ensure!(matches!(answer, Packet::Error(1, _)), "{name} by TFTP: {answer:?}");
        slowest = slowest.max(begun.elapsed());
    }
    ensure!(slowest < Duration::from_secs(1), "three refusals took {slowest:?}");
    Ok(format!("at most {:.0} ms for two by HTTP and one by TFTP", slowest.as_secs_f64() * 1e3))
}
