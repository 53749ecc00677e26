//! What a person at a console is asked of encrypted state. Screen and serial line alike: who answers first counts.

use super::Failed;
use crate::ask::Ears;
use bennu_host::vault::{judge, read_recovery_key};
use bennu_stage1::console;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// A question is said again for whoever comes to the console later.
const AGAIN: Duration = Duration::from_secs(300);

/// For an answer that one may do without.
const MOMENT: Duration = Duration::from_secs(60);

/// Asks until something opens it, which it gives back.
pub fn opened(has_tpm: bool, unlock: &dyn Fn(&[u8]) -> Result<(), Failed>) -> Result<Zeroizing<String>, String> {
    let what = if has_tpm { "recovery key" } else { "passphrase" };
    let question = format!(
        "the state disk is encrypted. Type its {what} and Enter, here or on another console; it is not shown. Nothing is \
         served before"
    );
    let ears = Ears::open();
    let _hidden = ears.hide();
    loop {
        let typed = answered(&ears, &question);
        console::say("trying it");
        // A passphrase counts as it is, and a recovery key as it was made, however it was typed.
        let as_made = read_recovery_key(&typed).map(Zeroizing::new);
        for key in as_made.into_iter().chain([typed]) {
            match unlock(key.as_bytes()) {
                Ok(()) => return Ok(key),
                Err(error) if error.is_wrong() => {}
                Err(error) => return Err(error.told()),
            }
        }
        console::say(&format!("that is not the {what}"));
    }
}

/// Whether this TPM is to open it from now on.
pub fn is_to_be_sealed() -> bool {
    const WORD: &str = "seal";
    console::say(&format!(
        "type {WORD} and Enter within {} s to have this machine's TPM, with Secure Boot as it stands now, open the state disk from \
         the next start on; Enter alone leaves that as it is",
        MOMENT.as_secs()
    ));
    Ears::open().line(MOMENT).is_some_and(|answer| answer.trim() == WORD)
}

/// A new passphrase, typed twice.
pub fn chosen() -> Zeroizing<String> {
    let ears = Ears::open();
    let _hidden = ears.hide();
    loop {
        let first = answered(
            &ears,
            "the state disk is to be encrypted. Type a new passphrase and Enter; it is not shown. It is asked for at each start, \
             and without it the state is lost",
        );
        let again = answered(&ears, "type the passphrase once more and Enter");
        match judge(&first, &again) {
            Ok(()) => return first,
            Err(why) => console::say(why),
        }
    }
}

/// Shows the recovery key, and waits until somebody has noted it: the end of it is asked for, and what was typed before it was
/// shown is nobody's answer.
pub fn noted(key: &str) {
    let ears = Ears::open();
    drop(ears.hide());
    console::say("the key of the state disk is kept in this machine's TPM");
    console::show(&format!(
        "recovery key, which opens the disk without the TPM and is shown now and never again: {key}"
    ));
    let question = "write the recovery key down, then type its last group and Enter: without it, and without this TPM, the state \
                    is lost";
    let end = key.rsplit('-').next().unwrap_or(key);
    loop {
        console::say(question);
        if ears.line(AGAIN).is_some_and(|typed| typed.trim().eq_ignore_ascii_case(end)) {
            return;
        }
    }
}

/// What is typed, without the end of its line.
fn answered(ears: &Ears, question: &str) -> Zeroizing<String> {
    let mut said = None::<Instant>;
    loop {
        if said.is_none_or(|said| said.elapsed() >= AGAIN) {
            said = Some(Instant::now());
            console::say(question);
        }
        if let Some(typed) = ears.secret(AGAIN) {
            let text = typed.trim_end_matches(['\r', '\n']);
            if !text.is_empty() {
                return Zeroizing::new(text.to_owned());
            }
        }
    }
}
