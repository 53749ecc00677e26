//! Reports that machines post.

use crate::{
    parts,
    world::{KNOWN, TOKEN, World},
};
use bennu_plan::Report;
use bennu_rules::{
    Timestamp,
    boot::{
        Boot, MAX_TIMELINE, Token,
        report::{self, ReportRequest, Taken},
    },
    journey,
    settings::DhcpMode,
};

/// Reports as JSON, each led by its length, each under a wrong token and under the right one.
pub fn run(data: &[u8]) {
    let mut world = World::new(DhcpMode::Full);
    for body in parts(data).take(64) {
        world.wait(700);
        let Ok(report) = serde_json::from_slice::<Report>(body) else { continue };
        let from = |token: String| {
            let address = std::net::Ipv4Addr::LOCALHOST.into();
            ReportRequest { token: Token(token), report: report.clone(), proof: None, address, card: None }
        };
        let stranger = world.decide(&from("0".repeat(32)), report::decide);
        assert_eq!(stranger, Taken::UnknownToken, "a token that opens nothing was believed");
        assert_eq!(world.decide(&from(TOKEN.into()), report::decide), Taken::Noted);
        let boot = world.live.boot(KNOWN).expect("the boot stays");
        assert!(boot.timeline.len() <= MAX_TIMELINE);
        for seen in &boot.timeline {
            assert!(seen.seen.to_string().chars().all(|c| !c.is_control()), "a terminal would obey it");
        }
        let stored = serde_json::to_vec(boot).expect("a boot can be stored");
        let read: Boot = serde_json::from_slice(&stored).expect("and read again");
        assert_eq!(&read, boot);
        let _ = journey::diagnose(boot, Timestamp(u64::MAX));
    }
}
