//! The management plane's port and certificate.

use super::Finding;
use crate::{
    config::{CertificateFiles, Config},
    http::{
        api::{problem::parted, status::Status},
        tls::{Identity, TlsError, own_files},
    },
};
use bennu_rules::Timestamp;

const CHECK: &str = "api certificate";
/// What ends within this time is told.
const SOON_MS: u64 = 21 * 86_400_000;

/// Looks at both, in the configuration and in what the service says.
pub fn look(config: &Config, status: Option<&Status>, now: Timestamp, tell: &mut dyn FnMut(Finding)) {
    if config.api.listen.is_empty() {
        return tell(Finding::ok("api port", "off: the API is on the local socket alone"));
    }
    let listen = config.api.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    tell(match status.map(|status| &status.api) {
        None => Finding::warn("api port", format!("{listen}: the service does not answer"), "start the service"),
        Some(Some(_)) => Finding::ok("api port", format!("the API listens on {listen}")),
        Some(None) => Finding::warn(
            "api port",
            format!("the API is not on {listen}, but on the local socket only"),
            "the service's log says why (journalctl -u bennu): mend that, then restart it",
        ),
    });
    let is_own = config.api.certificate.is_none();
    let files = config.api.certificate.clone().unwrap_or_else(|| own_files(&config.state_dir.join("tls")));
    if is_own && !files.certificate.exists() && status.is_none() {
        return tell(Finding::ok(CHECK, "Bennu makes its own when it first starts"));
    }
    let remote = status.and_then(|status| status.api.as_ref());
    let trouble = remote.and_then(|remote| remote.trouble.as_deref());
    let shown = remote.map(|remote| remote.fingerprint.as_str());
    tell(judged(Identity::load(&files), &files, shown, trouble, is_own, now));
}

fn judged(
    found: Result<Identity, TlsError>,
    files: &CertificateFiles,
    shown: Option<&str>,
    trouble: Option<&str>,
    is_own: bool,
    now: Timestamp,
) -> Finding {
    let path = files.certificate.display();
    let renew = match is_own {
        true => format!("remove {}, and restart bennu: it makes another", path),
        false => "put a renewed pair in its place: the service takes it within seconds, or on SIGHUP".to_owned(),
    };
    let identity = match found {
        Ok(identity) => identity,
        Err(error) => {
            let (what, help) = parted(&error.to_string());
            let help = if help.is_empty() { renew } else { help };
            return match error {
                TlsError::Read { .. } => Finding::warn(CHECK, what, help),
                _ => Finding::fail(CHECK, what, help),
            };
        }
    };
    let fits = format!("{path} and its key belong together");
    match identity.expires {
        Some(at) if at <= now => return Finding::fail(CHECK, format!("{path} ended at {at}"), renew),
        Some(at) if at.since(now) < SOON_MS => return Finding::warn(CHECK, format!("{path} ends at {at}"), renew),
        _ => {}
    }
    if shown.is_some_and(|shown| shown != identity.fingerprint) {
        let help = "reload the service (systemctl reload bennu), then look at its log";
        return Finding::warn(CHECK, format!("the service shows another certificate than {path} holds"), help);
    }
    if let Some(trouble) = trouble {
        let help = "let the service's user read both files, in a directory of their own";
        return Finding::warn(CHECK, trouble, help);
    }
    match identity.expires {
        Some(at) => Finding::ok(CHECK, format!("{fits}, until {at}")),
        None => Finding::ok(CHECK, fits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_certificate_is_judged_by_its_end_its_key_and_what_is_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let made = |name: &str| Identity::own(&path(name), &["localhost".to_owned()], 2026).unwrap();
        let (own, other) = (made("a"), made("b"));
        let now = Timestamp(1_790_000_000_000);
        let ends = own.expires.unwrap();
        assert!(ends.since(now) > 9 * 365 * 86_400_000, "{ends}");
        let look = |files: &CertificateFiles, shown: Option<&str>, trouble: Option<&str>, now: Timestamp| {
            judged(Identity::load(files), files, shown, trouble, false, now)
        };
        let fine = look(&own.files, Some(&own.fingerprint), None, now);
        assert_eq!(fine.verdict, Verdict::Ok, "{fine:?}");
        assert!(fine.detail.contains("belong together") && fine.detail.contains(&ends.to_string()), "{fine:?}");
        let mixed = CertificateFiles { certificate: own.files.certificate.clone(), key: other.files.key.clone() };
        let missing = CertificateFiles { certificate: path("none"), key: own.files.key.clone() };
        for (finding, verdict, says) in [
            (look(&own.files, None, None, ends), Verdict::Fail, "ended at"),
            (look(&own.files, None, None, Timestamp(ends.0 - SOON_MS + 1)), Verdict::Warn, "ends at"),
            (look(&mixed, None, None, now), Verdict::Fail, "another certificate's"),
            (look(&missing, None, None, now), Verdict::Warn, "cannot read"),
            (look(&own.files, Some("00"), None, now), Verdict::Warn, "shows another certificate"),
            (look(&own.files, None, Some("it is closed"), now), Verdict::Warn, "it is closed"),
        ] {
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.detail.contains(says) && !finding.help.is_empty(), "{finding:?}");
        }
    }
}
