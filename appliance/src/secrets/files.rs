//! What is laid down in one machine alone: its secrets, and the SSH host keys that outlive its images.

use crate::{
    appliance::Appliance,
    ledger::{Fault, Stored},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bennu_plan::SealedFile;
use bennu_rules::{
    MacAddress, Records,
    boot::BootId,
    commands::secrets::keep_host_keys,
    metadata::FileReady,
    secret::{HostKeys, Placement, Secret, SecretName, of_machine},
};
use crypto_box::aead::OsRng;
use serde::{Deserialize, Serialize};
use ssh_key::{Algorithm, EcdsaCurve, LineEnding, PrivateKey};
use zeroize::Zeroizing;

/// What an OpenSSH server looks for. RSA is left to images: whoever reads one of these two needs none.
const ALGORITHMS: [(&str, Algorithm); 2] =
    [("ed25519", Algorithm::Ed25519), ("ecdsa", Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 })];

/// A machine is not given what is its own.
#[derive(Debug, thiserror::Error)]
pub enum NotGiven {
    /// The ledger cannot be asked.
    #[error("{0}")]
    Fault(#[from] Fault),
    /// A record was changed, or a key cannot be made.
    #[error("{0} cannot be read; set it anew, or restore a backup of the ledger with its key")]
    Unreadable(String),
    /// It was removed, or is another machine's now.
    #[error(
        "the secret {secret}, which the metadata document '{document}' names, is not this machine's any more; set it again"
    )]
    Gone {
        /// Which.
        secret: SecretName,
        /// What names it.
        document: String,
    },
}

/// A pair as it is kept.
#[derive(Serialize, Deserialize)]
struct Pair {
    name: String,
    private: String,
    public: String,
}

/// Everything that is for this machine alone, in the order in which it is laid down.
pub async fn of(appliance: &Appliance, machine: MacAddress, boot: &BootId) -> Result<Vec<SealedFile>, NotGiven> {
    let mut files = host_keys(appliance, machine).await?;
    let read = |records: &Stored<'_>| {
        let secrets = records.machine(machine).map(|machine| of_machine(&machine, records)).unwrap_or_default();
        let rendered = records.rendered(machine).filter(|rendered| rendered.boot == *boot);
        (secrets, rendered.map(|rendered| rendered.merged.files).unwrap_or_default())
    };
    let (secrets, named) = appliance.ledger.stored(read)?;
    let open = |secret: &Secret| {
        let plain = appliance.keyring.open_sealed(&Secret::place(&secret.name), &secret.value);
        plain.ok_or_else(|| NotGiven::Unreadable(format!("the secret {}", secret.name)))
    };
    for secret in &secrets {
        let Some(Placement { path, mode, owner }) = secret.file.clone() else { continue };
        let content = BASE64_STANDARD.encode(&*open(secret)?);
        files.push(SealedFile { path, mode, owner, content, optional: false });
    }
    for (path, given) in named {
        let FileReady { mode, owner, secret: Some(name), .. } = given.value else { continue };
        // It was there when the boot's metadata was settled.
        let secret = secrets.iter().find(|secret| secret.name == name);
        let secret = secret.ok_or(NotGiven::Gone { secret: name, document: given.from.to_string() })?;
        let content = BASE64_STANDARD.encode(&*open(secret)?);
        files.push(SealedFile { path, mode, owner, content, optional: false });
    }
    Ok(files)
}

/// The machine's host keys, made at its first boot into an image.
async fn host_keys(appliance: &Appliance, machine: MacAddress) -> Result<Vec<SealedFile>, NotGiven> {
    if !appliance.config.ssh_host_keys || !appliance.keyring.lasts() {
        return Ok(Vec::new());
    }
    let mut kept = appliance.ledger.stored(|records| records.host_keys(machine))?;
    if kept.is_none() {
        let Some(made) = make(appliance, machine) else {
            return Err(NotGiven::Unreadable("a new SSH host key".into()));
        };
        kept = appliance.ledger.decide(made, keep_host_keys).await?;
    }
    let Some(kept) = kept else { return Ok(Vec::new()) };
    let place = HostKeys::place(kept.made_for);
    let plain = appliance.keyring.open_sealed(&place, &kept.pairs);
    let pairs: Option<Vec<Pair>> = plain.and_then(|plain| serde_json::from_slice(&plain).ok());
    let pairs = pairs.ok_or(NotGiven::Unreadable(place))?;
    let file = |path: String, mode, text: &str| SealedFile {
        path,
        mode,
        owner: String::new(),
        content: BASE64_STANDARD.encode(text),
        optional: true,
    };
    let both = |Pair { name, private, public }: &Pair| {
        let path = format!("/etc/ssh/ssh_host_{name}_key");
        [file(format!("{path}.pub"), 0o644, public), file(path, 0o600, private)]
    };
    Ok(pairs.iter().flat_map(both).collect())
}

fn make(appliance: &Appliance, machine: MacAddress) -> Option<HostKeys> {
    let mut pairs = Vec::new();
    for (name, algorithm) in ALGORITHMS {
        let mut key = PrivateKey::random(&mut OsRng, algorithm).ok()?;
        key.set_comment(format!("bennu {machine}"));
        let private = key.to_openssh(LineEnding::LF).ok()?.to_string();
        let public = key.public_key().to_openssh().ok()? + "\n";
        pairs.push(Pair { name: name.to_owned(), private, public });
    }
    let plain = Zeroizing::new(serde_json::to_vec(&pairs).ok()?);
    let sealed = appliance.keyring.seal(&HostKeys::place(machine), &plain);
    let public = pairs.iter().map(|pair| pair.public.trim_end().to_owned()).collect();
    Some(HostKeys { machine, made_for: machine, made: appliance.ledger.now(), public, pairs: sealed })
}
