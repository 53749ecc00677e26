//! Several documents that match one machine become one.

use super::{
    BadTemplate, Document, MAX_RENDERED, MetadataName, Occasion, Persistent,
    context::context,
    document::is_public_key,
    template::{self, Fuel, MAX_TEMPLATES},
};
use crate::{
    Machine, Records,
    secret::{self, SecretName},
    selector::Subject,
    settings::Settings,
};
use minijinja::Value;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What is said, and by which document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given<T> {
    /// The document.
    pub from: Origin,
    /// What it says.
    pub value: T,
}

/// Who says something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A document.
    Document(MetadataName),
    /// A label of the machine.
    Label(String),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Document(name) => write!(f, "{name}"),
            Self::Label(key) => write!(f, "the machine's label {key}"),
        }
    }
}

/// A file, ready to be laid down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReady {
    /// Permissions.
    pub mode: u32,
    /// `user[:group]`.
    pub owner: String,
    /// What is in it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub content: String,
    /// Instead, the secret that is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretName>,
}

/// All that the documents of one machine say, templates rendered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Merged {
    /// The documents, each heard before those in front of it.
    pub documents: Vec<MetadataName>,
    /// Host name.
    pub hostname: Option<Given<String>>,
    /// Keys by user, of all documents together.
    pub ssh_authorized_keys: BTreeMap<String, Vec<Given<String>>>,
    /// Files by path.
    pub files: BTreeMap<String, Given<FileReady>>,
    /// cloud-init's user data.
    pub user_data: Option<Given<String>>,
    /// cloud-init's vendor data.
    pub vendor_data: Option<Given<String>>,
    /// cloud-init's network configuration.
    pub network_config: Option<Given<String>>,
    /// Ignition's configuration.
    pub ignition: Option<Given<String>>,
    /// File systems by mount point.
    pub persistent: BTreeMap<String, Given<Persistent>>,
}

/// Why a machine's documents do not come to anything: its boot is refused with these words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("metadata document '{document}', {field}: {reason}")]
pub struct Unrendered {
    /// Which.
    pub document: MetadataName,
    /// Where in it, and on which line.
    pub field: String,
    /// Why, and what to do.
    pub reason: String,
}

/// The documents of a machine, the one that is heard before all others last.
pub fn applying(machine: &Machine, records: &dyn Records, settings: &Settings) -> Vec<Document> {
    let mut documents = records.metadata_for(&machine.macs);
    let subject = Subject::of_machine(machine, settings);
    documents.retain(|document| document.selector.matches_subject(&subject));
    documents.sort_by(|a, b| {
        let rank = |document: &Document| (document.machine.is_some(), document.priority);
        // The same priority is settled by name, since no other order is the same everywhere.
        rank(a).cmp(&rank(b)).then_with(|| a.name.cmp(&b.name))
    });
    documents
}

/// What a machine's record says by itself.
pub fn without_documents(machine: &Machine) -> Merged {
    let given = |name: &String| Given { from: Origin::Label("hostname".into()), value: name.clone() };
    Merged { hostname: machine.labels.get("hostname").map(given), ..Merged::default() }
}

/// Renders and merges what applies to a machine. The same state gives the same answer.
pub fn render(
    machine: &Machine,
    occasion: &Occasion<'_>,
    records: &dyn Records,
    settings: &Settings,
) -> Result<Merged, Unrendered> {
    let documents = applying(machine, records, settings);
    let mut merged = without_documents(machine);
    if documents.is_empty() {
        return Ok(merged);
    }
    check_length(&documents)?;
    let context = context(machine, occasion);
    let has_secret = |document: &Document| document.files.iter().any(|file| file.secret.is_some());
    let secrets: BTreeSet<SecretName> = match documents.iter().any(has_secret) {
        true => secret::of_machine(machine, records).into_iter().map(|secret| secret.name).collect(),
        false => BTreeSet::new(),
    };
    let (mut left, mut fuel) = (MAX_RENDERED, Fuel::default());
    for document in documents {
        let mut part =
            Part { document: &document, context: &context, secrets: &secrets, left: &mut left, fuel: &mut fuel };
        part.take_into(&mut merged)?;
        merged.documents.push(document.name);
    }
    Ok(merged)
}

/// Reading a template costs by its length, and a machine's documents are read at each of its boots.
fn check_length(documents: &[Document]) -> Result<(), Unrendered> {
    let mut length = 0;
    for document in documents {
        for (field, text) in document.templates() {
            length += text.len();
            if length > MAX_TEMPLATES {
                let reason = format!(
                    "with it, the templates of this machine's documents have more than {MAX_TEMPLATES} bytes; put large files \
                     into the image"
                );
                return Err(Unrendered { document: document.name.clone(), field: field[1..].to_owned(), reason });
            }
        }
    }
    Ok(())
}

