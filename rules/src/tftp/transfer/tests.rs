//! Single steps of a transfer.

use super::{
    round_trip::{MAX_RTO, MIN_VARIATION},
    *,
};

const MS: Duration = Duration::from_millis(1);

fn terms(blksize: u16, windowsize: u16, options: &[&str]) -> Terms {
    let answer = options.iter().map(|name| (name.to_string(), "1".to_owned())).collect();
    Terms { blksize, windowsize, timeout: None, answer }
}

fn ack(transfer: &mut Transfer, block: u16, now: Duration) -> Emit {
    transfer.on_packet(&Packet::Ack(block), now).emit
}

fn error(code: u16) -> Packet {
    Packet::Error { code: ErrorCode(code), message: "User aborted".into() }
}

/// Runs into silence: what was sent, and how it ended when.
fn silence(transfer: &mut Transfer, mut then: Then) -> (Vec<Emit>, End, Duration) {
    let (mut sent, mut now) = (Vec::new(), Duration::ZERO);
    loop {
        match then {
            Then::Over(end) => return (sent, end, now),
            Then::WakeAt(at) => {
                now = at;
                let step = transfer.on_timeout(now);
                sent.extend(Some(step.emit).filter(|emit| *emit != Emit::Nothing));
                then = step.then;
            }
        }
    }
}

#[test]
fn a_plain_transfer_runs_in_lockstep() {
    let mut transfer = Transfer::new(1200, &terms(512, 1, &[]));
    assert_eq!(transfer.start(Duration::ZERO).emit, Emit::Blocks(1..=1));
    assert_eq!(ack(&mut transfer, 1, MS), Emit::Blocks(2..=2));
    assert_eq!(ack(&mut transfer, 2, 2 * MS), Emit::Blocks(3..=3));
    assert_eq!(transfer.extent(3), (1024, 176));
    assert_eq!(transfer.on_packet(&Packet::Ack(3), 3 * MS).then, Then::Over(End::Finished));
    assert_eq!(transfer.figures(), Figures { bytes: 1200, resent: 0, timeouts: 0 });
}

#[test]
fn a_file_of_whole_blocks_ends_with_an_empty_one() {
    for (length, last, extent) in [(0, 1, (0, 0)), (512, 2, (512, 0)), (513, 2, (512, 1))] {
        let transfer = Transfer::new(length, &terms(512, 1, &[]));
        assert_eq!((transfer.last, transfer.extent(transfer.last)), (last, extent), "{length}");
    }
}

#[test]
fn a_file_of_one_block_is_finished_by_its_first_ack() {
    let mut transfer = Transfer::new(10, &terms(512, 1, &[]));
    let _ = transfer.start(Duration::ZERO);
    assert_eq!(transfer.on_packet(&Packet::Ack(1), MS).then, Then::Over(End::Finished));
}

#[test]
fn the_probe_of_edk2_frees_the_transfer_at_once() {
    let mut transfer = Transfer::new(173_792, &terms(1468, 4, &["tsize", "blksize", "windowsize"]));
    assert_eq!(transfer.start(Duration::ZERO).emit, Emit::OptionAck);
    assert_eq!(transfer.on_packet(&error(8), MS).then, Then::Over(End::SizeProbe));
}

#[test]
fn an_error_in_mid_transfer_is_the_clients_last_word() {
    let mut transfer = Transfer::new(5000, &terms(512, 1, &["tsize"]));
    let _ = transfer.start(Duration::ZERO);
    assert_eq!(ack(&mut transfer, 0, MS), Emit::Blocks(1..=1));
    let Then::Over(end) = transfer.on_packet(&error(3), 2 * MS).then else { panic!("goes on") };
    assert_eq!(end.to_string(), "the client sent error 3: User aborted");
    assert!(!end.is_complete());
}

#[test]
fn a_peer_that_never_answers_gets_six_packets_of_one_block() {
    for options in [&["blksize", "windowsize"][..], &[]] {
        let mut transfer = Transfer::new(1 << 20, &terms(512, if options.is_empty() { 1 } else { 16 }, options));
        let first = transfer.start(Duration::ZERO);
        let (sent, end, _) = silence(&mut transfer, first.then);
        assert_eq!((sent.len(), end), (5, End::NeverAnswered));
        assert!(sent.iter().all(|emit| *emit == first.emit), "{sent:?}");
    }
}

#[test]
fn a_peer_that_falls_silent_is_freed() {
    let mut transfer = Transfer::new(1 << 20, &terms(512, 4, &["windowsize"]));
    let _ = transfer.start(Duration::ZERO);
    let step = transfer.on_packet(&Packet::Ack(0), MS);
    let (sent, end, at) = silence(&mut transfer, step.then);
    assert_eq!(end, End::FellSilent { after: 0 });
    assert!(at < PATIENCE + 2 * MAX_RTO && sent.len() < 15, "{at:?}, {} resends", sent.len());
}

