//! What people wrote about this machine: keys, files, and cloud-init's data.

use super::{LaydownError, place};
use crate::scoped;
use crate::user::{self, Account};
use bennu_plan::{Metadata, NoCloud, PlannedFile};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, lchown};
use std::path::Path;

/// Where cloud-init takes its data from without asking anybody (cloud-init documentation, "NoCloud").
const SEED: &str = "var/lib/cloud/seed/nocloud";
/// The user that cloud-init makes itself; its keys are in the seed.
const DEFAULT_USER: &str = "default";

/// Where cloud-init may be.
const CLOUD_INIT: &[&str] = &["usr/bin/cloud-init", "usr/local/bin/cloud-init", "usr/lib/cloud-init/ds-identify"];

fn failed(path: &str) -> impl FnOnce(io::Error) -> LaydownError {
    let path = path.to_owned();
    move |source| LaydownError { path, source }
}

/// Lays down what the plan has; answers what a person should know of it. `run` is what will be the system's `/run`.
pub fn lay_down_metadata(root: &Path, run: &Path, metadata: &Metadata) -> Result<Vec<String>, LaydownError> {
    let mut said = Vec::new();
    let has_cloud_init = CLOUD_INIT.iter().any(|path| scoped::exists(root, path));
    for (user, keys) in &metadata.ssh_authorized_keys {
        match account(root, user) {
            Ok(account) => authorize(root, &account, keys)?,
            // cloud-init makes its users when the system is up.
            Err(_) if has_cloud_init => {
                if user != DEFAULT_USER {
                    said.push(format!(
                        "the image has no user {user} yet: their keys are not laid down; name them in user_data too"
                    ));
                }
            }
            Err(reason) => return Err(failed(&format!("the SSH keys of {user}"))(io::Error::other(reason))),
        }
    }
    for file in &metadata.files {
        lay_down_file(root, run, file)?;
    }
    if let Some(seed) = metadata.nocloud.as_ref().filter(|_| has_cloud_init) {
        seed_cloud_init(root, seed)?;
        said.push("cloud-init is given its data".into());
    }
    Ok(said)
}

fn account(root: &Path, user: &str) -> Result<Account, String> {
    let read =
        |path: &str| scoped::resolve(root, path).and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    let (passwd, group) = (read("etc/passwd"), read("etc/group"));
    // A number that nobody has would get keys that open nothing.
    if !passwd.lines().any(|line| line.split(':').next() == Some(user)) {
        return Err(format!("the image has no user '{user}'; make it in the image, or write another name"));
    }
    user::find(user, &passwd, &group)
}

/// Adds keys to those that the image has for an account.
fn authorize(root: &Path, account: &Account, keys: &[String]) -> Result<(), LaydownError> {
    let home = account.home.trim_matches('/');
    let path = if home.is_empty() { ".ssh/authorized_keys".to_owned() } else { format!("{home}/.ssh/authorized_keys") };
    let before = keys_of(root, &path, account);
    let mut lines: Vec<&str> = before.lines().collect();
    for key in keys {
        if !lines.contains(&key.as_str()) {
            lines.push(key);
        }
    }
    let text = format!("{}\n", lines.join("\n"));
    let directory = path.trim_end_matches("/authorized_keys");
    let own = || -> io::Result<()> {
        if !home.is_empty() && !scoped::exists(root, home) {
            make_directory(root, home, account, 0o700)?;
        }
        make_own_directory(root, directory, account)
    };
    own().map_err(failed(directory))?;
    write_owned(root, &path, text.as_bytes(), 0o600, account)
}

/// The keys that an account has. Its home may be on a disk that outlives boots, where the account put what it wanted: a
/// link there is nobody's keys.
fn keys_of(root: &Path, path: &str, account: &Account) -> String {
    let read = || -> io::Result<String> {
        let (directory, name) = path.rsplit_once('/').unwrap_or_default();
        let (home, own) = directory.rsplit_once('/').unwrap_or(("", directory));
        let home = scoped::resolve(root, home).ok_or(io::ErrorKind::NotFound)?;
        if !fs::symlink_metadata(home.join(own))?.is_dir() {
            return Ok(String::new());
        }
        let place = home.join(own).join(name);
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let mut file = fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(place)?;
        let there = file.metadata()?;
        let mut text = String::new();
        if there.is_file() && [0, account.uid].contains(&there.uid()) {
            file.read_to_string(&mut text)?;
        }
        Ok(text)
    };
    read().unwrap_or_default()
}

/// `.ssh` of an account: a directory that is its own or root's already, else made anew. What it put there instead, such as
/// a link to a directory of the system's, is not given to it.
fn make_own_directory(root: &Path, path: &str, account: &Account) -> io::Result<()> {
    let place = place(root, path)?;
    match fs::symlink_metadata(&place) {
        Ok(there) if there.is_dir() && [0, account.uid].contains(&there.uid()) => {}
        Ok(there) if there.is_dir() => return Err(io::Error::other("it is another user's directory")),
        Ok(_) => {
            fs::remove_file(&place)?;
            fs::create_dir(&place)?;
        }
        Err(_) => fs::create_dir(&place)?,
    }
    lchown(&place, Some(account.uid), Some(account.gid))?;
    fs::set_permissions(&place, fs::Permissions::from_mode(0o700))
}

