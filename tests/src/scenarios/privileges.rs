//! What the running service may do to its host.

use anyhow::{Result, ensure};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
};

use super::bad_input::{refused, source::Tree};
use crate::{
    appliance::{Appliance, Config},
    command,
    harness::Life,
    rack::Rack,
    workshop,
};

/// Root starts the service, and a user of no consequence runs it.
pub const DROPPED: Life = Life {
    name: "privileges",
    shows: &["privileges_are_dropped", "roots_state_is_handed_over", "privileges_need_a_user_and_a_way"],
    live: |story| {
        let rack = story.rack()?;
        let mut bennu = rack.appliance(Config::full().user("root"))?;
        let tree = Tree::new(rack.home(), "tree")?;
        bennu.bennu(["image", "import", &tree.source(), "root:v1"])?;
        bennu.stop()?;
        ensure!(owners(&bennu.state())?.iter().all(|owner| *owner == 0), "user = \"root\" did not stay root");
        bennu.configure(&Config::full())?;
        bennu.start()?;
        story.show("privileges_are_dropped", || dropped(&bennu))?;
        story.show("roots_state_is_handed_over", || handed_over(&tree, &bennu))?;
        story.show("privileges_need_a_user_and_a_way", || refusals(&rack))
    },
};

/// CAP_NET_BIND_SERVICE (10) and CAP_NET_RAW (13).
const KEPT: &str = "0000000000002400";
const NONE: &str = "0000000000000000";

fn dropped(bennu: &Appliance) -> Result<String> {
    let user = command::call("id", ["-u", "bennu"])?;
    let uid = user.trim();
    let group = command::call("id", ["-g", "bennu"])?;
    let four = |id: &str| [id; 4].join("\t");
    for (key, wanted) in [
        ("Uid", four(uid)),
        ("Gid", four(group.trim())),
        ("Groups", String::new()),
        ("CapInh", NONE.into()),
        ("CapPrm", KEPT.into()),
        ("CapEff", KEPT.into()),
        ("CapBnd", KEPT.into()),
        ("CapAmb", NONE.into()),
        ("NoNewPrivs", "1".into()),
    ] {
        let found = bennu.process_status(key)?;
        ensure!(found == wanted, "{key} is '{found}', not '{wanted}'");
    }
    let threads = fs::read_dir(format!("/proc/{}/task", bennu.pid().unwrap_or_default()))?;
    let mut count = 0;
    for thread in threads {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        for line in [format!("Uid:\t{}", four(uid)), format!("CapEff:\t{KEPT}"), "NoNewPrivs:\t1".to_owned()] {
            ensure!(status.lines().any(|found| found == line), "a thread is not like the others:\n{status}");
        }
        count += 1;
    }
    let told = bennu.json(["status"])?;
    ensure!(told["privileges"]["confined"] == true, "it does not say that it is confined: {}", told["privileges"]);
    ensure!(
        told["privileges"]["uid"].as_u64() == uid.parse().ok(),
        "it does not say who it is: {}",
        told["privileges"]
    );
    Ok(format!("user {uid}, {count} threads alike"))
}

/// What root wrote is the user's now, and the work goes on: images are made, and removed.
fn handed_over(tree: &Tree, bennu: &Appliance) -> Result<String> {
    let uid = bennu.process_status("Uid")?.split_whitespace().next().unwrap_or_default().parse::<u32>()?;
    ensure!(owners(&bennu.state())?.iter().all(|owner| *owner == uid), "root still owns files of the state directory");
    let of_root = bennu.digest("root:v1")?;
    bennu.bennu(["image", "import", &tree.source(), "bennu:v1"])?;
    ensure!(bennu.digest("bennu:v1")? == of_root, "the same tree became another image");
    bennu.bennu(["image", "remove", "root:v1"])?;
    let all = owners(&bennu.state())?;
    ensure!(all.iter().all(|owner| *owner == uid), "somebody else owns files of the state directory");
    Ok(format!("{} files", all.len()))
}

/// Owners of everything below a directory, and its own.
fn owners(directory: &Path) -> Result<Vec<u32>> {
    let mut owners = vec![fs::metadata(directory)?.uid()];
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            owners.append(&mut self::owners(&entry.path())?);
        } else {
            owners.push(entry.metadata()?.uid());
        }
    }
    Ok(owners)
}

fn refusals(rack: &Rack) -> Result<String> {
    let namespace = rack.host("refusing", "10.77.0.7/24")?;
    let dir = rack.home().dir().join("refusing");
    fs::create_dir_all(dir.join("closed/state"))?;
    fs::create_dir_all(dir.join("foreign"))?;
    fs::write(dir.join("foreign/mail"), "")?;
    fs::set_permissions(dir.join("closed"), fs::Permissions::from_mode(0o700))?;
    let serve = |user: &str, state: &str| -> Result<Command> {
        let config = format!(
            "user = \"{user}\"\nstate_dir = \"{0}/{state}\"\n[boot]\ninterface = \"net0\"\ndhcp = \"off\"\n\
             [api]\nsocket = \"{0}/bennu.sock\"\n",
            dir.display()
        );
        fs::write(dir.join("bennu.toml"), config)?;
        let mut serve = namespace.command(workshop::bennu_binary()?);
        serve.arg("serve").arg("--config").arg(dir.join("bennu.toml"));
        Ok(serve)
    };
    refused(&mut serve("no-such-user", "state")?, &["no user 'no-such-user'", "useradd --system", "user = \"root\""])?;
    let closed = dir.join("closed").display().to_string();
    refused(&mut serve("bennu", "closed/state")?, &["'bennu' cannot reach", &closed, "chmod o+x"])?;
    refused(&mut serve("bennu", "foreign")?, &["'mail', which is not Bennu's", "state_dir"])?;
    ensure!(fs::metadata(dir.join("foreign/mail"))?.uid() == 0, "it took a file that is not its own");
    Ok(String::new())
}
