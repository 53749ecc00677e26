//! A document as a person writes it, and what it must be to be stored.

use super::template::{self, BadTemplate};
use crate::{MacAddress, secret::SecretName, selector::Selector};
use serde::{Deserialize, Serialize, de};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// Bytes of one document, as JSON. A template that is longer belongs into the image.
pub const MAX_DOCUMENT: usize = 256 << 10;

/// Files, mounts, and users with keys in one document.
const MAX_ITEMS: usize = 256;

/// What a document is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MetadataName(String);

/// A text that is no document's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a document's name; write up to 63 lower-case letters, digits, '.', '_' and '-', such as web-servers"
)]
pub struct BadName(String);

impl fmt::Display for MetadataName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl MetadataName {
    /// As it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MetadataName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let allowed = |b: u8| word(b) || matches!(b, b'.' | b'_' | b'-');
        if !text.bytes().next().is_some_and(word) || text.len() > 63 || !text.bytes().all(allowed) {
            return Err(BadName(text.chars().filter(|c| !c.is_control()).take(80).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Serialize for MetadataName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for MetadataName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What some machines get beside their image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = MetadataDocument)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// What it is called.
    pub name: MetadataName,
    /// Which machines it is for, by their labels; without, every machine.
    #[serde(default, skip_serializing_if = "Selector::is_everything")]
    #[schema(value_type = String)]
    pub selector: Selector,
    /// The one machine that it is for, by any of its MACs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MacAddress>,
    /// Of several documents that say the same thing, the one with the greater priority is heard; a machine's own before all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: i32,
    /// Host name: a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Keys that open an account, by user. `default` is the user that cloud-init makes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ssh_authorized_keys: BTreeMap<String, Vec<String>>,
    /// Files to lay down.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileWritten>,
    /// cloud-init's user data: a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// cloud-init's vendor data: a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor_data: Option<String>,
    /// cloud-init's network configuration: a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_config: Option<String>,
    /// What Ignition is given where an image asks for it: a template that comes to JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignition: Option<String>,
    /// File systems that outlive boots.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub persistent: Vec<Persistent>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A file to lay down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileWritten {
    /// Where, from the root on.
    pub path: String,
    /// Permissions in octal; without, 0644, and 0600 of a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// `user[:group]`, by the image's names or by number.
    #[serde(default = "root")]
    pub owner: String,
    /// What is in it: a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Instead, the secret that is in it. It must be the machine's by its own target, and goes to nobody but the boot's
    /// session key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretName>,
}

fn root() -> String {
    "root:root".into()
}

/// A file system that outlives boots. A disk that is blank gets it, any other disk stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Persistent {
    /// Which disk.
    pub disk: DiskWanted,
    /// The label of its file system, by which it is known again.
    pub label: String,
    /// `ext4` or `xfs`.
    #[serde(default = "ext4")]
    pub filesystem: String,
    /// Where it is mounted.
    pub mount: String,
    /// Mount options, such as `noatime`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub options: String,
}

fn ext4() -> String {
    "ext4".into()
}

/// Which disk: all that is said must be so of one disk alone.
pub use bennu_plan::DiskWanted;

/// Why a document cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct BadDocument {
    /// Where in it, as a JSON pointer (RFC 6901).
    pub pointer: String,
    /// Why, and what to write instead.
    pub reason: String,
}

impl BadDocument {
    fn new(pointer: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), reason: reason.into() }
    }
}

impl Document {
    /// Every template in it, with its place.
    pub fn templates(&self) -> impl Iterator<Item = (String, &str)> {
        let texts = [
            ("/hostname", &self.hostname),
            ("/user_data", &self.user_data),
            ("/vendor_data", &self.vendor_data),
            ("/network_config", &self.network_config),
            ("/ignition", &self.ignition),
        ];
        let texts = texts.into_iter().filter_map(|(at, text)| Some((at.to_owned(), text.as_deref()?)));
        let files = self.files.iter().enumerate();
        texts.chain(files.filter_map(|(n, file)| Some((format!("/files/{n}/content"), file.content.as_deref()?))))
    }

