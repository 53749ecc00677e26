//! A TPM 2.0 in software for a machine of the rack.

use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    rc::Rc,
    time::{Duration, Instant},
};

use crate::home::Home;

/// A TPM that runs as long as the machine is on. What it keeps outlives it.
#[derive(Debug)]
pub struct Tpm {
    home: Rc<Home>,
    program: Child,
}

impl Tpm {
    /// Where it listens, for a machine with this name.
    pub fn socket(home: &Home, machine: &str) -> PathBuf {
        home.socket(&format!("{machine}.tpm"))
    }

    /// Starts it.
    pub fn start(home: &Rc<Home>, machine: &str, state: &Path) -> Result<Self> {
        fs::create_dir_all(state)?;
        let socket = Self::socket(home, machine);
        // Of one that was killed.
        let _ = fs::remove_file(&socket);
        let mut swtpm = Command::new("swtpm");
        swtpm.args(["socket", "--tpm2", "--tpmstate"]).arg(format!("dir={}", state.display()));
        swtpm.arg("--ctrl").arg(format!("type=unixio,path={}", socket.display()));
        let errors = fs::File::create(state.join("errors"))?;
        let program =
            swtpm.stdin(Stdio::null()).stderr(errors).spawn().context("cannot start swtpm: run scripts/setup")?;
        home.note_process(program.id())?;
        let tpm = Self { home: Rc::clone(home), program };
        let until = Instant::now() + Duration::from_secs(20);
        while !socket.exists() {
            ensure!(Instant::now() < until, "swtpm does not listen at {}", socket.display());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(tpm)
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
        self.home.forget_process(self.program.id());
    }
}
