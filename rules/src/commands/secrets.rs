//! Commands about secrets.

use super::{Refusal, machines::Expected, precondition};
use crate::{
    Change, Decision, MacAddress, Moment, View,
    metadata::{Document, MetadataName},
    secret::{HostKeys, Placement, Sealed, Secret, SecretName, Target},
};

/// Secrets that are kept. One answer must hold all of a machine's.
pub const MAX_SECRETS: usize = 1000;

const MAX_PATH: usize = 1024;

/// Sets a secret, or sets it anew.
#[derive(Debug, Clone)]
pub struct SetSecret {
    /// Its name.
    pub name: SecretName,
    /// Whose it is.
    pub target: Target,
    /// Where it is laid down.
    pub file: Option<Placement>,
    /// What it is.
    pub value: Sealed,
    /// Who sets it.
    pub by: String,
    /// The secret looked at.
    pub expected: Option<Expected>,
}

/// The version of a secret: changes whenever it is set.
pub fn version(secret: &Secret) -> String {
    super::version(secret)
}

fn check_expected(name: &SecretName, old: Option<&Secret>, expected: &Option<Expected>) -> Result<(), Refusal> {
    precondition::check(expected, old.map(version), format_args!("secret {name}"), |what| Refusal::Stale { what })
}

/// Carries out [`SetSecret`].
pub fn set(request: &SetSecret, view: &View<'_>, at: &Moment) -> Decision<Result<Secret, Refusal>> {
    let check = || {
        if let Target::Selector(selector) = &request.target
            && selector.looks_at_hardware()
        {
            return Err(bad("/selector", "it looks at what machines say of their own hardware, which could be a lie"));
        }
        request.file.as_ref().map_or(Ok(()), check_placement)?;
        let old = view.records.secret(&request.name);
        check_expected(&request.name, old.as_ref(), &request.expected)?;
        if old.is_none() && view.records.secrets().len() >= MAX_SECRETS {
            return Err(Refusal::TooManySecrets(MAX_SECRETS));
        }
        Ok(())
    };
    if let Err(refusal) = check() {
        return Decision::just(Err(refusal));
    }
    let SetSecret { name, target, file, value, by, expected: _ } = request.clone();
    let secret = Secret { name, target, file, value, set: at.now, by };
    Decision { changes: vec![Change::PutSecret(secret.clone())], ..Decision::just(Ok(secret)) }
}

/// Removes a secret.
#[derive(Debug, Clone)]
pub struct RemoveSecret {
    /// Its name.
    pub name: SecretName,
    /// The secret looked at.
    pub expected: Option<Expected>,
}

/// Carries out [`RemoveSecret`], unless a metadata document names it. What machines that run were given stays with them.
pub fn remove(request: &RemoveSecret, view: &View<'_>, _at: &Moment) -> Decision<Result<(), Refusal>> {
    match view.records.secret(&request.name) {
        Some(secret) => {
            if let Err(refusal) = check_expected(&request.name, Some(&secret), &request.expected) {
                return Decision::just(Err(refusal));
            }
            let documents = named_by(&request.name, view);
            if !documents.is_empty() {
                return Decision::just(Err(Refusal::SecretInUse { name: request.name.clone(), documents }));
            }
            let changes = vec![Change::RemoveSecret(request.name.clone())];
            Decision { changes, ..Decision::just(Ok(())) }
        }
        None => Decision::just(Err(Refusal::UnknownSecret(request.name.clone()))),
    }
}

/// The metadata documents with a file that holds it.
fn named_by(name: &SecretName, view: &View<'_>) -> Vec<MetadataName> {
    let names = |document: &Document| document.files.iter().any(|file| file.secret.as_ref() == Some(name));
    view.records.all_metadata().into_iter().filter(names).map(|document| document.name).collect()
}

/// Keeps the host keys that were made for a machine, unless it has some: of two boots at once the first one's count.
/// `None`: nobody knows the machine any more.
pub fn keep_host_keys(keys: &HostKeys, view: &View<'_>, _at: &Moment) -> Decision<Option<HostKeys>> {
    if let Some(kept) = view.records.host_keys(keys.machine) {
        return Decision::just(Some(kept));
    }
    if view.records.machine(keys.machine).is_none() {
        return Decision::just(None);
    }
    Decision { changes: vec![Change::PutHostKeys(keys.clone())], ..Decision::just(Some(keys.clone())) }
}

/// What becomes of host keys when `other` becomes part of `machine`: it keeps its own, or takes over the other's.
pub(super) fn join_host_keys(machine: MacAddress, other: MacAddress, view: &View<'_>) -> Vec<Change> {
    let Some(theirs) = view.records.host_keys(other) else { return Vec::new() };
    let taken = view.records.host_keys(machine).is_none().then_some(HostKeys { machine, ..theirs });
    taken.map(Change::PutHostKeys).into_iter().chain([Change::RemoveHostKeys(other)]).collect()
}

