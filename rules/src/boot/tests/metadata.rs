//! What machines are given by documents.

use super::{super::metadata::MetadataRequest, *};
use crate::metadata::{Document, seed};
use serde_json::json;

impl World {
    fn document(&mut self, json: serde_json::Value) {
        let document: Document = serde_json::from_value(json).unwrap();
        document.check().unwrap();
        self.memory.apply(Change::PutMetadata(document));
    }

    fn labelled(&mut self, key: &str, value: &str) {
        let mut machine = self.memory.machine(MAC).unwrap();
        machine.labels.insert(key.into(), value.into());
        self.memory.apply(Change::PutMachine(machine));
    }

    fn given(&mut self) -> RootPlan {
        match self.plan() {
            Action::Boot(plan) => *plan,
            other => panic!("no boot: {other:?}"),
        }
    }
}

const KEY: &str = "ssh-ed25519 AAAAC3Nz one";
const OTHER_KEY: &str = "ssh-ed25519 AAAAC3Nz two";

#[test]
fn documents_merge_by_priority_and_the_machines_own_comes_last() {
    let mut world = World::new();
    world.image("web:v1", root(1));
    world.assign("web:v1");
    world.labelled("role", "web");
    world.labelled("hostname", "by-label");
    let file = |path: &str, content: &str| json!({ "path": path, "content": content });
    world.document(
        json!({ "name": "zz", "hostname": "zz", "files": [file("/a", "zz"), file("/b", "{{ labels.role }}{{ facts.inventory.disks | default('') }}")],
        "ssh_authorized_keys": { "root": [KEY] } }),
    );
    world.document(json!({ "name": "aa", "hostname": "aa", "files": [file("/a", "aa")] }));
    world.document(json!({ "name": "high", "priority": 5, "selector": "role=web", "user_data": "high" }));
    world.document(json!({ "name": "other", "priority": 9, "selector": "role=db", "user_data": "other" }));
    world.document(json!({ "name": "own", "priority": -9, "machine": MAC, "hostname": "web-{{ machine.hyphened }}",
        "ssh_authorized_keys": { "root": [KEY, OTHER_KEY] } }));
    world.script();
    let plan = world.given();
    assert_eq!(plan.hostname.as_deref(), Some("web-52-54-00-00-00-01"));
    let files: Vec<_> = plan.metadata.files.iter().map(|file| (file.path.as_str(), file.content.as_str())).collect();
    assert_eq!(files, [("/a", "zz"), ("/b", "web")], "of the same priority, the later name's is heard");
    assert_eq!(plan.metadata.ssh_authorized_keys["root"], [KEY, OTHER_KEY]);
    let nocloud = plan.metadata.nocloud.unwrap();
    assert_eq!(nocloud.user_data, "high");
    assert!(nocloud.meta_data.contains(r#""local-hostname":"web-52-54-00-00-00-01""#), "{}", nocloud.meta_data);
    let boot = world.live.boot(MAC).unwrap();
    let names: Vec<_> = boot.metadata.iter().flatten().map(|name| name.as_str()).collect();
    assert_eq!(names, ["aa", "zz", "high", "own"]);
}

#[test]
fn what_a_boot_was_given_holds_until_the_next() {
    let mut world = World::new();
    world.image("web:v1", root(1));
    world.assign("web:v1");
    world.document(json!({ "name": "web", "hostname": "before", "user_data": "{{ boot.id }}" }));
    world.script();
    world.document(json!({ "name": "web", "hostname": "after" }));
    world.document(json!({ "name": "web2", "files": [{ "path": "/x", "content": "" }] }));
    let plan = world.given();
    assert_eq!((plan.hostname.as_deref(), plan.metadata.files.len()), (Some("before"), 0));
    assert_eq!(world.given(), RootPlan { time_ms: plan.time_ms + 1000, ..plan.clone() }, "each time it asks");
    assert_eq!(boot_script(world.script()).arguments.matches("bennu.boot").count(), 1);
    assert_eq!(world.given().hostname.as_deref(), Some("before"), "and after another script");
    world.firmware_starts();
    world.script();
    let plan = world.given();
    assert_eq!((plan.hostname.as_deref(), plan.metadata.files.len()), (Some("after"), 1));
}

#[test]
fn documents_that_come_later_are_not_for_a_boot_that_began_without() {
    let mut world = World::new();
    world.image("web:v1", root(1));
    world.assign("web:v1");
    world.labelled("hostname", "web1");
    world.script();
    world.document(json!({ "name": "web", "hostname": "late" }));
    let plan = world.given();
    assert_eq!(plan.hostname.as_deref(), Some("web1"));
    assert!(plan.metadata.is_empty());
}

#[test]
fn a_machine_is_not_booted_without_what_it_was_to_be_given() {
    let mut world = World::new();
    world.image("web:v1", root(1));
    world.assign("web:v1");
    world.document(json!({ "name": "web", "hostname": "a\n-{{ labels.room }}" }));
    let Script::Refused { reason, advice, .. } = world.script() else { panic!("it boots") };
    assert!(reason.contains("document 'web', hostname, line 2") && reason.contains("labels.room"), "{reason}");
    assert!(advice.contains("bennu metadata render"), "{advice}");
    let boot = world.live.boot(MAC).unwrap();
    assert_eq!(boot.state, State::Failed);
    assert_eq!(boot.diagnosis.as_ref().unwrap().reason, reason);
    let explained = world.run(&request(MAC), explain::decide).0;
    assert!(explained.metadata.unwrap().unwrap_err().to_string().contains("labels.room"));
    world.document(json!({ "name": "web", "hostname": "a-{{ labels.room }}" }));
    world.labelled("room", "r7");
    boot_script(world.script());
    assert_eq!(world.given().hostname.as_deref(), Some("a-r7"), "it goes on by itself once that is mended");
}

#[test]
fn what_a_text_comes_to_must_be_what_it_is_for() {
    for (json, part) in [
        (json!({ "name": "x", "hostname": "a b" }), "host name"),
        (json!({ "name": "x", "ignition": "{ no json" }), "no JSON"),
        (json!({ "name": "x", "user_data": "{{ facts.serial }}" }), "facts.serial"),
    ] {
        let mut world = World::new();
        world.image("web:v1", root(1));
        world.assign("web:v1");
        world.document(json);
        let Script::Refused { reason, .. } = world.script() else { panic!("it boots") };
        assert!(reason.contains(part), "{reason}");
    }
}

#[test]
fn a_machine_that_waited_is_given_its_metadata_with_its_image() {
    let mut world = World::new();
    let kernel = Content::Kernel { kernel: blob(1), modules: blob(2), kernel_release: "6.1.0".into(), layer: None };
    let name = world.settings.discovery_image.to_string();
    world.image(&name, kernel);
    world.memory.apply(Change::PutMachine(Machine::new(MAC, Timestamp(0))));
    world.document(json!({ "name": "web", "hostname": "{{ image.name }}-{{ labels.n }}" }));
    boot_script(world.script());
    assert!(matches!(world.plan(), Action::Discover { .. }));
    world.image("web:v1", root(1));
    world.assign("web:v1");
    let Action::Restart { reason } = world.plan() else { panic!("it boots without its name") };
    assert!(reason.contains("labels.n"), "{reason}");
    world.labelled("n", "1");
    assert_eq!(world.given().hostname.as_deref(), Some("web-1"));
    world.labelled("n", "2");
    assert_eq!(world.given().hostname.as_deref(), Some("web-1"));
}

#[test]
fn foreign_images_are_told_where_their_metadata_is() {
    let mut world = World::new();
    let digest = world.image("flatcar:1", foreign(None));
    let mut image = world.memory.image(&digest).unwrap();
    image.config.cmdline = "ignition.config.url={{ignition}} ds=nocloud-net;s={{nocloud}}".into();
    world.memory.apply(Change::PutImage(image));
    world.assign("flatcar:1");
    let Script::Refused { reason, .. } = world.script() else { panic!("it boots without Ignition") };
    assert!(reason.contains("ignition"), "{reason}");
    world.document(json!({ "name": "ign", "ignition": "{\"ignition\":{\"version\":\"3.4.0\"}}" }));
    let arguments = boot_script(world.script()).arguments;
    let token = world.live.boot(MAC).unwrap().token.clone().unwrap();
    let base = format!("http://10.77.0.1/boot/{}/", token.0);
    assert!(
        arguments.ends_with(&format!("ignition.config.url={base}ignition.json ds=nocloud-net;s={base}nocloud/")),
        "{arguments}"
    );
    let (boot, merged) = world.run(&MetadataRequest { token }, super::super::metadata::decide).0.unwrap();
    assert!(merged.ignition.as_ref().unwrap().value.contains("3.4.0"));
    assert!(seed::nocloud(&boot, &merged).unwrap().meta_data.contains(&boot.id.0));
    let nobody = MetadataRequest { token: Token("0".repeat(32)) };
    assert!(world.run(&nobody, super::super::metadata::decide).0.is_none());
}

#[test]
fn a_file_may_be_a_secret_of_the_machine_which_the_plan_does_not_hold() {
    use crate::secret::{Sealed, Secret, Target};
    let mut world = World::new();
    world.image("web:v1", root(1));
    world.assign("web:v1");
    world.document(json!({ "name": "web", "files": [
        { "path": "/etc/key", "secret": "db" }, { "path": "/etc/plain", "content": "x" } ] }));
    let Script::Refused { reason, .. } = world.script() else { panic!("it boots without its secret") };
    assert!(reason.contains("'web', file /etc/key") && reason.contains("no secret 'db' of this machine"), "{reason}");
    let secret = |target| {
        let value = Sealed { key: "k".into(), text: "sealed".into() };
        let (name, by) = ("db".parse().unwrap(), "test".into());
        Change::PutSecret(Secret { name, target, file: None, value, set: Timestamp(0), by })
    };
    world.memory.apply(secret(Target::Machine(MacAddress([2, 0, 0, 0, 0, 9]))));
    assert!(matches!(world.script(), Script::Refused { .. }), "it is another machine's");
    world.memory.apply(secret(Target::Machine(MAC)));
    boot_script(world.script());
    let files: Vec<_> = world.given().metadata.files.into_iter().map(|file| file.path).collect();
    assert_eq!(files, ["/etc/plain"]);
    let merged = world.memory.rendered(MAC).unwrap().merged;
    let key = &merged.files["/etc/key"].value;
    assert_eq!((key.mode, key.content.as_str(), key.secret.as_ref().unwrap().to_string().as_str()), (0o600, "", "db"));
}

#[test]
fn what_all_documents_cost_is_bounded_and_the_place_is_told() {
    let mut world = World::new();
    world.image("web:v1", root(1));
    world.assign("web:v1");
    let comment = format!("{{# {} #}}", "x".repeat(200_000));
    for n in 0..6 {
        world.document(json!({ "name": format!("d{n}"), "user_data": comment }));
    }
    let Script::Refused { reason, .. } = world.script() else { panic!("it boots") };
    assert!(reason.contains("'d5', user_data: with it, the templates") && reason.contains("1048576"), "{reason}");
    let mut world = World::new();
    world.image("web:v1", root(1));
    world.assign("web:v1");
    let loops = "\n{% for a in range(60) %}{% for b in range(60) %}{{ a }}{% endfor %}{% endfor %}";
    for n in 0..60 {
        world.document(json!({ "name": format!("d{n:02}"), "vendor_data": loops }));
    }
    let Script::Refused { reason, .. } = world.script() else { panic!("it boots") };
    assert!(reason.contains("vendor_data, line 2: with it") && reason.contains("together"), "{reason}");
}