    /// Bytes of it as JSON.
    pub fn size(&self) -> usize {
        serde_json::to_vec(self).map_or(usize::MAX, |json| json.len())
    }

    /// Whether it can be stored: what is known without a machine is told now, and not when one boots.
    pub fn check(&self) -> Result<(), BadDocument> {
        let size = self.size();
        if size > MAX_DOCUMENT {
            let reason = format!(
                "the document has {size} bytes, and {MAX_DOCUMENT} are the most; put large files into the image"
            );
            return Err(BadDocument::new("", reason));
        }
        if self.machine.is_some() && !self.selector.is_everything() {
            return Err(BadDocument::new(
                "/selector",
                "a document is for one machine, or for those that a selector means; leave one out",
            ));
        }
        for (at, text) in self.templates() {
            template::check(text).map_err(|BadTemplate { line, reason }| {
                BadDocument::new(at, format!("line {line} of the template: {reason}"))
            })?;
        }
        self.check_keys()?;
        self.check_files()?;
        self.check_persistent()
    }

    fn check_keys(&self) -> Result<(), BadDocument> {
        if self.ssh_authorized_keys.len() > MAX_ITEMS {
            return Err(BadDocument::new("/ssh_authorized_keys", format!("more than {MAX_ITEMS} users")));
        }
        for (user, keys) in &self.ssh_authorized_keys {
            let at = format!("/ssh_authorized_keys/{}", user.replace('~', "~0").replace('/', "~1"));
            if !is_user(user) {
                return Err(BadDocument::new(at, format!("{user:?} is no user's name")));
            }
            if let Some(n) = keys.iter().position(|key| !is_public_key(key)) {
                let reason =
                    "this is no line of authorized_keys; write one public key, such as 'ssh-ed25519 AAAA… me@host'";
                return Err(BadDocument::new(format!("{at}/{n}"), reason));
            }
        }
        Ok(())
    }

    fn check_files(&self) -> Result<(), BadDocument> {
        if self.files.len() > MAX_ITEMS {
            return Err(BadDocument::new("/files", format!("more than {MAX_ITEMS} files")));
        }
        for (n, file) in self.files.iter().enumerate() {
            let refuse = |field: &str, reason: String| Err(BadDocument::new(format!("/files/{n}/{field}"), reason));
            if let Err(reason) = check_path(&file.path) {
                return refuse("path", reason);
            }
            if file.mode_bits().is_none() {
                return refuse(
                    "mode",
                    format!(
                        "'{}' is no mode; write permissions in octal, such as \"0644\"",
                        file.mode.as_deref().unwrap_or_default()
                    ),
                );
            }
            match (&file.content, &file.secret) {
                (Some(_), None) | (None, Some(_)) => {}
                (None, None) => return refuse("content", "the file has neither content nor a secret".into()),
                (Some(_), Some(_)) => return refuse("secret", "a file has content or a secret; leave one out".into()),
            }
            if file.secret.is_some() && file.mode_bits().is_some_and(|mode| mode > 0o777 || mode & 0o400 == 0) {
                return refuse(
                    "mode",
                    "a secret's file is one that its owner reads, such as \"0600\" or \"0440\"".into(),
                );
            }
            let mut parts = file.owner.split(':');
            if !parts.clone().all(is_user) || parts.nth(2).is_some() {
                return refuse("owner", format!("{:?} is no owner; write user or user:group", file.owner));
            }
            if self.files[..n].iter().any(|earlier| earlier.path == file.path) {
                return refuse("path", format!("{} is there twice", file.path));
            }
        }
        Ok(())
    }

