use super::*;
use crate::{
    Timestamp,
    facts::{Architecture, Firmware},
    profile::{Fingerprint, Match, Profile},
};
use proptest::prelude::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn parsed(text: &str) -> Selector {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn every_requirement_must_be_met() {
    let web = labels(&[("rack", "r1"), ("role", "web"), ("env", "prod")]);
    for (selector, meant) in [
        ("", true),
        ("  ", true),
        ("rack", true),
        ("!rack", false),
        ("zone", false),
        ("!zone", true),
        ("rack=r1", true),
        ("rack==r1", true),
        ("rack=R1", false),
        ("rack=r2", false),
        ("rack!=r2", true),
        ("rack!=r1", false),
        ("zone!=a", true),
        ("zone=", false),
        ("role in (web,api)", true),
        ("role in ( api , db )", false),
        ("role notin (api)", true),
        ("role notin (web)", false),
        ("zone notin (a)", true),
        ("zone in (a)", false),
        ("rack=r1,role in (web,api),!decommissioned,env!=dev,zone notin (a)", true),
        ("rack=r1, role=db", false),
        ("in", false),
    ] {
        assert_eq!(parsed(selector).matches(&web), meant, "{selector}");
    }
    assert!(parsed("in in (in),notin=notin").matches(&labels(&[("in", "in"), ("notin", "notin")])));
    assert!(parsed(r#"owner="Team A, \"B\" \\""#).matches(&labels(&[("owner", r#"Team A, "B" \"#)])));
    assert!(parsed("zone=").matches(&labels(&[("zone", "")])));
}

#[test]
fn what_is_written_comes_back_in_one_form() {
    for (text, form) in [
        ("", ""),
        ("rack==r1 , role  in(web,api)", "rack=r1,role in (api,web)"),
        ("!x,y!=,z notin (\"\",b)", "!x,y!=\"\",z notin (\"\",b)"),
        ("a=\"plain\"", "a=plain"),
        ("a=Größe", "a=Größe"),
    ] {
        let selector = parsed(text);
        assert_eq!(selector.to_string(), form, "{text}");
        assert_eq!(parsed(form), selector);
        let json = serde_json::to_string(&selector).unwrap();
        assert_eq!(serde_json::from_str::<Selector>(&json).unwrap(), selector);
    }
}

#[test]
fn refusals_name_the_place() {
    for (text, at, said) in [
        ("=a", 0, "expected a label's key"),
        ("rack=r1,", 8, "expected a label's key"),
        ("rack=r1,,role", 8, "expected a label's key"),
        ("rack r1", 5, "expected =, !=, in or notin"),
        ("rack=r1 role=web", 8, "expected a comma"),
        ("role in web", 8, "expected '('"),
        ("role in (web", 12, "expected ',' or ')'"),
        ("role in ()", 9, "expected a value"),
        ("role in (web,)", 13, "expected a value"),
        ("cores>8", 5, "not compared by size"),
        ("cores=a>8", 7, "not compared by size"),
        ("owner=\"Team", 6, "the quote is not closed"),
        ("owner=\"a\\n\"", 8, "after a backslash"),
        ("größe=1", 2, "expected =, !="),
        ("bennu.color=red", 0, "nothing that Bennu derives"),
        ("x,bennu.arch=amd64", 13, "is no architecture"),
        ("bennu.firmware in (bios,efi)", 24, "is no firmware"),
        ("bennu.mac=52:54", 10, "is no MAC address"),
        ("a=\"x\ty\"", 4, "control characters"),
    ] {
        let error = text.parse::<Selector>().unwrap_err();
        assert!(error.reason.contains(said), "{text}: {error}");
        assert_eq!(error.at, at, "{text}: {error}");
        assert!(!error.to_string().contains('\t'), "{error}");
    }
    let long = format!("a in ({}b)", "x,".repeat(3000));
    assert!(long.parse::<Selector>().unwrap_err().reason.contains("more than the 4096"));
    let error = "role in (web".parse::<Selector>().unwrap_err().to_string();
    assert_eq!(error, "selector: expected ',' or ')' after a value (at character 13, its end)");
}

#[test]
fn hardware_is_matched_by_reserved_keys() {
    let mut machine = Machine::new("52:54:00:00:00:01".parse().unwrap(), Timestamp(0));
    machine.macs.push("52:54:00:00:00:02".parse().unwrap());
    machine.labels = labels(&[("rack", "r1"), ("bennu.arch", "arm64")]);
    let profile = Profile {
        name: "r640".parse().unwrap(),
        matches: Match { manufacturer: None, product: Some("poweredge r640".into()) },
        settings: Default::default(),
        example: Fingerprint::default(),
    };
    let settings = Settings { profiles: vec![profile], ..Settings::default() };
    let means = |machine: &Machine, text: &str| parsed(text).matches_machine(machine, &settings);
    assert!(means(&machine, "!bennu.arch,!bennu.profile,bennu.arch!=arm64"));
    machine.facts.architecture = Some(Architecture::X86_64);
    machine.facts.firmware = Some(Firmware::Uefi);
    machine.facts.product = Some("PowerEdge R640 ".into());
    for (text, meant) in [
        ("bennu.arch=x86_64,bennu.firmware=uefi,rack=r1", true),
        ("bennu.arch in (arm64,riscv64)", false),
        ("bennu.arch notin (arm64)", true),
        ("bennu.profile=r640", true),
        ("bennu.product=\"poweredge r640\"", true),
        ("!bennu.serial", true),
        ("bennu.mac=52-54-00-00-00-02", true),
        ("bennu.mac=525400000003", false),
        ("bennu.mac!=525400000001", false),
    ] {
        assert_eq!(means(&machine, text), meant, "{text}");
        assert!(parsed(text).looks_at_hardware());
    }
    // Labels by themselves have no hardware, whatever somebody called a label.
    assert!(!parsed("bennu.arch").matches(&machine.labels));
    assert!(!parsed("rack=r1").looks_at_hardware());
}

proptest! {
    #[test]
    fn nothing_that_is_parsed_panics(text in "\\PC{0,60}") {
        if let Ok(selector) = text.parse::<Selector>() {
            prop_assert_eq!(parsed(&selector.to_string()), selector);
        }
    }

    #[test]
    fn any_value_can_be_written(value in "\\PC{0,40}", other in "\\PC{0,40}") {
        let exact = Selector {
            requirements: vec![Requirement { key: "k".into(), condition: Condition::Is(value.clone()) }],
        };
        prop_assert_eq!(&parsed(&exact.to_string()), &exact);
        prop_assert!(exact.matches(&labels(&[("k", &value)])));
        prop_assert_eq!(exact.matches(&labels(&[("k", &other)])), value == other);
    }
}