#[test]
fn a_lost_last_ack_is_waited_for_and_then_freed() {
    let mut transfer = Transfer::new(600, &terms(512, 1, &[]));
    let _ = transfer.start(Duration::ZERO);
    let step = transfer.on_packet(&Packet::Ack(1), MS);
    let (sent, end, at) = silence(&mut transfer.clone(), step.then);
    assert_eq!(end, End::Unconfirmed);
    assert!(at >= FINAL_PATIENCE && at < 2 * FINAL_PATIENCE && sent.len() == 5, "{at:?}, {} resends", sent.len());
    // The same with a client whose host tells that its port is closed.
    assert_eq!(transfer.on_port_closed().then, Then::Over(End::Unconfirmed));
}

#[test]
fn a_client_that_misses_the_last_block_after_all_resends_gets_it_when_it_asks() {
    let mut transfer = Transfer::new(600, &terms(512, 1, &[]));
    let _ = transfer.start(Duration::ZERO);
    let mut step = transfer.on_packet(&Packet::Ack(1), MS);
    for _ in 0..FINAL_RESENDS {
        let Then::WakeAt(at) = step.then else { panic!("over") };
        step = transfer.on_timeout(at);
        assert_eq!(step.emit, Emit::Blocks(2..=2));
    }
    assert_eq!(step.then, Then::WakeAt(MS + FINAL_PATIENCE));
    let asked = 4000 * MS;
    assert_eq!(ack(&mut transfer, 1, asked), Emit::Blocks(2..=2));
    assert_eq!(transfer.on_packet(&Packet::Ack(2), asked + MS).then, Then::Over(End::Finished));
}

#[test]
fn a_repeated_ack_never_repeats_a_lone_block() {
    let mut transfer = Transfer::new(1 << 20, &terms(512, 1, &[]));
    let _ = transfer.start(Duration::ZERO);
    assert_eq!(ack(&mut transfer, 1, 10 * MS), Emit::Blocks(2..=2));
    for at in 11..50 {
        assert_eq!(ack(&mut transfer, 1, at * MS), Emit::Nothing);
    }
    assert_eq!(ack(&mut transfer, 0, 51 * MS), Emit::Nothing);
    assert_eq!(ack(&mut transfer, 2, 52 * MS), Emit::Blocks(3..=3));
}

#[test]
fn a_gap_brings_a_window_from_the_missing_block_once() {
    let mut transfer = Transfer::new(1 << 20, &terms(512, 4, &["windowsize"]));
    let _ = transfer.start(Duration::ZERO);
    assert_eq!(ack(&mut transfer, 0, 10 * MS), Emit::Blocks(1..=4));
    // Block 2 was lost: 3 and 4 each draw an ACK of 1.
    assert_eq!(ack(&mut transfer, 1, 20 * MS), Emit::Blocks(2..=5));
    assert_eq!(ack(&mut transfer, 1, 21 * MS), Emit::Nothing);
    assert_eq!(ack(&mut transfer, 5, 31 * MS), Emit::Blocks(6..=9));
    assert_eq!(transfer.figures().resent, 3);
}

#[test]
fn the_loss_of_a_windows_first_block_is_mended_without_a_timeout() {
    let mut transfer = Transfer::new(1 << 20, &terms(512, 4, &["windowsize"]));
    let _ = transfer.start(Duration::ZERO);
    assert_eq!(ack(&mut transfer, 0, 10 * MS), Emit::Blocks(1..=4));
    assert_eq!(ack(&mut transfer, 4, 20 * MS), Emit::Blocks(5..=8));
    // 6, 7 and 8 came, 5 did not.
    assert_eq!(ack(&mut transfer, 4, 30 * MS), Emit::Blocks(5..=8));
    assert_eq!(ack(&mut transfer, 4, 31 * MS), Emit::Nothing);
    assert_eq!(ack(&mut transfer, 4, 32 * MS), Emit::Nothing);
}

#[test]
fn an_ack_doubled_on_its_way_is_too_early_to_be_an_answer() {
    let mut transfer = Transfer::new(1 << 20, &terms(512, 4, &["windowsize"]));
    let _ = transfer.start(Duration::ZERO);
    assert_eq!(ack(&mut transfer, 0, 10 * MS), Emit::Blocks(1..=4));
    assert_eq!(ack(&mut transfer, 4, 20 * MS), Emit::Blocks(5..=8));
    assert_eq!(ack(&mut transfer, 4, 21 * MS), Emit::Nothing);
}