/// A directory of an account's own. sshd reads no keys from one that others may write.
fn make_directory(root: &Path, path: &str, account: &Account, mode: u32) -> io::Result<()> {
    let place = match scoped::resolve(root, path) {
        Some(there) if there.is_dir() => there,
        _ => {
            let place = place(root, path)?;
            if fs::symlink_metadata(&place).is_ok() {
                fs::remove_file(&place)?;
            }
            fs::create_dir(&place)?;
            place
        }
    };
    chown(&place, Some(account.uid), Some(account.gid))?;
    fs::set_permissions(&place, fs::Permissions::from_mode(mode))
}

fn lay_down_file(root: &Path, run: &Path, file: &PlannedFile) -> Result<(), LaydownError> {
    let read =
        |path: &str| scoped::resolve(root, path).and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    let owner = user::find(&file.owner, &read("etc/passwd"), &read("etc/group"));
    let owner = owner.map_err(|reason| failed(&file.path)(io::Error::other(reason)))?;
    let path = file.path.strip_prefix('/').unwrap_or_default();
    // The appliance checked it; what leads elsewhere never comes from there.
    if path.is_empty() || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(failed(&file.path)(io::Error::other("it is no path inside the root")));
    }
    let (root, path) = match path.strip_prefix("run/") {
        Some(rest) => (run, rest),
        None => (root, path),
    };
    write_owned(root, path, file.content.as_bytes(), file.mode, &owner)
}

/// Writes a file that nobody may read before it has its owner and its mode.
fn write_owned(root: &Path, path: &str, text: &[u8], mode: u32, owner: &Account) -> Result<(), LaydownError> {
    super::write(root, path, [], 0o600)?;
    let put = || -> io::Result<()> {
        let place = place(root, path)?;
        chown(&place, Some(owner.uid), Some(owner.gid))?;
        fs::write(&place, text)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(mode & 0o7777))
    };
    put().map_err(failed(path))
}

