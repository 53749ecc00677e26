use super::*;
use crate::{
    image::{ImageConfig, Verity},
    settings::Settings,
};
use bennu_plan::Action;
use std::sync::Arc;

fn at(ms: u64) -> Moment {
    Moment { now: Timestamp(1_000_000 + ms), entropy: [7; 32], settings: Arc::new(Settings::default()) }
}

fn blob(n: u8) -> BlobRef {
    BlobRef { digest: Digest([n; 32]), size: 4096 }
}

fn request(content: Content) -> TrialRequest {
    let config = ImageConfig {
        architecture: Architecture::X86_64,
        cmdline: "quiet console=ttyS1 panic=30".into(),
        content,
        signed: None,
        os: None,
        derived: None,
        entry: None,
        labels: Default::default(),
        tools: Default::default(),
    };
    let image = Image {
        digest: Digest([9; 32]),
        manifest_size: 1,
        config_blob: blob(8),
        config,
        imported: Timestamp(0),
        source: "test".into(),
        verdict: None,
        adopted: false,
    };
    TrialRequest { image, reference: "web:v3".parse().unwrap(), stage1: blob(1), expect: None }
}

fn root() -> Content {
    let verity = Some(Verity { tree: blob(5), root_hash: Digest([6; 32]) });
    Content::Root {
        kernel: blob(2),
        modules: blob(3),
        root: blob(4),
        filesystem: Default::default(),
        verity,
        kernel_release: "6.1.0".into(),
    }
}

fn kernel() -> Content {
    Content::Kernel { kernel: blob(2), modules: blob(3), kernel_release: "6.1.0".into(), layer: None }
}

fn foreign() -> Content {
    Content::Foreign { kernel: blob(2), initrds: vec![blob(3)], efi: None, files: Vec::new() }
}

fn token(start: &Start) -> Token {
    let url = start.arguments.split(' ').find_map(|word| word.strip_prefix("bennu.boot=http://192.0.2.1/boot/"));
    Token(url.unwrap().trim_end_matches('/').to_owned())
}

fn report(trial: &mut Trial, token: &Token, step: Step, message: &str) {
    let report = Report { step, message: message.into(), bytes: 0, uptime_ms: 0, inventory: None };
    assert!(trial.report(token.clone(), report, &at(500)));
}

fn reason(verdict: Verdict) -> String {
    let Verdict::Failed(Diagnosis { reason, .. }) = verdict else { panic!("it passed") };
    reason
}

#[test]
fn a_good_image_passes_when_it_says_that_it_is_up() {
    let (mut trial, start) = Trial::begin(&request(root()), &at(0)).unwrap();
    assert_eq!((start.kernel.clone(), start.initrds.clone()), (blob(2), vec![blob(3), blob(1)]));
    assert!(start.arguments.starts_with("quiet console=ttyS0,115200 panic=1 bennu.boot="), "{}", start.arguments);
    assert!(
        start.arguments.ends_with("/ bennu.ip=192.0.2.2/255.255.255.0/192.0.2.1/ BOOTIF=01-52-54-00-74-72-79"),
        "{}",
        start.arguments
    );
    let token = token(&start);
    let Action::Boot(plan) = trial.plan(token.clone(), &at(100)).unwrap().action else { panic!("no boot") };
    assert_eq!(plan.image, "web:v3");
    assert_eq!(plan.root.url, format!("http://192.0.2.1/blobs/sha256/{}", blob(4).digest.hex()));
    for step in [Step::Started, Step::Downloading, Step::Verified, Step::HandedOver] {
        report(&mut trial, &token, step, "");
        assert_eq!(trial.verdict(), None);
    }
    report(&mut trial, &token, Step::Up, "web1 runs web:v3");
    assert_eq!(trial.verdict(), Some(Verdict::Passed));
}

#[test]
fn a_machine_reaches_what_its_image_has_and_nothing_else() {
    let (mut trial, _) = Trial::begin(&request(root()), &at(0)).unwrap();
    for n in 1..=5 {
        assert!(trial.serves(&blob(n).digest), "{n}");
    }
    assert!(!trial.serves(&blob(7).digest));
    assert_eq!(trial.plan(Token("0".repeat(32)), &at(1)), None);
    let up = Report { step: Step::Up, message: String::new(), bytes: 0, uptime_ms: 0, inventory: None };
    assert!(!trial.report(Token("0".repeat(32)), up, &at(1)));
    assert_eq!(trial.verdict(), None);
}

