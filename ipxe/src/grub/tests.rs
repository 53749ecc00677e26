use super::*;
use bennu_rules::{
    MacAddress,
    boot::{BootId, script::NamedUrl},
    image::Digest,
};

const MACHINE: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 1]);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

fn file(name: &str) -> NamedUrl {
    NamedUrl { name: name.into(), url: format!("(tftp,{SERVER})/blobs/sha256/{}", "ab".repeat(32)) }
}

fn boot_script(arguments: &str) -> BootScript {
    BootScript {
        machine: MACHINE,
        boot: BootId("0199c0ffee0-12345678".into()),
        discovers: false,
        image: "web:v3".into(),
        digest: Digest([0xab; 32]),
        way: Way::Kernel,
        kernel: file("kernel"),
        initrds: vec![file("modules.img"), file("stage1.img")],
        arguments: arguments.into(),
        stage1: true,
        again: String::new(),
    }
}

const ARGUMENTS: &str = r#"console=tty0 console=ttyS0 dyndbg="file x.c +p" bennu.boot=http://10.77.0.1/boot/00ff/ BOOTIF=01-52-54-00-00-00-01"#;

#[test]
fn every_script_reads_as_reviewed() {
    insta::assert_snapshot!("grub_entry", entry(SERVER));
    let boot = |script| render(&Script::Boot(script)).unwrap();
    insta::assert_snapshot!("grub_boot", boot(boot_script(ARGUMENTS)));
    insta::assert_snapshot!("grub_discover", boot(BootScript { discovers: true, ..boot_script(ARGUMENTS) }));
    insta::assert_snapshot!("grub_foreign", boot(BootScript { initrds: Vec::new(), ..boot_script("quiet") }));
    let program = BootScript { way: Way::Program, initrds: Vec::new(), ..boot_script("quiet") };
    insta::assert_snapshot!("grub_program", boot(program.clone()));
    assert!(render(&Script::Boot(BootScript { way: Way::Disc, ..program })).is_err());
    let again = String::new();
    insta::assert_snapshot!("grub_wait", render(&Script::Wait { machine: MACHINE, again: again.clone() }).unwrap());
    insta::assert_snapshot!("grub_local", render(&Script::Local { machine: MACHINE, firmware: None }).unwrap());
    let reason = "the image's name $web:v9 does not exist".to_owned();
    let refused = Script::Refused { machine: MACHINE, reason, advice: "Import it".into(), again };
    insta::assert_snapshot!("grub_refused", render(&refused).unwrap());
    let restart = Script::Restart { machine: MACHINE, reason: "the loaders are another vendor's".into() };
    insta::assert_snapshot!("grub_restart", render(&restart).unwrap());
    insta::assert_snapshot!("grub_failure", failure("the ledger's disk failed:\n${evil}\\"));
}

#[test]
fn what_grub_or_the_kernel_would_read_otherwise_is_refused() {
    for evil in ["a\nreboot", "a\rreboot", "a\0b", "a\\", "x=it's", "x=\"open"] {
        assert!(render(&Script::Boot(boot_script(evil))).is_err(), "{evil:?} came through");
    }
    assert!(render(&Script::Boot(boot_script(&"x".repeat(2000)))).is_err());
}

#[test]
fn what_grub_gives_a_meaning_stands_in_quotes() {
    for (arguments, rendered) in [
        ("a;reboot", "'a;reboot'"),
        ("$x", "'$x'"),
        ("${x}", "'${x}'"),
        ("a && reboot", "a '&&' reboot"),
        ("{ a }", "'{' a '}'"),
        ("#a", "'#a'"),
        ("a|b>c<d", "'a|b>c<d'"),
        ("x=\"a b\" y", "'x=a b' y"),
    ] {
        let script = render(&Script::Boot(boot_script(arguments))).unwrap();
        let line = script.lines().find(|line| line.starts_with("if linux ")).unwrap();
        let after = line.split_once(&"ab".repeat(32)).unwrap().1;
        assert_eq!(after, format!(" {rendered}; then"), "{arguments}");
    }
}
