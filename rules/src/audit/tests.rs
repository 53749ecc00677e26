use super::*;
use crate::memory::Memory;

fn mac(last: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, last])
}

#[test]
fn canonical_json_has_one_form() {
    let value: Value = serde_json::from_str(r#" {"b": [1, null, {"z": "é\n\"", "a": true}], "a": {}} "#).unwrap();
    assert_eq!(canonical(&value), r#"{"a":{},"b":[1,null,{"a":true,"z":"é\n\""}]}"#);
}

#[test]
fn what_is_seen_of_a_machine_is_no_write_of_a_person() {
    let mut memory = Memory::default();
    let mut machine = Machine::new(mac(1), Timestamp(5));
    let put = |machine: &Machine| Change::PutMachine(machine.clone());
    assert!(!may_be_of_a_person(&put(&machine), &memory), "it comes on record by itself");
    memory.apply(put(&machine));
    machine.signed_loader = Some(Timestamp(7));
    machine.macs.push(mac(2));
    assert!(!may_be_of_a_person(&put(&machine), &memory));
    machine.labels.insert("rack".into(), "r1".into());
    assert!(may_be_of_a_person(&put(&machine), &memory));
    assert!(!may_be_of_a_person(&Change::RemoveMachine(mac(1)), &memory));
    memory.apply(put(&machine));
    assert!(may_be_of_a_person(&Change::RemoveMachine(mac(1)), &memory));
}

#[test]
fn nothing_of_a_tokens_secret_is_shown() {
    let mut memory = Memory::default();
    let json = format!(
        r#"{{"id":"01020304","name":"ci","role":"push","secret":"sha256:{}","created":7,"by":"local","last_used":9}}"#,
        "ab".repeat(32)
    );
    memory.apply(Change::PutToken(serde_json::from_str(&json).unwrap()));
    let shown = look(&Target::Token(TokenId([1, 2, 3, 4])), &memory).unwrap().to_string();
    assert!(shown.contains("ci") && !shown.contains("abab") && !shown.contains("last_used"), "{shown}");
}

#[test]
fn a_machine_is_found_by_any_mac_that_it_had() {
    let mut machine = Machine::new(mac(1), Timestamp(5));
    machine.macs.push(mac(2));
    let mut memory = Memory::default();
    memory.apply(Change::PutMachine(machine));
    let record = AuditRecord {
        seq: 1,
        at: Timestamp(1),
        who: Who::Local { uid: Some(0), user: Some("root".into()) },
        from: "socket".into(),
        request: String::new(),
        action: Action::Removed,
        target: Target::Machine(mac(1)).name(),
        before: look(&Target::Machine(mac(1)), &memory),
        after: None,
        previous: Digest([0; 32]),
        hash: Digest([0; 32]),
    };
    assert!(record.concerns(mac(1)) && record.concerns(mac(2)) && !record.concerns(mac(3)));
    assert_eq!(look(&Target::Machine(mac(2)), &memory), None, "a card is no machine of its own");
    for text in ["local", "root", "0"] {
        assert!(record.who.is(text), "{text}");
    }
    assert!(!record.who.is("ci") && !record.who.is("roo"));
}
