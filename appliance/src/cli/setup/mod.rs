//! `bennu setup`: a first configuration by questions, on the console of the appliance's disc or in any terminal.

mod draw;
mod survey;
mod wizard;
mod written;

use super::{
    error::{CliError, Done},
    output::say,
    terminal::{Keyboard, Screen, ScreenError},
};
use crate::config::Config;
use bennu_host::setup::{DIRECTORY, DISKS, Disks, ERASE, MADE};
use clap::Args;
use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};
use survey::Survey;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::interval,
};
use wizard::{Outcome, Wizard};

/// Cables are looked at, and what was heard is shown, at this pace.
const TICK: Duration = Duration::from_secs(1);

/// Where the answers go.
#[derive(Debug, Args)]
pub struct SetupArguments {
    /// The configuration file to write; one that is there already is left alone
    #[arg(long, value_name = "FILE", default_value = crate::config::DEFAULT_PATH)]
    output: PathBuf,
    /// On this terminal, for the first process of the appliance's disc
    #[arg(long, hide = true, value_name = "DEVICE")]
    tty: Option<PathBuf>,
}

/// Runs it.
pub fn run(arguments: &SetupArguments) -> Done {
    let on_disc = arguments.tty.is_some();
    if !on_disc && arguments.output.exists() {
        let what = format!("{} is there already", arguments.output.display());
        return Err(CliError::failed(what, "change it with an editor, or name another file with --output"));
    }
    let screen = Screen::open(arguments.tty.as_deref()).map_err(|error| match error {
        ScreenError::None => CliError::usage(
            "the set-up needs a terminal that can be drawn on",
            "write the configuration with an editor instead: README.md has an example",
        ),
        error => CliError::failed(error.to_string(), ""),
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("cannot start: {error}"), ""))?;
    let answered = runtime.block_on(ask(screen, on_disc));
    runtime.shutdown_background();
    let Some(done) = answered? else { return Ok(()) };
    if on_disc {
        return hand_over(&done);
    }
    write(&arguments.output, &done.text)?;
    say(format!(
        "wrote {}; look at it, then start the service (bennu doctor tells what it lacks)",
        arguments.output.display()
    ));
    Ok(())
}

/// For init, which waits for it.
fn hand_over(done: &wizard::Done) -> Done {
    let directory = Path::new(DIRECTORY);
    if let Some(serial) = &done.erase {
        write(&directory.join(ERASE), serial)?;
    }
    write(&directory.join(MADE), &done.text)
}

/// A file is there whole or not at all.
fn write(file: &Path, text: &str) -> Done {
    let directory = file.parent().unwrap_or(Path::new("."));
    let put = || {
        std::fs::create_dir_all(directory)?;
        let mut new = tempfile::NamedTempFile::new_in(directory)?;
        new.write_all(text.as_bytes())?;
        new.as_file().sync_all()?;
        new.persist_noclobber(file).map_err(|error| error.error)
    };
    let refuse = |error: std::io::Error| CliError::failed(format!("cannot write {}: {error}", file.display()), "");
    put().map(drop).map_err(refuse)
}

fn disks() -> Option<Disks> {
    let text = std::fs::read_to_string(Path::new(DIRECTORY).join(DISKS)).ok()?;
    toml::from_str(&text).ok()
}

/// Asks until there are answers; `None`: whoever answers left.
async fn ask(mut screen: Screen, on_disc: bool) -> Done<Option<wizard::Done>> {
    let gone = |error: std::io::Error| CliError::failed(format!("the terminal is gone: {error}"), "");
    let survey = Survey::begin();
    let check = |text: &str| Config::parse(text).map(drop);
    let mut wizard = Wizard::new(survey.cards(), on_disc.then(disks).flatten(), check);
    let mut keyboard = Keyboard::open();
    let mut ended = signal(SignalKind::terminate()).map_err(gone)?;
    let mut tick = interval(TICK);
    loop {
        screen.draw(|buffer, look| draw::draw(&wizard, buffer, look)).map_err(gone)?;
        let key = tokio::select! {
            key = keyboard.next() => match key {
                Some(key) => key,
                None => return Ok(None),
            },
            _ = tick.tick() => {
                wizard.cards = survey.cards();
                continue;
            }
            _ = ended.recv() => return Ok(None),
        };
        match wizard.key(key) {
            Outcome::None => {}
            Outcome::Step | Outcome::Redraw => screen.forget().map_err(gone)?,
            Outcome::Size(rows, columns) => screen.note_size(rows, columns),
            Outcome::Leave if on_disc => {}
            Outcome::Leave => return Ok(None),
            Outcome::Done(done) => return Ok(Some(done)),
        }
    }
}
