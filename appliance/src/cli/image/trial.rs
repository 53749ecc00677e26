//! `bennu image test`

use crate::{
    cli::{
        Json,
        client::{Client, full, lines},
        error::{CliError, Done},
        output::{legible, say, say_json, seconds},
    },
    http::api::trials::{Asked, Ended, Line, MEMORY, TIMEOUT},
};
use bennu_rules::image::{ImageName, ImageReference};
use clap::Args;
use http::Method;
use std::{fs::File, io::Write, path::PathBuf, time::Instant};

/// How much of the console is shown of an image that failed.
const SHOWN: usize = 25;

/// Which image, and what it must do.
#[derive(Debug, Args)]
pub struct Test {
    /// NAME:TAG or sha256:DIGEST
    image: ImageReference,
    /// Fail when it is not up after this long
    #[arg(long, value_name = "SECONDS", default_value_t = TIMEOUT)]
    timeout: u64,
    /// The virtual machine's memory
    #[arg(long, value_name = "MIB", default_value_t = MEMORY)]
    memory: u64,
    /// Wait until its console shows this as well; for foreign images, which do not say that they are up
    #[arg(long, value_name = "TEXT")]
    expect: Option<String>,
    /// Write all that it says on its console into this file
    #[arg(long, value_name = "FILE")]
    console: Option<PathBuf>,
    /// When it passes, point this tag at exactly what was tested
    #[arg(long, value_name = "NAME:TAG")]
    promote: Option<ImageName>,
    #[command(flatten)]
    output: Json,
}

/// Tests one.
pub async fn run(client: &Client, test: Test) -> Done {
    let Test { image, timeout, memory, expect, console, promote, output } = test;
    let mut record = console.map(Record::open).transpose()?;
    let asked = Asked { image: image.clone(), timeout: Some(timeout), memory: Some(memory), expect, promote };
    let body = serde_json::to_vec(&asked).map_err(|error| CliError::failed(error.to_string(), ""))?;
    let answer = client.send(Method::POST, "/v1/tests", Some(full(body))).await?;
    let begun = Instant::now();
    let end = lines(answer.into_body(), |line: Line| match line {
        Line::Step { step } => {
            eprintln!("{:>8} s  {}", seconds(begun.elapsed().as_millis() as u64), legible(&step));
            None
        }
        Line::Console { console } => record.as_mut().and_then(|record| record.write(&console).err().map(Err)),
        Line::Ended(ended) => Some(Ok(*ended)),
        Line::Problem { problem } => Some(Err(CliError::from(problem))),
    });
    let ended = end.await.map_err(|why| {
        CliError::failed(format!("the answer broke off: {why}"), "look whether the service still runs (bennu status)")
    })??;
    if output.json {
        say_json(&ended)?;
    } else if ended.passed {
        say(told(&image, &ended));
    } else if let Some(record) = &record {
        eprintln!("the console is in {}", record.path.display());
    } else {
        let from = ended.console.len().saturating_sub(SHOWN);
        ended.console[from..].iter().for_each(|line| eprintln!("  | {}", legible(line)));
    }
    match ended.passed {
        true => Ok(()),
        false => Err(CliError::failed(format!("{image} failed its test: {}", ended.reason), ended.advice)),
    }
}

fn told(image: &ImageReference, ended: &Ended) -> String {
    let mut text = format!("{image} passed its test in {} s: {}", seconds(ended.took_ms), legible(&ended.reason));
    if let Some(name) = &ended.promoted {
        text += &format!("\n{name} is {}", ended.image);
    }
    text
}

/// The console's file.
struct Record {
    path: PathBuf,
    file: File,
}

impl Record {
    fn open(path: PathBuf) -> Done<Self> {
        match File::create(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(error) => Err(refused(&path, &error)),
        }
    }

    fn write(&mut self, line: &str) -> Done {
        writeln!(self.file, "{line}").map_err(|error| refused(&self.path, &error))
    }
}

fn refused(path: &std::path::Path, error: &std::io::Error) -> CliError {
    CliError::failed(
        format!("cannot write the console to {}: {error}", path.display()),
        "name a file that you may write",
    )
}
