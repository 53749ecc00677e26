//! The network cards of this host, and who answers DHCP on their wires.

use super::wizard::{Card, Heard};
use crate::{
    interfaces,
    wire::{self, Ear},
};
use bennu_rules::dhcp::others::{Appliance, Looks};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// A cable may be plugged in while somebody answers.
const PACE: Duration = Duration::from_secs(1);
/// A switch passes nothing on in its first moments.
const AGAIN: Duration = Duration::from_secs(15);

type Answered = Arc<Mutex<BTreeMap<String, Vec<Heard>>>>;

/// What is found while questions are answered.
pub struct Survey {
    names: Vec<String>,
    answered: Answered,
}

impl Survey {
    /// Asks on every wire from now on.
    pub fn begin() -> Self {
        let mut names = interfaces::names();
        names.retain(|name| wire::Card::of(name).is_some());
        let answered = Answered::default();
        for name in &names {
            tokio::spawn(look(name.clone(), Arc::clone(&answered)));
        }
        Self { names, answered }
    }

    /// The cards as they are now.
    pub fn cards(&self) -> Vec<Card> {
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let card = |name: &String| Card {
            link: has_link(name),
            heard: answered.get(name).cloned(),
            mac: read(name, "address"),
            driver: driver(name),
            name: name.clone(),
        };
        self.names.iter().map(card).collect()
    }
}

/// Asks whenever there is a link; what cannot be asked (without being root) stays unknown.
async fn look(name: String, answered: Answered) {
    loop {
        if !has_link(&name) {
            answered.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            tokio::time::sleep(PACE).await;
            continue;
        }
        let Ok(Some(ear)) = Ear::open(&name) else { return };
        if let Ok(others) = ear.look(Looks::Only).await {
            let heard = others.iter().map(|other| Heard {
                server: other.heard.server,
                is_bennu: other.heard.appliance.is_some(),
                gives_addresses: matches!(other.heard.appliance, None | Some(Appliance::Full)),
            });
            answered.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), heard.collect());
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn has_link(name: &str) -> bool {
    interfaces::link(name) == Some(true)
}

fn read(name: &str, file: &str) -> String {
    let path = Path::new("/sys/class/net").join(name).join(file);
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn driver(name: &str) -> String {
    let link = std::fs::read_link(Path::new("/sys/class/net").join(name).join("device/driver"));
    link.ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned())).unwrap_or_default()
}