#[test]
fn the_wait_follows_the_path() {
    for (round_trip, at_most) in [(1, 22), (50, 90), (300, 560)] {
        let mut transfer = Transfer::new(1 << 20, &terms(512, 1, &["blksize"]));
        let mut now = Duration::ZERO;
        let mut step = transfer.start(now);
        for block in 0..40 {
            now += round_trip * MS;
            step = transfer.on_packet(&Packet::Ack(block), now);
        }
        let Then::WakeAt(at) = step.then else { panic!("over") };
        let wait = at - now;
        assert!(wait >= round_trip * MS + MIN_VARIATION && wait <= at_most * MS, "{round_trip} ms: {wait:?}");
    }
}

#[test]
fn a_resent_blocks_ack_measures_nothing() {
    let mut transfer = Transfer::new(1 << 20, &terms(512, 1, &["blksize"]));
    let _ = transfer.start(Duration::ZERO);
    let Then::WakeAt(at) = transfer.on_packet(&Packet::Ack(0), 10 * MS).then else { panic!("over") };
    let _ = transfer.on_timeout(at);
    let before = transfer.rtt.smoothed;
    let _ = transfer.on_packet(&Packet::Ack(1), at + MS);
    assert_eq!(transfer.rtt.smoothed, before);
}

#[test]
fn a_path_slower_than_the_first_guess_is_measured_after_all() {
    for (trip, at_most) in [(300 * MS, 1), (700 * MS, 2)] {
        let mut transfer = Transfer::new(100 * 512, &terms(512, 1, &["blksize"]));
        let mut now = Duration::ZERO;
        let mut step = transfer.start(now);
        for block in 0..20 {
            let arrives = now + trip;
            while let Then::WakeAt(at) = step.then
                && at < arrives
            {
                step = transfer.on_timeout(at);
            }
            now = arrives;
            step = transfer.on_packet(&Packet::Ack(block), now);
        }
        assert!(transfer.figures().resent <= at_most, "{trip:?}: {} blocks twice", transfer.figures().resent);
    }
}

#[test]
fn an_agreed_timeout_is_the_longest_wait() {
    let agreed = Terms { timeout: Some(Duration::from_secs(1)), ..terms(512, 1, &["timeout"]) };
    let mut transfer = Transfer::new(1 << 20, &agreed);
    let first = transfer.start(Duration::ZERO);
    let (_, _, at) = silence(&mut transfer, first.then);
    assert_eq!(at, 4750 * MS);
}

#[test]
fn packets_that_mean_nothing_here_change_nothing() {
    let mut transfer = Transfer::new(5000, &terms(512, 1, &["blksize"]));
    let _ = transfer.start(Duration::ZERO);
    assert_eq!(ack(&mut transfer, 7, MS), Emit::Nothing);
    assert!(transfer.is_half_open());
    let data = Packet::Data { block: 1, payload: vec![0; 4] };
    assert_eq!(transfer.on_packet(&data, MS).emit, Emit::Nothing);
    assert_eq!(ack(&mut transfer, 0, 2 * MS), Emit::Blocks(1..=1));
}

#[test]
fn a_gap_after_a_resend_is_mended_after_a_short_silence() {
    let mut transfer = Transfer::new(100_000, &terms(1000, 8, &["windowsize"]));
    assert_eq!(transfer.start(Duration::ZERO).emit, Emit::OptionAck);
    assert_eq!(ack(&mut transfer, 0, MS), Emit::Blocks(1..=8));
    assert_eq!(ack(&mut transfer, 3, 2 * MS), Emit::Blocks(4..=11), "4 is missed");
    // Silence: the path loses, and the wait has doubled.
    let Then::WakeAt(first) = transfer.wait().then else { panic!("it is over") };
    assert_eq!(transfer.on_timeout(first).emit, Emit::Blocks(4..=11));
    let now = first + MS / 10;
    let step = transfer.on_packet(&Packet::Ack(6), now);
    assert_eq!(step.emit, Emit::Blocks(12..=14), "7 is missed too, or these are echoes");
    let Then::WakeAt(soon) = step.then else { panic!("it is over") };
    assert!(soon < now + 2 * MIN_VARIATION, "{:?}", soon - now);
    assert_eq!(transfer.on_timeout(soon).emit, Emit::Blocks(7..=14));
}

#[test]
fn the_peers_own_timer_is_heard() {
    let mut transfer = Transfer::new(100_000, &terms(1000, 8, &["windowsize"]));
    assert_eq!(transfer.start(Duration::ZERO).emit, Emit::OptionAck);
    assert_eq!(ack(&mut transfer, 0, MS), Emit::Blocks(1..=8));
    let mut now = MS;
    for _ in 0..6 {
        let Then::WakeAt(at) = transfer.wait().then else { panic!("it is over") };
        now = at;
        assert_eq!(transfer.on_timeout(now).emit, Emit::Blocks(1..=8));
    }
    assert_eq!(ack(&mut transfer, 0, now + MS), Emit::Nothing, "an echo of what was just resent");
    assert_eq!(ack(&mut transfer, 0, now + 2 * MIN_VARIATION), Emit::Blocks(1..=8), "nothing that echoes so late");
}
