//! `bennu console`: the appliance on one screen. A client of the API like every other command.

mod draw;
mod host;
mod source;
mod view;

use super::{
    client::Client,
    error::{CliError, Done},
    output::say,
    terminal::{Keyboard, Screen, ScreenError},
};
use clap::Args;
use host::Host;
use source::Source;
use std::{path::PathBuf, time::Duration};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};
use view::{Action, Event, Mode, View};

/// Clocks and bars move at this pace.
const TICK: Duration = Duration::from_secs(1);
/// The appliance is asked this often where nothing is heard to have happened.
const QUIET: Duration = Duration::from_secs(5);
/// Names are looked up again after this.
const NAMES: Duration = Duration::from_secs(60);
/// After this long without a key whoever types may have plugged in a terminal just now, and sees nothing yet.
const AWAY: Duration = Duration::from_secs(30);

/// How it is shown.
#[derive(Debug, Args)]
pub struct ConsoleArguments {
    /// Print what there is as plain lines, once
    #[arg(long)]
    plain: bool,
    /// On this terminal, as the console of the machine: nothing is behind it
    #[arg(long, hide = true, value_name = "DEVICE")]
    tty: Option<PathBuf>,
}

/// Runs it.
pub async fn run(client: &Client, arguments: ConsoleArguments) -> Done {
    if arguments.plain {
        return plain(client).await;
    }
    let screen = match Screen::open(arguments.tty.as_deref()) {
        Ok(screen) => screen,
        Err(ScreenError::None) => {
            eprintln!(
                "note: this is no terminal that can be drawn on (TERM=dumb, or no terminal); plain lines instead"
            );
            return plain(client).await;
        }
        Err(error) => return Err(CliError::failed(error.to_string(), "try `bennu console --plain`")),
    };
    let host = arguments.tty.is_some().then(Host::default);
    Console::new(client, screen, host).keep().await
}

/// What the view shows, as lines.
async fn plain(client: &Client) -> Done {
    super::status::run(client, super::Json { json: false }).await?;
    let boots: Vec<_> = client.list("/v1/boots", Some(20)).await?;
    say("");
    super::boot::listing(&boots, true).print("no boots yet");
    Ok(())
}

struct Console {
    client: Client,
    screen: Screen,
    view: View,
    source: Source,
    host: Option<Host>,
    /// When the appliance has to be asked.
    due: Instant,
    names: Instant,
    key: Instant,
}

impl Console {
    fn new(client: &Client, screen: Screen, host: Option<Host>) -> Self {
        let now = Instant::now();
        let (view, source) = (View::new(host.is_some()), Source::new(client.clone()));
        Self { client: client.clone(), screen, view, source, host, due: now, names: now, key: now }
    }

    async fn keep(mut self) -> Done {
        let gone = |error: std::io::Error| CliError::failed(format!("the terminal is gone: {error}"), "");
        let (sender, mut events) = mpsc::channel(256);
        tokio::spawn(source::follow(self.client.clone(), sender));
        let mut keyboard = Keyboard::open();
        let (mut ended, mut hung_up) =
            (signal(SignalKind::terminate()).map_err(gone)?, signal(SignalKind::hangup()).map_err(gone)?);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                key = keyboard.next() => match key {
                    Some(key) => {
                        if self.key.elapsed() > AWAY {
                            self.screen.forget().map_err(gone)?;
                        }
                        self.key = Instant::now();
                        let action = self.view.key(key);
                        if self.does(action).await.map_err(gone)? {
                            return Ok(());
                        }
                    }
                    None => return Ok(()),
                },
                Some(event) = events.recv() => {
                    self.happened(event);
                    // The next tick shows it: a rack that boots tells many things a second.
                    continue;
                }
                _ = tick.tick() => self.look().await,
                _ = ended.recv() => return Ok(()),
                _ = hung_up.recv() => return Ok(()),
            }
            let view = &self.view;
            self.screen.draw(|buffer, look| draw::draw(view, buffer, look)).map_err(gone)?;
        }
    }

    fn happened(&mut self, event: Event) {
        self.view.facts.tell(event);
        self.due = self.due.min(Instant::now());
    }

    /// Asks, where it is time for that.
    async fn look(&mut self) {
        self.view.facts.now = crate::http::api::boots::now();
        if let Some(host) = &mut self.host {
            host.look(&mut self.view.facts);
        }
        if Instant::now() < self.due {
            return;
        }
        if self.names.elapsed() > NAMES {
            self.source.forget_names();
            self.names = Instant::now();
        }
        let began = Instant::now();
        self.source.look(&mut self.view.facts).await;
        if self.view.facts.token.is_some() && self.source.is_a_token_used().await {
            self.put_token_away();
        }
        if let (Mode::Timeline(_), Some(boot)) = (self.view.mode, &self.view.facts.boot) {
            let id = boot.summary.id.clone();
            self.show(&id).await;
        }
        // A long answer is not asked for all the time.
        let quiet = if self.view.facts.trouble.is_some() { TICK } else { QUIET };
        self.due = Instant::now() + quiet.max(began.elapsed() * 10);
    }

    async fn show(&mut self, id: &bennu_rules::boot::BootId) {
        match self.source.boot(id).await {
            Ok(boot) => self.view.facts.boot = Some(boot),
            Err(error) => self.view.facts.trouble = Some(error.what),
        }
    }

    fn put_token_away(&mut self) {
        self.view.facts.token = None;
        self.host.iter().for_each(Host::put_token_away);
    }

    /// Whether the view is over.
    async fn does(&mut self, action: Action) -> std::io::Result<bool> {
        match action {
            Action::None => {}
            Action::Leave => return Ok(true),
            Action::Redraw => self.screen.forget()?,
            Action::Size(rows, columns) => self.screen.note_size(rows, columns),
            Action::Look(id) => self.show(&id).await,
            Action::PutTokenAway => self.put_token_away(),
            Action::Power(what) => {
                let refused = self.host.as_ref().and_then(|host| host.power(what).err());
                if let Some(why) = refused {
                    self.happened(Event { at: self.view.facts.now, of: "console".into(), text: why });
                }
            }
        }
        Ok(false)
    }
}
