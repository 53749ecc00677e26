//! The door: what the service, or root, asks this program for (`bennu_host::door`).

use crate::area::Area;
use crate::install::{self, Install};
use crate::logs::say;
use crate::{power, release, reset, slots, state, told};
use bennu_host::door::{Answer, LONGEST_LINE, Request, Running, SOCKET};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

/// The service's user.
const USER: &str = "bennu";
/// Who says nothing for so long is not listened to any more.
const PATIENCE: Duration = Duration::from_secs(30);
/// The service tells its own caller before it is ended.
const FAREWELL: Duration = Duration::from_millis(500);

/// Opens it, for as long as the machine runs.
pub fn open() {
    let user = user(&std::fs::read_to_string("/etc/passwd").unwrap_or_default());
    let listener = match bind(user) {
        Ok(listener) => listener,
        Err(error) => return say(&format!("cannot listen at {SOCKET}: {error}; nothing can be asked of this host")),
    };
    let wait = move || {
        for stream in listener.incoming().flatten() {
            let serve = move || {
                if let Err(error) = serve(stream, user) {
                    say(&format!("who asked at {SOCKET} was not answered: {error}"));
                }
            };
            drop(std::thread::Builder::new().name("asked".into()).stack_size(256 * 1024).spawn(serve));
        }
    };
    drop(std::thread::Builder::new().name("door".into()).stack_size(128 * 1024).spawn(wait));
}

/// The service's user and group, of `/etc/passwd`.
fn user(passwd: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let numbers = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        (name == USER).then_some(numbers)
    })
}

fn bind(user: Option<(u32, u32)>) -> std::io::Result<UnixListener> {
    let _ = std::fs::remove_file(SOCKET);
    let listener = UnixListener::bind(SOCKET)?;
    std::fs::set_permissions(SOCKET, std::fs::Permissions::from_mode(0o660))?;
    chown(SOCKET, Some(0), user.map(|(_, group)| group))?;
    Ok(listener)
}

fn serve(stream: UnixStream, user: Option<(u32, u32)>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let peer = rustix::net::sockopt::socket_peercred(&stream)?.uid.as_raw();
    let mut reader = BufReader::new(stream.try_clone()?);
    let (answer, then) = if peer == 0 || user.is_some_and(|(uid, _)| uid == peer) {
        heard(&mut reader, &mut |answer| say_to(&stream, answer))?
    } else {
        (Answer::refused(format!("user {peer} may ask nothing here"), "ask the API"), None)
    };
    say_to(&stream, &answer)?;
    drop((reader, stream));
    if let Some(then) = then {
        then();
    }
    Ok(())
}

fn say_to(mut stream: &UnixStream, answer: &Answer) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// What is done once the answer is on its way.
type Then = fn();

/// `before` says something before the answer.
fn heard(
    reader: &mut impl BufRead,
    before: &mut dyn FnMut(&Answer) -> std::io::Result<()>,
) -> std::io::Result<(Answer, Option<Then>)> {
    let mut line = String::new();
    reader.by_ref().take(LONGEST_LINE as u64).read_line(&mut line)?;
    Ok(match serde_json::from_str(&line) {
        Ok(Request::Describe) => (Answer::Running(running()), None),
        Ok(Request::Logs) => (told::logs(), None),
        Ok(Request::Restart) => {
            say("a restart was asked for");
            (Answer::Done, Some(|| power::restart(FAREWELL)))
        }
        Ok(Request::PowerOff) => {
            say("to be switched off was asked for");
            let then = || {
                std::thread::sleep(FAREWELL);
                power::off()
            };
            (Answer::Done, Some(then))
        }
        Ok(Request::Reset(wanted)) => match reset::begin(wanted) {
            Ok(()) => (Answer::Done, Some(|| power::restart(FAREWELL))),
            Err(why) => (Answer::refused(why, "look at the state disk"), None),
        },
        Ok(Request::Install(disc)) => match Install::begin(&disc) {
            Ok(install) => {
                before(&Answer::Send)?;
                (install.run(reader), None)
            }
            Err(refusal) => (refusal, None),
        },
        Err(error) => (
            Answer::refused(format!("the request is not understood: {error}"), "ask with the disc's own program"),
            None,
        ),
    })
}

fn running() -> Running {
    let release = release::of_this_disc();
    let state_disk = state::area().map(Area::told);
    let slots = slots::read().unwrap_or_default();
    Running {
        version: release.version,
        built: release.built,
        from: slots::running().into(),
        state_disk,
        slots: slots.standing(),
        failed: slots.failure().map(|release| release.version.clone()),
        upgradable: install::has_key(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_user_is_found() {
        let passwd = "root:x:0:0:root:/:/x\nbennu:x:900:901:Bennu:/var/lib/bennu:/x\n";
        assert_eq!(user(passwd), Some((900, 901)));
        assert_eq!(user("root:x:0:0:root:/:/x\n"), None);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in ["", "x\n", "{\"ask\":\"dance\"}\n"] {
            let (answer, then) = heard(&mut bad.as_bytes(), &mut |_| Ok(())).unwrap();
            assert!(matches!(answer, Answer::Refused { .. }) && then.is_none(), "{bad}");
        }
        let (answer, then) = heard(&mut "{\"ask\":\"describe\"}\n".as_bytes(), &mut |_| Ok(())).unwrap();
        assert!(matches!(answer, Answer::Running(_)) && then.is_none());
    }
}