fn bad(pointer: &'static str, reason: &str) -> Refusal {
    Refusal::BadSecret { pointer, reason: reason.to_owned() }
}

fn check_placement(file: &Placement) -> Result<(), Refusal> {
    let Placement { path, mode, owner } = file;
    let parts = || path.strip_prefix('/').unwrap_or(path).split('/');
    let is_plain = path.starts_with('/') && parts().all(|part| !matches!(part, "" | "." | ".."));
    if !is_plain || path.len() > MAX_PATH || path.chars().any(char::is_control) {
        return Err(bad(
            "/path",
            "write the absolute path of a file, such as /etc/app/key, without '..', '.' and '//'",
        ));
    }
    if matches!(parts().next(), Some("proc" | "sys" | "dev")) {
        return Err(bad(
            "/path",
            "/proc, /sys and /dev are the kernel's; write a path elsewhere, such as /etc or /run",
        ));
    }
    if *mode > 0o777 || mode & 0o400 == 0 {
        return Err(bad("/mode", "write permission bits that let the owner read it, such as 0600"));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let names: Vec<&str> = owner.split(':').collect();
    let is_name = |name: &&str| !name.is_empty() && name.len() <= 32 && name.chars().all(allowed);
    if !owner.is_empty() && (names.len() > 2 || !names.iter().all(is_name)) {
        return Err(bad("/owner", "write a user, or user:group, by name or number"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Live, Machine, Records, Timestamp, memory::Memory, secret::of_machine, settings::Settings};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn mac(n: u8) -> MacAddress {
        MacAddress([2, 0, 0, 0, 0, n])
    }

    fn run<R, A>(memory: &mut Memory, request: &R, rule: fn(&R, &View<'_>, &Moment) -> Decision<A>) -> A {
        let at = Moment { now: Timestamp(1), entropy: [0; 32], settings: Arc::new(Settings::default()) };
        let live = Live::default();
        let decision = rule(request, &View { records: &*memory, live: &live }, &at);
        decision.changes.into_iter().for_each(|change| memory.apply(change));
        decision.answer
    }

    fn sealed() -> Sealed {
        Sealed { key: "k".into(), text: "AAAA".into() }
    }

    fn request(name: &str, target: Target) -> SetSecret {
        let file = Some(Placement { path: format!("/etc/{name}"), mode: 0o600, owner: String::new() });
        SetSecret { name: name.parse().unwrap(), target, file, value: sealed(), by: "test".into(), expected: None }
    }

    fn selector(text: &str) -> Target {
        Target::Selector(text.parse().unwrap())
    }

    fn names(memory: &Memory, n: u8) -> Vec<String> {
        let machine = memory.machine(mac(n)).unwrap();
        of_machine(&machine, memory).iter().map(|secret| secret.name.to_string()).collect()
    }

    #[test]
    fn a_machine_is_given_its_own_and_what_its_labels_say() {
        let mut memory = Memory::default();
        for n in [1, 2] {
            let mut machine = Machine::new(mac(n), Timestamp(0));
            machine.labels.insert("role".into(), format!("r{n}"));
            machine.macs.push(mac(n + 10));
            memory.apply(Change::PutMachine(machine));
        }
        for (name, target) in [
            ("a-own", Target::Machine(mac(11))),
            ("b-role", selector("role=r1")),
            ("c-all", selector("")),
            ("d-other", selector("role=r2")),
            ("e-nobody", Target::Machine(mac(99))),
        ] {
            run(&mut memory, &request(name, target), set).unwrap();
        }
        assert_eq!(names(&memory, 1), ["b-role", "c-all", "a-own"], "a machine's own comes last, and so counts");
        assert_eq!(names(&memory, 2), ["c-all", "d-other"]);
        run(&mut memory, &RemoveSecret { name: "c-all".parse().unwrap(), expected: None }, remove).unwrap();
        assert_eq!(names(&memory, 2), ["d-other"]);
        let unknown =
            run(&mut memory, &RemoveSecret { name: "c-all".parse().unwrap(), expected: None }, remove).unwrap_err();
        assert!(matches!(&unknown, Refusal::UnknownSecret(_)) && !unknown.advice().is_empty());
    }

    #[test]
    fn a_secret_that_a_document_names_stays() {
        let mut memory = Memory::default();
        run(&mut memory, &request("db", selector("")), set).unwrap();
        let document = serde_json::json!({ "name": "web", "files": [{ "path": "/etc/key", "secret": "db" }] });
        memory.apply(Change::PutMetadata(serde_json::from_value(document).unwrap()));
        let removes = RemoveSecret { name: "db".parse().unwrap(), expected: None };
        let refused = run(&mut memory, &removes, remove).unwrap_err();
        assert!(refused.to_string().contains("documents name it: web") && !refused.advice().is_empty(), "{refused}");
        memory.apply(Change::RemoveMetadata("web".parse().unwrap()));
        run(&mut memory, &removes, remove).unwrap();
    }

    #[test]
    fn what_a_machine_says_of_itself_gets_it_nothing() {
        let mut memory = Memory::default();
        let refused = run(&mut memory, &request("x", selector("bennu.manufacturer=Acme")), set).unwrap_err();
        assert!(matches!(refused, Refusal::BadSecret { pointer: "/selector", .. }), "{refused}");
        assert!(memory.secrets().is_empty());
    }

    #[test]
    fn places_that_make_no_sense_are_refused() {
        let place = |path: &str, mode, owner: &str| Placement { path: path.into(), mode, owner: owner.into() };
        for good in
            [place("/etc/a", 0o600, ""), place("/run/b c", 0o440, "app:app"), place("/srv/..a/.b", 0o777, "1000:0")]
        {
            assert_eq!(check_placement(&good), Ok(()), "{good:?}");
        }
        for bad in [
            place("etc/a", 0o600, ""),
            place("/", 0o600, ""),
            place("/etc/", 0o600, ""),
            place("/etc//a", 0o600, ""),
            place("/etc/../a", 0o600, ""),
            place("/etc/a\nb", 0o600, ""),
            place("/proc/1/mem", 0o600, ""),
            place("/dev/sda", 0o600, ""),
            place(&format!("/{}", "a".repeat(1024)), 0o600, ""),
            place("/a", 0o1600, ""),
            place("/a", 0o044, ""),
            place("/a", 0o600, "a:b:c"),
            place("/a", 0o600, "a:"),
            place("/a", 0o600, "../x"),
        ] {
            assert!(check_placement(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn there_is_an_end_to_them() {
        let mut memory = Memory::default();
        for n in 0..MAX_SECRETS {
            memory.apply(Change::PutSecret(Secret {
                name: format!("n{n}").parse().unwrap(),
                target: selector(""),
                file: None,
                value: sealed(),
                set: Timestamp(0),
                by: String::new(),
            }));
        }
        let refused = run(&mut memory, &request("more", selector("")), set).unwrap_err();
        assert_eq!(refused, Refusal::TooManySecrets(MAX_SECRETS));
        run(&mut memory, &request("n7", selector("")), set).unwrap();
    }

    fn keys(n: u8) -> HostKeys {
        let pairs = Sealed { key: "k".into(), text: n.to_string() };
        HostKeys { machine: mac(n), made_for: mac(n), made: Timestamp(0), public: Vec::new(), pairs }
    }

    #[test]
    fn host_keys_are_made_once_and_go_with_their_machine() {
        use crate::commands::machines::{Edit, EditMachine, Forget, edit, forget};
        let mut memory = Memory::default();
        assert_eq!(run(&mut memory, &keys(1), keep_host_keys), None, "for a machine on record alone");
        for n in [1, 2, 3] {
            memory.apply(Change::PutMachine(Machine::new(mac(n), Timestamp(0))));
        }
        assert_eq!(run(&mut memory, &keys(1), keep_host_keys), Some(keys(1)));
        let later = HostKeys { made: Timestamp(9), ..keys(1) };
        assert_eq!(run(&mut memory, &later, keep_host_keys), Some(keys(1)), "the first ones count");
        let join = |into: u8, from: u8| {
            let edit = Edit { join: vec![mac(from)], ..Edit::default() };
            EditMachine { mac: mac(into), edit, own_addresses: Vec::new(), expected: None }
        };
        run(&mut memory, &join(2, 1), edit).unwrap();
        assert_eq!(memory.host_keys(mac(2)), Some(HostKeys { machine: mac(2), ..keys(1) }));
        assert_eq!(memory.host_keys(mac(1)), None);
        run(&mut memory, &keys(3), keep_host_keys);
        run(&mut memory, &join(2, 3), edit).unwrap();
        assert_eq!(memory.host_keys(mac(2)).unwrap().made_for, mac(1), "it keeps its own");
        assert_eq!(memory.host_keys(mac(3)), None);
        run(&mut memory, &Forget { mac: mac(2), expected: None }, forget).unwrap();
        assert_eq!(memory.host_keys(mac(2)), None);
    }

    proptest! {
        /// No path that is taken leads out of the root or into the kernel's filesystems.
        #[test]
        fn paths_stay_where_they_are(path in "(/|\\.|a|proc|dev|\\.\\.|\u{0}|\n){0,8}") {
            let file = Placement { path: path.clone(), mode: 0o600, owner: String::new() };
            if check_placement(&file).is_ok() {
                let parts: Vec<&str> = path.split('/').skip(1).collect();
                prop_assert!(path.starts_with('/') && !parts.is_empty());
                prop_assert!(parts.iter().all(|part| !part.is_empty() && *part != ".." && *part != "."));
                prop_assert!(!["proc", "sys", "dev"].contains(&parts[0]));
            }
        }
    }
}