    fn check_persistent(&self) -> Result<(), BadDocument> {
        if self.persistent.len() > MAX_ITEMS {
            return Err(BadDocument::new("/persistent", format!("more than {MAX_ITEMS} file systems")));
        }
        for (n, wanted) in self.persistent.iter().enumerate() {
            wanted.check().map_err(|(field, reason)| BadDocument::new(format!("/persistent/{n}/{field}"), reason))?;
            let twice = |earlier: &Persistent| earlier.mount == wanted.mount || earlier.label == wanted.label;
            if self.persistent[..n].iter().any(twice) {
                let reason = "its mount point or its label is there twice".to_owned();
                return Err(BadDocument::new(format!("/persistent/{n}"), reason));
            }
        }
        Ok(())
    }
}

impl FileWritten {
    /// The permissions; `None` where it is none.
    pub fn mode_bits(&self) -> Option<u32> {
        let octal = |b: u8| matches!(b, b'0'..=b'7');
        let Some(mode) = &self.mode else { return Some(if self.secret.is_some() { 0o600 } else { 0o644 }) };
        let well_formed = (3..=5).contains(&mode.len()) && mode.bytes().all(octal);
        u32::from_str_radix(mode, 8).ok().filter(|mode| well_formed && *mode <= 0o7777)
    }
}

impl Persistent {
    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.disk == DiskWanted::default() {
            return Err(("disk", "say which disk: by_id, serial, wwn, model, label, min_size or max_size".into()));
        }
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        let longest = if self.filesystem == "xfs" { 12 } else { 16 };
        if !matches!(self.filesystem.as_str(), "ext4" | "xfs") {
            return Err(("filesystem", format!("'{}' is none that Bennu makes; write ext4 or xfs", self.filesystem)));
        }
        if self.label.is_empty() || self.label.len() > longest || !self.label.bytes().all(word) {
            let reason = format!("a label of {} has 1 to {longest} letters, digits, '_', '-' and '.'", self.filesystem);
            return Err(("label", reason));
        }
        check_path(&self.mount).map_err(|reason| ("mount", reason))?;
        let of_system = ["/etc", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/boot", "/run"];
        if of_system.iter().any(|place| self.mount == *place || self.mount.starts_with("/run/")) {
            return Err(("mount", format!("{} is the image's own, or in memory; mount it elsewhere", self.mount)));
        }
        let option = |b: u8| word(b) || matches!(b, b'=' | b',' | b':' | b'/' | b'@' | b'%');
        if self.options.len() > 256 || !self.options.bytes().all(option) {
            return Err(("options", "write mount options as in /etc/fstab, such as noatime,nodev".into()));
        }
        Ok(())
    }
}

/// A path that is laid down: from the root on, without detours, and not where the kernel keeps its own.
fn check_path(path: &str) -> Result<(), String> {
    let parts = || path.split('/').skip(1);
    if !path.starts_with('/') || path.len() > 1024 || parts().any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!("{path:?} is no path; write it whole, from / on, without '..' and a '/' at its end"));
    }
    if path.chars().any(char::is_control) {
        return Err(format!("{path:?} has a control character"));
    }
    if matches!(parts().next(), Some("proc" | "sys" | "dev")) {
        return Err(format!("{path} is the kernel's; nothing can be laid down there"));
    }
    Ok(())
}

/// A user's or group's name, or number.
fn is_user(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'$');
    !name.is_empty() && name.len() <= 64 && !name.starts_with('-') && name.bytes().all(allowed)
}

/// One line of `authorized_keys`, of which one word must be a key's type (sshd(8), "AUTHORIZED_KEYS FILE FORMAT").
pub(super) fn is_public_key(line: &str) -> bool {
    let types = |word: &str| ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|kind| word.starts_with(kind));
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let key = words.iter().position(|word| types(word)).and_then(|at| words.get(at + 1));
    let base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
    line.len() <= 16 << 10
        && !line.chars().any(char::is_control)
        && key.is_some_and(|key| key.starts_with("AAAA") && key.bytes().all(base64))
}