/// A NoCloud seed, and the word to cloud-init that there is nothing else to look for: ds-identify takes a list of one data
/// source without a look at the machine, and asks no network.
fn seed_cloud_init(root: &Path, seed: &NoCloud) -> Result<(), LaydownError> {
    let mut files = vec![("meta-data", seed.meta_data.as_str()), ("user-data", &seed.user_data)];
    files.extend(seed.vendor_data.as_deref().map(|text| ("vendor-data", text)));
    files.extend(seed.network_config.as_deref().map(|text| ("network-config", text)));
    for (name, text) in files {
        // User data may hold what only root should read.
        super::write(root, &format!("{SEED}/{name}"), text, 0o600)?;
    }
    // What the network is like was settled without it, unless somebody says so.
    let network = if seed.network_config.is_some() { "" } else { "network: {config: disabled}\n" };
    let text = format!("# Laid down by Bennu at boot.\ndatasource_list: [NoCloud]\n{network}");
    super::write(root, "etc/cloud/cloud.cfg.d/99-bennu.cfg", text, 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::os::unix::fs::{MetadataExt, symlink};

    /// An image in which the one user is who runs the test.
    fn image() -> (tempfile::TempDir, String) {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        let own = fs::metadata(root).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(root.join("home")).unwrap();
        let passwd = format!("me:x:{}:{}::/home/me:/bin/sh\nroot:x:0:0::/root:/bin/sh\n", own.uid(), own.gid());
        fs::write(root.join("etc/passwd"), passwd).unwrap();
        (place, format!("{}:{}", own.uid(), own.gid()))
    }

    fn text(root: &Path, path: &str) -> String {
        fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn mode(root: &Path, path: &str) -> u32 {
        fs::symlink_metadata(root.join(path)).unwrap().permissions().mode() & 0o7777
    }

    fn keys(user: &str, keys: &[&str]) -> Metadata {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        Metadata { ssh_authorized_keys: BTreeMap::from([(user.to_owned(), keys)]), ..Metadata::default() }
    }

    fn file(path: &str, owner: &str) -> Metadata {
        let file = PlannedFile { path: path.into(), mode: 0o640, owner: owner.into(), content: "told\n".into() };
        Metadata { files: vec![file], ..Metadata::default() }
    }

    #[test]
    fn keys_are_added_where_sshd_reads_them() {
        let (place, _) = image();
        let root = place.path();
        lay_down_metadata(root, root, &keys("me", &["key one", "key two"])).unwrap();
        assert_eq!(text(root, "home/me/.ssh/authorized_keys"), "key one\nkey two\n");
        assert_eq!((mode(root, "home/me"), mode(root, "home/me/.ssh")), (0o700, 0o700));
        assert_eq!(mode(root, "home/me/.ssh/authorized_keys"), 0o600);
        lay_down_metadata(root, root, &keys("me", &["key two", "key three"])).unwrap();
        assert_eq!(text(root, "home/me/.ssh/authorized_keys"), "key one\nkey two\nkey three\n");
    }

    /// A home on a disk that outlives boots holds what its user left there.
    #[test]
    fn links_that_a_user_left_lead_nowhere() {
        let (place, _) = image();
        let root = place.path();
        fs::create_dir_all(root.join("home/me")).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/shadow"), "root:secret").unwrap();
        fs::set_permissions(root.join("etc"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("/etc", root.join("home/me/.ssh")).unwrap();
        lay_down_metadata(root, root, &keys("me", &["key"])).unwrap();
        assert_eq!((mode(root, "etc"), text(root, "home/me/.ssh/authorized_keys")), (0o755, "key\n".into()));
        assert!(!root.join("etc/authorized_keys").exists());
        let keys_file = root.join("home/me/.ssh/authorized_keys");
        fs::remove_file(&keys_file).unwrap();
        symlink("/etc/shadow", &keys_file).unwrap();
        symlink(root.join("etc/shadow"), root.join("home/me/other")).unwrap();
        lay_down_metadata(root, root, &keys("me", &["key"])).unwrap();
        assert_eq!(text(root, "home/me/.ssh/authorized_keys"), "key\n");
        assert_eq!(text(root, "etc/shadow"), "root:secret");
    }

    #[test]
    fn a_user_that_is_not_there_is_told_unless_cloud_init_makes_it() {
        let (place, _) = image();
        let root = place.path();
        for user in ["you", "1234"] {
            let error = lay_down_metadata(root, root, &keys(user, &["key"])).unwrap_err().to_string();
            assert!(error.contains(&format!("no user '{user}'")), "{error}");
        }
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::write(root.join("usr/bin/cloud-init"), "").unwrap();
        let said = lay_down_metadata(root, root, &keys("you", &["key"])).unwrap();
        assert!(said[0].contains("you"), "{said:?}");
        assert!(lay_down_metadata(root, root, &keys("default", &["key"])).unwrap().is_empty());
    }

    #[test]
    fn files_stay_inside_whatever_links_the_image_has() {
        let (place, owner) = image();
        let (image, outside) = (place.path().join("etc"), place.path());
        let root = image.as_path();
        fs::write(outside.join("secret"), "kept").unwrap();
        symlink("/", root.join("up")).unwrap();
        symlink("../../..", root.join("far")).unwrap();
        symlink("../secret", root.join("leaf")).unwrap();
        symlink("/made/of/nothing", root.join("dangling")).unwrap();
        for path in ["/up/a", "/far/b", "/leaf", "/deep/er/c", "/dangling/d"] {
            lay_down_metadata(root, root, &file(path, &owner)).unwrap();
        }
        assert_eq!(text(outside, "secret"), "kept");
        for path in ["a", "b", "leaf", "deep/er/c", "dangling/d"] {
            assert_eq!((text(root, path), mode(root, path)), ("told\n".into(), 0o640), "{path}");
        }
        for path in ["/../x", "/a/../../x", "", "/", "//x"] {
            assert!(lay_down_metadata(root, root, &file(path, &owner)).is_err(), "{path}");
        }
        assert!(!outside.join("x").exists());
    }

    #[test]
    fn files_of_run_are_put_where_run_will_be() {
        let (place, owner) = image();
        let run = tempfile::tempdir().unwrap();
        lay_down_metadata(place.path(), run.path(), &file("/run/app/token", &owner)).unwrap();
        assert_eq!(text(run.path(), "app/token"), "told\n");
        assert!(!place.path().join("run").exists());
        let error = lay_down_metadata(place.path(), run.path(), &file("/x", "nobody:me")).unwrap_err();
        assert!(error.to_string().contains("nobody"), "{error}");
    }

    #[test]
    fn cloud_init_gets_a_seed_where_it_is() {
        let (place, _) = image();
        let root = place.path();
        let nocloud = NoCloud {
            meta_data: "{}".into(),
            user_data: "#cloud-config\n".into(),
            vendor_data: None,
            network_config: None,
        };
        let metadata = Metadata { nocloud: Some(nocloud.clone()), ..Metadata::default() };
        lay_down_metadata(root, root, &metadata).unwrap();
        assert!(!root.join("var").exists(), "nobody would read it");
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::write(root.join("usr/bin/cloud-init"), "").unwrap();
        lay_down_metadata(root, root, &metadata).unwrap();
        assert_eq!(text(root, "var/lib/cloud/seed/nocloud/user-data"), "#cloud-config\n");
        assert!(!root.join("var/lib/cloud/seed/nocloud/network-config").exists());
        let config = text(root, "etc/cloud/cloud.cfg.d/99-bennu.cfg");
        assert!(config.contains("datasource_list: [NoCloud]") && config.contains("disabled"), "{config}");
        let network_config = Some("version: 2\n".to_owned());
        let metadata = Metadata { nocloud: Some(NoCloud { network_config, ..nocloud }), ..Metadata::default() };
        lay_down_metadata(root, root, &metadata).unwrap();
        assert_eq!(text(root, "var/lib/cloud/seed/nocloud/network-config"), "version: 2\n");
        assert!(!text(root, "etc/cloud/cloud.cfg.d/99-bennu.cfg").contains("disabled"));
    }
}
