//! Boots of machines that assignment rules mean.

use super::*;
use crate::{
    assignment::{Origin, Resolution},
    rule::Rule,
};

impl World {
    fn rule(&mut self, name: &str, selector: &str, image: &str, priority: i32) {
        let (name, selector, image) = (name.parse().unwrap(), selector.parse().unwrap(), image.parse().unwrap());
        self.memory.apply(Change::PutRule(Rule { name, selector, image, priority, description: String::new() }));
    }

    fn label(&mut self, key: &str, value: &str) {
        let mut machine = self.memory.machine(MAC).unwrap_or_else(|| Machine::new(MAC, Timestamp(0)));
        machine.labels.insert(key.into(), value.into());
        self.memory.apply(Change::PutMachine(machine));
    }

    /// What it would boot, by which rule, and every rule that means it.
    fn explained(&mut self) -> (String, Option<String>, Vec<String>) {
        let explained = self.run(&request(MAC), explain::decide).0;
        let (image, origin) = match explained.resolution {
            Resolution::Image { reference, origin, .. } => (reference.to_string(), origin),
            other => (format!("{other:?}"), Origin::UnknownPolicy),
        };
        let rule = match origin {
            Origin::Rule { name } => Some(name.to_string()),
            _ => None,
        };
        (image, rule, explained.rules.iter().map(|rule| rule.name.to_string()).collect())
    }
}

#[test]
fn the_own_assignment_wins_over_rules_and_rules_win_by_priority_then_by_name() {
    let mut world = World::new();
    for name in ["own:v1", "base:v1", "web:v1", "other:v1"] {
        world.image(name, root(1));
    }
    world.settings.unknown = UnknownPolicy::Image("other:v1".parse().unwrap());
    world.label("role", "web");
    assert_eq!(world.explained(), ("other:v1".into(), None, vec![]));
    world.rule("m-base", "", "base:v1", 0);
    world.rule("b-web", "role=web", "web:v1", 10);
    world.rule("a-web", "role in (web,api)", "base:v1", 10);
    world.rule("z-not", "role=db", "own:v1", 99);
    let all = ["a-web", "b-web", "m-base"].map(String::from).to_vec();
    assert_eq!(world.explained(), ("base:v1".into(), Some("a-web".into()), all.clone()));
    assert_eq!(boot_script(world.script()).image, "base:v1");
    world.assign("own:v1");
    assert_eq!(world.explained(), ("own:v1".into(), None, all));
}

#[test]
fn a_rule_for_all_means_a_machine_that_nobody_knew() {
    let mut world = World::new();
    world.image("base:v1", root(1));
    world.rule("base", "!role", "base:v1", 0);
    world.settings.unknown = UnknownPolicy::Ignore;
    assert_eq!(world.firmware_starts().image.unwrap().reference.to_string(), "base:v1");
    assert_eq!(boot_script(world.script()).image, "base:v1");
}

#[test]
fn a_waiting_machine_goes_on_when_a_rule_begins_to_mean_it() {
    let mut world = World::new();
    let kernel = Content::Kernel { kernel: blob(1), modules: blob(2), kernel_release: "6.1.0".into(), layer: None };
    world.image("discovery:latest", kernel);
    world.image("web:v1", root(1));
    world.rule("web", "role=web", "web:v1", 0);
    assert!(boot_script(world.script()).discovers);
    assert!(matches!(world.plan(), Action::Discover { .. }));
    world.label("role", "web");
    assert!(matches!(world.plan(), Action::Boot(plan) if plan.image == "web:v1"));
    // It holds for the whole boot.
    world.memory.apply(Change::RemoveRule("web".parse().unwrap()));
    assert!(matches!(world.plan(), Action::Boot(plan) if plan.image == "web:v1"));
}

#[test]
fn a_rule_whose_image_is_gone_is_named_and_nothing_else_boots() {
    let mut world = World::new();
    world.image("base:v1", root(1));
    world.label("role", "web");
    world.rule("base", "", "base:v1", 0);
    world.rule("web", "role=web", "web:v9", 1);
    let Script::Refused { reason, advice, .. } = world.script() else { panic!() };
    assert_eq!(reason, "the image web:v9 that the rule 'web' gives it does not exist");
    assert!(advice.contains("bennu rule set"), "{advice}");
    world.image("web:v9", root(1));
    assert_eq!(boot_script(world.script()).image, "web:v9");
}

#[test]
fn hardware_that_is_told_with_the_script_chooses_the_rule_of_that_very_boot() {
    let mut world = World::new();
    world.image("base:v1", root(1));
    world.image("arm:v1", root(4));
    world.rule("base", "", "base:v1", 0);
    world.rule("arm", "bennu.arch=arm64", "arm:v1", 1);
    // DHCP knows nothing of the hardware yet.
    assert_eq!(world.firmware_starts().image.unwrap().reference.to_string(), "base:v1");
    let mut asked = request(MAC);
    asked.facts.architecture = Some(Architecture::Arm64);
    assert_eq!(boot_script(world.run(&asked, script::decide).0).image, "arm:v1");
    // Once a script was handed out, another word of the hardware moves nothing.
    asked.facts.architecture = Some(Architecture::X86_64);
    assert_eq!(boot_script(world.run(&asked, script::decide).0).image, "arm:v1");
}