/// One document on its way into the whole.
struct Part<'a> {
    document: &'a Document,
    context: &'a Value,
    /// Those of the machine.
    secrets: &'a BTreeSet<SecretName>,
    /// Bytes that all documents together may still come to.
    left: &'a mut usize,
    /// Steps that all their templates together may still take.
    fuel: &'a mut Fuel,
}

impl Part<'_> {
    fn take_into(&mut self, merged: &mut Merged) -> Result<(), Unrendered> {
        let document = self.document;
        if let Some(text) = &document.hostname {
            let name = self.rendered("hostname", text)?.value.trim().to_owned();
            if !is_hostname(&name) {
                let reason = format!(
                    "{name:?} is no host name; it has letters, digits and '-', in parts of up to 63 with '.' between"
                );
                return Err(self.refuse("hostname", reason));
            }
            merged.hostname = Some(self.given(name));
        }
        for (user, keys) in &document.ssh_authorized_keys {
            let known = merged.ssh_authorized_keys.entry(user.clone()).or_default();
            for key in keys.iter().map(|key| key.trim()).filter(|key| is_public_key(key)) {
                if known.iter().all(|earlier| earlier.value != key) {
                    known.push(self.given(key.to_owned()));
                }
            }
        }
        for file in &document.files {
            let field = format!("file {}", file.path);
            let content = match &file.content {
                Some(content) => self.rendered(&field, content)?.value,
                None => String::new(),
            };
            if let Some(secret) = file.secret.as_ref().filter(|secret| !self.secrets.contains(*secret)) {
                let reason = format!(
                    "there is no secret '{secret}' of this machine; set one that is for it: bennu secret set {secret} --machine \
                     MAC or --selector LABELS"
                );
                return Err(self.refuse(&field, reason));
            }
            let mode = file.mode_bits().unwrap_or(0o600);
            let ready = FileReady { mode, owner: file.owner.clone(), content, secret: file.secret.clone() };
            merged.files.insert(file.path.clone(), self.given(ready));
        }
        for (field, text, place) in [
            ("user_data", &document.user_data, &mut merged.user_data),
            ("vendor_data", &document.vendor_data, &mut merged.vendor_data),
            ("network_config", &document.network_config, &mut merged.network_config),
            ("ignition", &document.ignition, &mut merged.ignition),
        ] {
            if let Some(text) = text {
                *place = Some(self.rendered(field, text)?);
            }
        }
        if let Some(ignition) = merged.ignition.as_ref().filter(|_| document.ignition.is_some())
            && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&ignition.value)
        {
            return Err(self.refuse("ignition", format!("what it comes to is no JSON: {error}")));
        }
        for wanted in &document.persistent {
            // One disk cannot be two file systems: the later document's holds.
            merged.persistent.retain(|_, earlier| earlier.value.label != wanted.label);
            merged.persistent.insert(wanted.mount.clone(), self.given(wanted.clone()));
        }
        Ok(())
    }

    fn given<T>(&self, value: T) -> Given<T> {
        Given { from: Origin::Document(self.document.name.clone()), value }
    }

    fn refuse(&self, field: &str, reason: impl Into<String>) -> Unrendered {
        Unrendered { document: self.document.name.clone(), field: field.to_owned(), reason: reason.into() }
    }

    fn rendered(&mut self, field: &str, text: &str) -> Result<Given<String>, Unrendered> {
        let rendered = template::render(text, self.context, self.fuel)
            .map_err(|BadTemplate { line, reason }| self.refuse(&format!("{field}, line {line}"), reason))?;
        *self.left = self.left.checked_sub(rendered.len()).ok_or_else(|| {
            let reason = format!(
                "with it, this machine's metadata has more than {MAX_RENDERED} bytes; put large files into the image"
            );
            self.refuse(field, reason)
        })?;
        Ok(self.given(rendered))
    }
}

/// RFC 1123 §2.1, with what Linux takes at most.
fn is_hostname(name: &str) -> bool {
    let part = |part: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (1..=63).contains(&part.len()) && part.bytes().all(allowed) && !part.starts_with('-') && !part.ends_with('-')
    };
    name.len() <= 64 && name.split('.').all(part)
}

impl Merged {
    /// Whether any document says anything.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }
}
