//! The management plane's door to the network: bound while we are root, shown a certificate, and served with TLS.

use super::certificate;
use crate::{
    appliance::{Appliance, Counters, Remote},
    config::{ApiSettings, Config},
    http::{
        access,
        connection::{self, Limits, Listener},
        metered,
        tls::{self, Identity, TlsError},
    },
    interfaces::Interface,
    ports::{self, Transport},
};
use anyhow::{Result, bail};
use axum::Router;
use bennu_rules::Timestamp;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::{net::TcpListener, task::JoinSet};

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 128;

/// What the network's side of the API has, before it serves.
#[derive(Debug)]
pub struct Network {
    sockets: Vec<(SocketAddr, Socket)>,
    identity: Option<Identity>,
}

impl Network {
    /// Binds the addresses, and reads the certificate that a person named: its key may be root's alone.
    pub fn bind(settings: &ApiSettings) -> Result<Self> {
        let identity = settings.certificate.as_ref().map(Identity::load).transpose()?;
        let mut sockets = Vec::new();
        for address in &settings.listen {
            match socket(*address, settings) {
                Ok(socket) => sockets.push((*address, socket)),
                Err(error) if settings.is_chosen => bail!(refused(*address, &error)),
                // Nobody asked for it: an appliance that booted machines before goes on doing so.
                Err(error) => tracing::warn!("{}; the API is on the local socket only", refused(*address, &error)),
            }
        }
        Ok(Self { sockets, identity })
    }

    /// Who we are to our clients, by a certificate of our own unless one was named.
    pub fn identify(&mut self, config: &Config, interfaces: &[Interface], now: Timestamp) -> Result<Option<Remote>> {
        if self.sockets.is_empty() {
            return Ok(None);
        }
        let identity = match self.identity.take() {
            Some(named) => named,
            None => match own(config, interfaces, now) {
                Ok(own) => own,
                // A disk that is full at the first start keeps no machine from booting, and is mended over the socket.
                Err(error) if matches!(error, TlsError::Make { .. }) || !config.api.is_chosen => {
                    tracing::error!("{error}; until bennu is restarted the API is on the local socket only");
                    self.sockets.clear();
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            },
        };
        let remote = Remote {
            listen: self.sockets.iter().map(|(address, _)| *address).collect(),
            certificate: identity.certificate.clone(),
            fingerprint: identity.fingerprint.clone(),
            expires: identity.expires,
            trouble: None,
        };
        self.identity = Some(identity);
        Ok(Some(remote))
    }

    /// Serves `router` to whoever has a token.
    pub fn serve(self, appliance: &Arc<Appliance>, router: &Router, tasks: &mut JoinSet<Result<()>>) -> Result<()> {
        tasks.spawn(certificate::watch(appliance.clone(), self.identity.clone()));
        let Some(identity) = self.identity else { return Ok(()) };
        let router = metered::management(access::remote(router.clone(), appliance.clone()), appliance);
        for (_, socket) in self.sockets {
            socket.listen(BACKLOG)?;
            let listener = Listener::Tls(TcpListener::from_std(socket.into())?, identity.config.clone());
            let (router, shutdown, counted) = (router.clone(), appliance.shutdown.clone(), appliance.clone());
            let malformed = Arc::new(move || Counters::count(&counted.counters.api_malformed));
            tasks.spawn(async move {
                Ok(connection::serve(listener, router, Limits::management(), shutdown, malformed).await?)
            });
        }
        Ok(())
    }
}

fn own(config: &Config, interfaces: &[Interface], now: Timestamp) -> Result<Identity, TlsError> {
    let addresses = addresses(&config.api, interfaces);
    let names = tls::own_names(&config.api.names, addresses);
    // RFC 3339 begins with the year.
    let year = now.to_string().split('-').next().and_then(|year| year.parse().ok()).unwrap_or_default();
    let directory = config.state_dir.join("tls");
    let identity = Identity::own(&directory, &names, year)?;
    let lacking = identity.lacks(&config.api.names);
    if !lacking.is_empty() {
        tracing::warn!(
            "the certificate in {} is from before api.names had {}: clients that use that name refuse it. Remove that \
             directory and restart bennu, and clients will need the new certificate",
            directory.display(),
            lacking.join(", ")
        );
    }
    Ok(identity)
}

/// By which addresses clients may call us.
fn addresses(settings: &ApiSettings, interfaces: &[Interface]) -> Vec<IpAddr> {
    let listen = settings.listen.iter().map(SocketAddr::ip);
    let boot = interfaces.iter().map(|interface| IpAddr::V4(interface.address));
    let mut addresses: Vec<IpAddr> = listen.clone().chain(boot).collect();
    if listen.clone().any(|address| address.is_unspecified()) {
        addresses.extend(of_this_host());
    }
    addresses
}

/// Every address of this host that means something beyond one link.
fn of_this_host() -> Vec<IpAddr> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten().filter_map(|found| found.address);
    all.filter_map(|address| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let v6 = address.as_sockaddr_in6().map(|v6| v6.ip()).filter(|v6| !v6.is_unicast_link_local());
        v4.or(v6.map(IpAddr::V6))
    })
    .collect()
}

