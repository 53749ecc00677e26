//! `bennu image verify`

use crate::{
    cli::{
        Json,
        client::{Client, encoded},
        error::{CliError, Done},
        meter::Meter,
        output::{bytes, say, say_json},
    },
    http::api::scrub::{Damaged, Line, Use},
};
use bennu_rules::image::ImageReference;

/// Reads all images, or one.
pub async fn run(client: &Client, image: Option<ImageReference>, output: Json) -> Done {
    let path = image.map_or("/v1/scrub".to_owned(), |image| format!("/v1/scrub?image={}", encoded(&image.to_string())));
    let meter = Meter::new();
    let mut found = Vec::new();
    let end = client.lines(&path, |line: Line| match line {
        Line::Step { done, total } => {
            meter.step("verify", done, Some(total));
            None
        }
        Line::Damaged(damaged) => {
            found.push(damaged);
            None
        }
        Line::Done { blobs, bytes, .. } => Some((blobs, bytes)),
    });
    let end = end.await;
    meter.finish();
    let (blobs, size) = end?;
    if output.json {
        say_json(&serde_json::json!({ "blobs": blobs, "bytes": size, "damaged": found }))?;
    } else {
        found.iter().for_each(|damaged| say(told(damaged)));
        say(format!("{blobs} blobs read, {}: {}", bytes(size), verdict(found.len())));
    }
    if found.is_empty() { Ok(()) } else { Err(advice(&found)) }
}

fn verdict(damaged: usize) -> String {
    match damaged {
        0 => "all are whole".to_owned(),
        1 => "one is damaged".to_owned(),
        more => format!("{more} are damaged"),
    }
}

fn told(damaged: &Damaged) -> String {
    let mut text = format!("damaged: {}: {}", damaged.digest, damaged.damage);
    for used in &damaged.used_by {
        text += &format!("\n  {} of {}", used.part, name(used));
        if !used.assigned_to.is_empty() {
            let machines: Vec<String> = used.assigned_to.iter().map(ToString::to_string).collect();
            text += &format!(", assigned to {}", machines.join(", "));
        }
    }
    text
}

fn name(used: &Use) -> String {
    let tags: Vec<String> = used.tags.iter().map(ToString::to_string).collect();
    if tags.is_empty() { used.image.to_string() } else { tags.join(", ") }
}

fn advice(found: &[Damaged]) -> CliError {
    let mut sources: Vec<&str> =
        found.iter().flat_map(|damaged| &damaged.used_by).map(|used| used.source.as_str()).collect();
    sources.sort_unstable();
    sources.dedup();
    CliError::failed(
        "the store is damaged: stage 1 refuses a damaged root, but nothing checks a kernel or an initrd on its way",
        format!(
            "import again what it was made of ({}), which repairs it where Bennu and its tools are still the same, or assign \
             another image until then; and test that disk",
            sources.join("; ")
        ),
    )
}
