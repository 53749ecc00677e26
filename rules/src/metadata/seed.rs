//! cloud-init's NoCloud data source, and Ignition's configuration, of what was rendered.

use super::Merged;
use crate::boot::Boot;
use bennu_plan::{Metadata, NoCloud, PersistentMount, PlannedFile};
use serde_json::json;

/// cloud-init's name for the user that it makes itself, in the keys of a document.
pub const DEFAULT_USER: &str = "default";

/// The NoCloud data of a boot (cloud-init documentation, "NoCloud"). `None` where no document applies: cloud-init then
/// looks for its own data sources, as the image's maker wanted.
pub fn nocloud(boot: &Boot, merged: &Merged) -> Option<NoCloud> {
    if merged.is_empty() {
        return None;
    }
    // Each boot is a new instance: nothing of the last one is left, so what runs once an instance must run again.
    let mut meta = json!({ "instance-id": format!("{}-{}", boot.machine.hyphened(), boot.id) });
    if let Some(name) = &merged.hostname {
        meta["local-hostname"] = name.value.clone().into();
    }
    if let Some(keys) = merged.ssh_authorized_keys.get(DEFAULT_USER) {
        meta["public-keys"] = keys.iter().map(|key| key.value.clone()).collect();
    }
    let text = |given: &Option<super::Given<String>>| given.as_ref().map(|given| given.value.clone());
    Some(NoCloud {
        // JSON is YAML.
        meta_data: format!("{meta}\n"),
        user_data: text(&merged.user_data).unwrap_or_else(|| "#cloud-config\n{}\n".into()),
        vendor_data: text(&merged.vendor_data),
        network_config: text(&merged.network_config),
    })
}

/// What stage 1 lays down.
pub fn for_stage1(boot: &Boot, merged: Merged) -> Metadata {
    let nocloud = nocloud(boot, &merged);
    let values = |given: Vec<super::Given<String>>| given.into_iter().map(|given| given.value).collect();
    let file = |(path, given): (String, super::Given<super::FileReady>)| {
        let super::FileReady { mode, owner, content, secret: _ } = given.value;
        PlannedFile { path, mode, owner, content }
    };
    let mount = |given: super::Given<super::Persistent>| {
        let super::Persistent { disk, label, filesystem, mount, options } = given.value;
        PersistentMount { disk, label, filesystem, mount, options }
    };
    Metadata {
        ssh_authorized_keys: merged.ssh_authorized_keys.into_iter().map(|(user, keys)| (user, values(keys))).collect(),
        // The plan is public: secrets come by the session.
        files: merged.files.into_iter().filter(|(_, given)| given.value.secret.is_none()).map(file).collect(),
        nocloud,
        // By mount point: what is mounted in another comes after it.
        persistent: merged.persistent.into_values().map(mount).collect(),
    }
}