#[test]
fn what_stage_1_says_is_the_reason() {
    let (mut trial, start) = Trial::begin(&request(root()), &at(0)).unwrap();
    report(&mut trial, &token(&start), Step::Failed, "fetching the root: sha256:04 is damaged");
    assert_eq!(reason(trial.verdict().unwrap()), "fetching the root: sha256:04 is damaged");
}

#[test]
fn a_machine_that_ends_early_says_why_when_its_kernel_did() {
    let (mut trial, start) = Trial::begin(&request(root()), &at(0)).unwrap();
    report(&mut trial, &token(&start), Step::HandedOver, "/sbin/init");
    assert!(
        reason(trial.end(Ending::MachineOff))
            .ends_with("last it was seen: handed over to the image's init: /sbin/init")
    );
    trial.read_console("[    3.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100 ");
    let why = "the kernel panicked: Attempted to kill init! exitcode=0x00000100";
    assert_eq!(reason(trial.end(Ending::MachineOff)), why);
    assert_eq!(reason(trial.end(Ending::TimeOver(300))), why);
}

#[test]
fn a_test_that_takes_too_long_says_what_never_came() {
    let (mut trial, start) = Trial::begin(&request(root()), &at(0)).unwrap();
    let never = reason(trial.end(Ending::TimeOver(300)));
    assert!(never.starts_with("not up within 300 s: ") && never.contains("stage 1 never reported"), "{never}");
    report(&mut trial, &token(&start), Step::HandedOver, "");
    let hangs = reason(trial.end(Ending::TimeOver(20)));
    assert!(hangs.contains("the system never said that it is up"), "{hangs}");
}

#[test]
fn a_kernel_image_passes_when_stage_1_waits() {
    let (mut trial, start) = Trial::begin(&request(kernel()), &at(0)).unwrap();
    let token = token(&start);
    assert!(matches!(trial.plan(token.clone(), &at(1)).unwrap().action, Action::Discover { .. }));
    report(&mut trial, &token, Step::Waiting, "");
    assert_eq!(trial.verdict(), Some(Verdict::Passed));
}

#[test]
fn a_foreign_image_needs_a_text_to_wait_for() {
    let refusal = Trial::begin(&request(foreign()), &at(0)).unwrap_err();
    assert!(matches!(refusal, TrialRefusal::Foreign(_)) && refusal.advice().contains("--expect"));
    let asked = TrialRequest { expect: Some("login:".into()), ..request(foreign()) };
    let (mut trial, start) = Trial::begin(&asked, &at(0)).unwrap();
    assert_eq!(start.initrds, [blob(3)]);
    assert!(!start.arguments.contains("bennu."), "{}", start.arguments);
    trial.read_console("Booting");
    assert_eq!(trial.verdict(), None);
    assert_eq!(reason(trial.end(Ending::TimeOver(9))), "the console did not show 'login:' within 9 s");
    trial.read_console("installer login: ");
    assert_eq!(trial.verdict(), Some(Verdict::Passed));
}

#[test]
fn a_text_is_waited_for_beside_the_report() {
    let asked = TrialRequest { expect: Some("ready".into()), ..request(root()) };
    let (mut trial, start) = Trial::begin(&asked, &at(0)).unwrap();
    report(&mut trial, &token(&start), Step::Up, "");
    assert_eq!(trial.verdict(), None);
    assert!(reason(trial.end(Ending::TimeOver(9))).contains("did not show 'ready'"));
    trial.read_console("service ready.");
    assert_eq!(trial.verdict(), Some(Verdict::Passed));
}

#[test]
fn other_processors_and_hosts_without_memory_are_refused() {
    let mut asked = request(root());
    asked.image.config.architecture = Architecture::Arm64;
    assert!(matches!(Trial::begin(&asked, &at(0)), Err(TrialRefusal::Architecture { .. })));
    assert_eq!(check_memory(2048, 2560), Ok(()));
    let refusal = check_memory(2048, 2559).unwrap_err();
    assert!(refusal.to_string().contains("needs 2560 MiB") && refusal.advice().contains("--memory"), "{refusal}");
}
