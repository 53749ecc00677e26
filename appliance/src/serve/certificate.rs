//! The API's certificate while the service runs: its files are looked at again when they change, and on SIGHUP.

use crate::{
    appliance::Appliance,
    http::tls::{Identity, TlsError},
};
use anyhow::Result;
use std::{fs, os::unix::fs::MetadataExt, path::Path, sync::Arc, time::Duration};
use tokio::signal::unix::{SignalKind, signal};

/// The files are looked at this often.
const PACE: Duration = Duration::from_secs(5);

/// Takes renewed certificates until the appliance shuts down.
pub async fn watch(appliance: Arc<Appliance>, identity: Option<Identity>) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut watched = identity.map(Watched::new);
    if let Some(Err(error)) = watched.as_ref().map(|watched| watched.identity.read_again()) {
        let trouble = format!("a renewed certificate needs a restart of bennu: as it runs now, it {error}");
        tracing::info!("{trouble}");
        appliance.certificate_is(|remote| remote.trouble = Some(trouble));
    }
    loop {
        let is_asked = tokio::select! {
            () = appliance.shutdown.cancelled() => return Ok(()),
            asked = hangup.recv() => match asked {
                Some(()) => true,
                None => std::future::pending().await,
            },
            () = tokio::time::sleep(PACE) => false,
        };
        match watched.as_mut().map(|watched| (watched.look(is_asked), &watched.identity)) {
            Some((Some(Ok(fresh)), _)) => {
                tracing::info!(certificate = %fresh.certificate.display(), sha256 = fresh.fingerprint, "the API shows the certificate that its files hold now");
                appliance.certificate_is(|remote| {
                    (remote.fingerprint, remote.expires, remote.trouble) = (fresh.fingerprint, fresh.expires, None);
                });
            }
            Some((Some(Err(error)), _)) => {
                tracing::error!("{error}; the API goes on with the certificate that it has");
                appliance.certificate_is(|remote| remote.trouble = Some(error.to_string()));
            }
            Some((None, _)) => {}
            None if is_asked => tracing::info!("SIGHUP: the API shows no certificate that could be read again"),
            None => {}
        }
    }
}

/// What tells that a file was written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self { inode: found.ino(), size: found.size(), modified: (found.mtime(), found.mtime_nsec()) })
    }
}

/// A certificate, and how its files were when they were looked at last.
struct Watched {
    identity: Identity,
    stamps: [Option<Stamp>; 2],
    misses: u32,
}

impl Watched {
    fn new(identity: Identity) -> Self {
        Self { stamps: Self::stamps(&identity), identity, misses: 0 }
    }

    fn stamps(identity: &Identity) -> [Option<Stamp>; 2] {
        [Stamp::of(&identity.files.certificate), Stamp::of(&identity.files.key)]
    }

    /// Takes what the files hold, if they changed or somebody asks; an error is told once. Certificate and key are written
    /// one after the other, so that a pair which does not match is looked at twice before it is an error.
    fn look(&mut self, is_asked: bool) -> Option<Result<Identity, TlsError>> {
        let stamps = Self::stamps(&self.identity);
        if !is_asked && stamps == self.stamps && self.misses == 0 {
            return None;
        }
        self.stamps = stamps;
        match self.identity.read_again() {
            Ok(fresh) => {
                self.misses = 0;
                self.identity.show(&fresh);
                Some(Ok(fresh))
            }
            Err(error) => {
                self.misses = self.misses.saturating_add(1);
                (is_asked || self.misses == 2).then_some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CertificateFiles;

    #[test]
    fn a_renewed_pair_is_taken_and_one_that_does_not_match_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let made = |name: &str| Identity::own(&path(name), &["localhost".to_owned()], 2026).unwrap();
        let (first, second) = (made("a"), made("b"));
        let files = CertificateFiles { certificate: path("cert.pem"), key: path("key.pem") };
        let put = |from: &Path, to: &Path| {
            fs::copy(from, path("new")).unwrap();
            fs::rename(path("new"), to).unwrap();
        };
        put(&first.files.certificate, &files.certificate);
        put(&first.files.key, &files.key);
        let identity = Identity::load(&files).unwrap();
        let shown = |watched: &Watched| watched.identity.fingerprint_now();
        let mut watched = Watched::new(identity);
        assert!(watched.look(false).is_none(), "nothing changed");
        assert!(watched.look(true).unwrap().is_ok(), "somebody asks");

        put(&second.files.certificate, &files.certificate);
        assert!(watched.look(false).is_none(), "its key may be on the way");
        let error = watched.look(false).unwrap().unwrap_err().to_string();
        assert!(error.contains("the key is another certificate's"), "{error}");
        assert!(watched.look(false).is_none(), "it is told once");
        assert!(watched.look(true).unwrap().is_err(), "and to whoever asks");
        assert_eq!(shown(&watched), first.fingerprint);
        fs::remove_file(&files.key).unwrap();
        assert!(watched.look(true).unwrap().unwrap_err().to_string().contains("cannot read"));
        assert_eq!(shown(&watched), first.fingerprint);

        put(&second.files.key, &files.key);
        let fresh = watched.look(false).unwrap().unwrap();
        assert_eq!((fresh.fingerprint, shown(&watched)), (second.fingerprint.clone(), second.fingerprint));
        assert!(watched.look(false).is_none());
    }
}
