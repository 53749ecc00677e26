//! `bennu support`: what a colleague needs to help, as one file.

use super::{
    client::Client,
    error::{CliError, Done},
    output::{bytes, say},
};
use crate::support::check;
use clap::Args;
use http::Method;
use http_body_util::BodyExt;
use std::{
    io::{self, Seek, Write},
    path::{Path, PathBuf},
};

/// The arguments of `bennu support`.
#[derive(Debug, Args)]
#[command(
    after_help = "The file is a tar in zstd: `tar --zstd -tvf FILE` lists it, and shows what leaves before it does. It tells \
        machines, addresses, host names and what logs say. Secrets, tokens and keys are not in it."
)]
pub struct SupportArguments {
    /// The file to write
    file: PathBuf,
}

/// Written aside until it is known to be whole.
pub async fn run(client: &Client, arguments: SupportArguments) -> Done {
    let path = arguments.file;
    let answer = client.send(Method::GET, "/v1/support", None).await?;
    let mut body = answer.into_body();
    let unwritable = |error: io::Error| {
        CliError::failed(
            format!("cannot write {}: {error}", path.display()),
            "name a place with room that you may write to",
        )
    };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Its owner's alone, as tempfile makes it.
    let mut file = tempfile::Builder::new().prefix(".bennu-support-").tempfile_in(parent).map_err(unwritable)?;
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| cut(&error.to_string()))?;
        let chunk = frame.into_data().unwrap_or_default();
        file.write_all(&chunk).map_err(unwritable)?;
        size += chunk.len() as u64;
    }
    file.rewind().map_err(unwritable)?;
    let contents = check(io::BufReader::new(file.as_file())).ok_or_else(|| cut("its end is missing"))?;
    file.persist(&path).map_err(|error| unwritable(error.error))?;
    say(format!("{} tells of {} ({} parts, {})", path.display(), contents.host, contents.parts.len(), bytes(size)));
    for missing in &contents.missing {
        say(format!("not in it: {}: {}", missing.name, missing.why));
    }
    say(format!("no secrets are in it; look before you send it: tar --zstd -tvf {}", path.display()));
    Ok(())
}

fn cut(why: &str) -> CliError {
    CliError::failed(
        format!("the support bundle broke off ({why}), and nothing was kept"),
        "look at the service's log, which says why, then try again",
    )
}
