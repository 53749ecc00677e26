//! `[signatures]`, as written and as used.

use bennu_images::cosign::TrustedKey;
use bennu_rules::signature::SignaturePolicy;
use serde::Deserialize;
use std::path::PathBuf;

/// Keys that may be named: a signature is checked against each.
const MOST_KEYS: usize = 64;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WrittenSignatures {
    policy: Option<String>,
    keys: Vec<PathBuf>,
}

/// Whose signatures count. What becomes of images without them is in the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedKeys {
    /// The keys' files. None where nobody looks at signatures.
    pub files: Vec<PathBuf>,
    /// What is in them, once they are read.
    pub keys: Vec<TrustedKey>,
}

impl WrittenSignatures {
    pub fn check(self) -> Result<(SignaturePolicy, TrustedKeys), String> {
        let written = self.policy.as_deref().unwrap_or("off");
        let policy = written
            .parse()
            .map_err(|()| format!("signatures.policy: '{written}' is no policy; write off, warn or require"))?;
        if let Some(path) = self.keys.iter().find(|path| !path.is_absolute()) {
            return Err(format!(
                "signatures.keys: '{}' is no absolute path; write one such as \"/etc/bennu/keys/ci.pub\"",
                path.display()
            ));
        }
        if self.keys.len() > MOST_KEYS {
            return Err(format!("signatures.keys: there are {} files; name at most {MOST_KEYS}", self.keys.len()));
        }
        if policy == SignaturePolicy::Off {
            return Ok((policy, TrustedKeys::default()));
        }
        if self.keys.is_empty() {
            return Err(format!(
                "signatures.keys: policy = \"{policy}\" needs the public keys to trust, and there are none; write \
                 keys = [\"/etc/bennu/keys/ci.pub\"], or policy = \"off\""
            ));
        }
        Ok((policy, TrustedKeys { files: self.keys, keys: Vec::new() }))
    }
}

impl TrustedKeys {
    /// Reads the files.
    pub fn read(&mut self) -> Result<(), String> {
        let keys = self.files.iter().map(|path| TrustedKey::read(path));
        self.keys = keys.collect::<Result<_, _>>().map_err(|error| format!("signatures.keys: {error}"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigError};
    use bennu_images::cosign::KeyPair;
    use bennu_rules::signature::SignaturePolicy;
    use std::{fs, path::Path};

    fn text(signatures: &str) -> String {
        format!("[boot]\ninterface = \"eno2\"\ndhcp = \"proxy\"\n{signatures}")
    }

    fn refusal(signatures: &str) -> String {
        Config::parse(&text(signatures)).unwrap_err()
    }

    #[test]
    fn signatures_are_off_unless_the_configuration_says_otherwise() {
        let config = Config::parse(&text("")).unwrap();
        assert_eq!(config.settings.signatures, SignaturePolicy::Off);
        // Keys may be there already, and nobody reads them.
        let config = Config::parse(&text("[signatures]\nkeys = [\"/none.pub\"]")).unwrap();
        assert!(config.signatures.files.is_empty());
        let config = Config::parse(&text("[signatures]\npolicy = \"warn\"\nkeys = [\"/none.pub\"]")).unwrap();
        assert_eq!(config.settings.signatures, SignaturePolicy::Warn);
        assert_eq!(config.signatures.files, [Path::new("/none.pub")]);
    }

    #[test]
    fn wrong_policies_and_keys_say_what_to_write() {
        for (signatures, says) in [
            ("policy = \"on\"", "signatures.policy: 'on' is no policy; write off, warn or require"),
            ("polcy = \"off\"", "line 5: there is no key 'polcy' here; did you mean 'policy'?"),
            (
                "policy = \"require\"",
                "signatures.keys: policy = \"require\" needs the public keys to trust, and there are none; write keys = \
                 [\"/etc/bennu/keys/ci.pub\"], or policy = \"off\"",
            ),
            (
                "keys = [\"ci.pub\"]",
                "signatures.keys: 'ci.pub' is no absolute path; write one such as \"/etc/bennu/keys/ci.pub\"",
            ),
        ] {
            assert_eq!(refusal(&format!("[signatures]\n{signatures}")), says);
        }
        let many = format!("[signatures]\nkeys = [{}]", "\"/a.pub\",".repeat(65));
        assert_eq!(refusal(&many), "signatures.keys: there are 65 files; name at most 64");
    }

    #[test]
    fn keys_are_read_at_start_and_one_that_is_none_stops_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let load = |policy: &str, key: &Path| {
            let keys = format!("[signatures]\npolicy = \"{policy}\"\nkeys = [\"{}\"]", key.display());
            fs::write(at("bennu.toml"), text(&keys)).unwrap();
            Config::load(&at("bennu.toml"))
        };
        let pair = KeyPair::generate(b"secret").unwrap();
        fs::write(at("ci.pub"), pair.public).unwrap();
        fs::write(at("ci.key"), pair.private).unwrap();
        let config = load("require", &at("ci.pub")).unwrap();
        assert_eq!(config.settings.signatures, SignaturePolicy::Require);
        assert_eq!(config.signatures.keys[0].id().name, "ci");
        for policy in ["warn", "require"] {
            for (name, says) in [("gone.pub", "No such file"), ("ci.key", "keep it off this host"), ("", "directory")] {
                let Err(ConfigError::Invalid { reason, .. }) = load(policy, &at(name)) else { panic!("{name}") };
                assert!(reason.contains(&at(name).display().to_string()), "{reason}");
                assert!(reason.contains(says), "{reason}");
            }
        }
        assert!(load("off", &at("gone.pub")).is_ok());
    }
}