fn socket(address: SocketAddr, settings: &ApiSettings) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Where both families are written each has its own socket.
        let has_v4 = settings.listen.iter().any(|other| other.is_ipv4() && other.port() == address.port());
        socket.set_only_v6(has_v4)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn refused(address: SocketAddr, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "Stop that program, or write another api.listen",
        io::ErrorKind::PermissionDenied => "Ports below 1024 need root or CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "Write an address of this host (ip address), or 0.0.0.0 for all",
        _ => "Look at api.listen",
    };
    format!("the API cannot listen on {address}: {}. {advice}", ports::why(Transport::Tcp, address.port(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(state: &std::path::Path, api: &str) -> Config {
        let text = format!("state_dir = {state:?}\n[boot]\ninterface = \"lo\"\ndhcp = \"off\"\n[api]\n{api}\n");
        Config::parse(&text).unwrap()
    }

    #[test]
    fn a_port_that_is_taken_ends_the_start_only_where_it_was_asked_for() {
        let (state, taken) = (tempfile::tempdir().unwrap(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let taken = taken.local_addr().map(|address| (address, taken)).unwrap();
        let mut config = config(state.path(), &format!("listen = \"{}\"", taken.0));
        let error = Network::bind(&config.api).unwrap_err().to_string();
        assert!(error.contains(&taken.0.to_string()) && error.contains("write another api.listen"), "{error}");
        config.api.is_chosen = false;
        let mut network = Network::bind(&config.api).unwrap();
        assert_eq!(network.identify(&config, &[], Timestamp(0)).unwrap(), None);
        assert!(!state.path().join("tls").exists(), "no certificate is made for nobody");
    }

    #[test]
    fn a_certificate_that_cannot_be_made_keeps_no_machine_from_booting() {
        let (state, free) = (tempfile::tempdir().unwrap(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let address = free.local_addr().unwrap();
        drop(free);
        std::fs::write(state.path().join("tls"), "in the way").unwrap();
        let config = config(state.path(), &format!("listen = \"{address}\""));
        let mut network = Network::bind(&config.api).unwrap();
        assert_eq!(network.identify(&config, &[], Timestamp(0)).unwrap(), None);
        assert!(network.sockets.is_empty(), "the port is given back");
    }

    #[test]
    fn an_address_of_elsewhere_says_what_to_write() {
        let state = tempfile::tempdir().unwrap();
        let config = config(state.path(), "listen = \"198.51.100.1:8443\"");
        assert!(Network::bind(&config.api).unwrap_err().to_string().contains("0.0.0.0 for all"));
    }

    #[test]
    fn the_certificate_is_for_every_name_and_stays_over_restarts() {
        let (state, free) = (tempfile::tempdir().unwrap(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let port = free.local_addr().unwrap().port();
        drop(free);
        let interface = Interface {
            name: "boot0".into(),
            index: 1,
            address: "10.77.0.1".parse().unwrap(),
            network: "10.77.0.1/24".parse().unwrap(),
        };
        let config = config(state.path(), &format!("listen = \"127.0.0.1:{port}\"\nnames = [\"bennu.example\"]"));
        let start = || {
            let mut network = Network::bind(&config.api).unwrap();
            let remote = network.identify(&config, std::slice::from_ref(&interface), Timestamp(0)).unwrap().unwrap();
            (network, remote)
        };
        let (network, first) = start();
        let identity = network.identity.unwrap();
        let wanted = ["bennu.example", "10.77.0.1", "127.0.0.1", "localhost"].map(str::to_owned);
        assert!(identity.lacks(&wanted).is_empty());
        drop(network.sockets);
        assert_eq!(start().1, first);
    }

    #[test]
    fn a_key_of_another_certificate_ends_the_start() {
        let state = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            Identity::own(&state.path().join(name), &["localhost".to_owned()], 2026).unwrap();
        }
        let path = |file: &str| state.path().join(file).display().to_string();
        let text = format!("cert = {:?}\nkey = {:?}", path("a/cert.pem"), path("b/key.pem"));
        let error = Network::bind(&config(state.path(), &text).api).unwrap_err().to_string();
        assert!(error.contains("the key is another certificate's"), "{error}");
    }
}
