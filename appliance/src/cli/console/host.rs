//! The machine under the view, where that is the appliance's disc: what its init says, the first token, and its power.

use super::view::{Event, Facts, Power};
use bennu_host::console::{DIRECTORY, MESSAGES, TOKEN};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// The door of init.
const DOOR: &str = "/run/bennu-init.sock";
/// Init answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was read of what init says.
#[derive(Debug, Default)]
pub struct Host {
    read: u64,
}

impl Host {
    /// Takes what is new.
    pub fn look(&mut self, facts: &mut Facts) {
        let directory = Path::new(DIRECTORY);
        facts.host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        facts.token = fs::read_to_string(directory.join(TOKEN)).ok().map(|token| token.trim().to_owned());
        for text in self.new_lines(&directory.join(MESSAGES)) {
            facts.tell(Event { at: facts.now, of: "appliance".into(), text });
        }
    }

    fn new_lines(&mut self, file: &Path) -> Vec<String> {
        let Ok(mut file) = File::open(file) else { return Vec::new() };
        let length = file.metadata().map_or(0, |data| data.len());
        // It began anew.
        if length < self.read {
            self.read = 0;
        }
        let mut text = Vec::new();
        if file.seek(SeekFrom::Start(self.read)).and_then(|_| file.read_to_end(&mut text)).is_err() {
            return Vec::new();
        }
        // A line that is still being written comes with the next look.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.read += whole as u64;
        String::from_utf8_lossy(&text[..whole]).lines().map(str::to_owned).collect()
    }

    /// Nobody sees the first token any more.
    pub fn put_token_away(&self) {
        let _ = fs::remove_file(Path::new(DIRECTORY).join(TOKEN));
    }

    /// Asks init; why it does not do it.
    pub fn power(&self, what: Power) -> Result<(), String> {
        let request = match what {
            Power::Off => "power_off",
            Power::Restart => "restart",
            Power::Reset => "reset",
        };
        let mut request = json!({ "ask": request });
        if what == Power::Reset {
            request["keep_configuration"] = json!(false);
        }
        let answer = ask(&request)
            .map_err(|error| format!("the machine's init cannot be asked: {error}; use the power button"))?;
        if answer["answer"] == "done" { Ok(()) } else { Err(format!("the machine's init says: {}", answer["what"])) }
    }
}

fn ask(request: &Value) -> std::io::Result<Value> {
    let mut stream = UnixStream::connect(DOOR)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "{request}")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_init_are_read_once_and_whole() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("messages");
        let mut host = Host::default();
        assert!(host.new_lines(&file).is_empty());
        fs::write(&file, "one\ntw").unwrap();
        assert_eq!(host.new_lines(&file), ["one"]);
        fs::write(&file, "one\ntwo\n").unwrap();
        assert_eq!(host.new_lines(&file), ["two"]);
        fs::write(&file, "new\n").unwrap();
        assert_eq!(host.new_lines(&file), ["new"]);
    }
}
