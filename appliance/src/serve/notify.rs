//! What systemd is told (`sd_notify(3)`): that the service is ready, that it stops, and that it is alive.

use crate::appliance::Appliance;
use std::{
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    sync::Arc,
    time::Duration,
};

/// systemd's ear, if the service was started by one that listens.
#[derive(Debug)]
pub struct Notify {
    socket: Option<UnixDatagram>,
    /// Silence of this length makes systemd end the service, and start it again.
    patience: Option<Duration>,
}

impl Notify {
    /// Connects to it. To be called before the service is confined: Landlock lets nobody call an abstract socket outside,
    /// while one that is connected stays so.
    pub fn connect() -> Self {
        let named = std::env::var_os("NOTIFY_SOCKET").map(|name| name.to_string_lossy().into_owned());
        let socket = named.and_then(|name| match to(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(%error, name, "systemd cannot be told how the service is");
                None
            }
        });
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let patience = number("WATCHDOG_USEC").filter(|_| is_ours).map(Duration::from_micros);
        Self { socket, patience }
    }

    /// Everything is served.
    pub fn ready(&self) {
        self.say("READY=1\nSTATUS=serving");
    }

    /// The service ends.
    pub fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=stopping");
    }

    fn say(&self, what: &str) {
        // Whoever does not listen any more needs not be told.
        let _ = self.socket.as_ref().map(|socket| socket.send(what.as_bytes()));
    }

    /// Says that the service is alive, for as long as its ledger can be looked at: a lock that is never given back is how
    /// a service that looks well answers nobody.
    pub async fn keep_alive(self: Arc<Self>, appliance: Arc<Appliance>) {
        let Some(patience) = self.patience.filter(|_| self.socket.is_some()) else {
            return appliance.shutdown.cancelled().await;
        };
        let mut pace = tokio::time::interval(patience / 3);
        while appliance.shutdown.run_until_cancelled(pace.tick()).await.is_some() {
            let ledger = appliance.ledger.clone();
            if tokio::task::spawn_blocking(move || ledger.live(|_, _| ())).await.is_ok() {
                self.say("WATCHDOG=1");
            }
        }
    }
}

fn to(name: &str) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match name.strip_prefix('@') {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(name)?,
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(ear: &UnixDatagram) -> String {
        ear.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 256];
        let length = ear.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn both_kinds_of_socket_are_spoken_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let ear = UnixDatagram::bind(&path).unwrap();
        Notify { socket: Some(to(path.to_str().unwrap()).unwrap()), patience: None }.ready();
        assert_eq!(heard(&ear), "READY=1\nSTATUS=serving");
        let name = format!("bennu-test-{}", std::process::id());
        let ear = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Notify { socket: Some(to(&format!("@{name}")).unwrap()), patience: None }.stopping();
        assert!(heard(&ear).starts_with("STOPPING=1"));
        assert!(to(directory.path().join("nobody").to_str().unwrap()).is_err());
    }

    #[tokio::test]
    async fn the_watchdog_hears_that_the_service_is_alive() {
        let bench = crate::http::api::tests::Bench::new();
        let directory = tempfile::tempdir().unwrap();
        let ear = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        let socket = to(directory.path().join("notify").to_str().unwrap()).unwrap();
        let notify = Arc::new(Notify { socket: Some(socket), patience: Some(Duration::from_millis(60)) });
        let living = tokio::spawn(notify.keep_alive(bench.appliance.clone()));
        let said = tokio::task::spawn_blocking(move || [heard(&ear), heard(&ear)]).await.unwrap();
        assert_eq!(said, ["WATCHDOG=1", "WATCHDOG=1"]);
        bench.appliance.shutdown.cancel();
        living.await.unwrap();
    }
}
