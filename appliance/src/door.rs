//! Asking the first process of an appliance that runs from its disc (`iso/init`, `bennu_host::door`).

use crate::http::api::problem::{Kind, Problem};
use axum::body::BodyDataStream;
use bennu_host::{
    door::{Answer, Disc, LONGEST_LINE, LONGEST_LOGS, Request, Running, SOCKET},
    slots::{Release, Slot},
};
use futures_util::StreamExt;
use std::{io, path::PathBuf, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

/// It answers at once, unless its state disk is very slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// A disc is read twice, from a disk that may be slow.
const INSTALLING: Duration = Duration::from_secs(600);

/// The way to it.
#[derive(Debug, Clone)]
pub struct Door {
    socket: PathBuf,
}

impl Default for Door {
    fn default() -> Self {
        Self { socket: SOCKET.into() }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// A distribution looks after this host.
    #[error(
        "this appliance does not run from Bennu's own disc, so its host is not Bennu's to change. Use the means of its \
         distribution (systemctl reboot, its packages)"
    )]
    NoDisc,
    /// It said no.
    #[error("{what}. {advice}")]
    Refused {
        /// Why.
        what: String,
        /// What to do next.
        advice: String,
    },
    /// The way to it is broken.
    #[error("the first process of the appliance cannot be asked at {}: {why}. Look at the appliance's console", .socket.display())]
    Broken {
        /// Where.
        socket: PathBuf,
        /// How.
        why: String,
    },
}

impl From<DoorError> for Problem {
    fn from(error: DoorError) -> Self {
        match error {
            DoorError::Refused { what, advice } => Self::new(Kind::Conflict, what, advice),
            DoorError::NoDisc => Self::told(Kind::Conflict, &error),
            DoorError::Broken { .. } => Self::told(Kind::Internal, &error),
        }
    }
}

impl Door {
    /// A door that is elsewhere.
    #[cfg(test)]
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// What runs on the host.
    pub async fn describe(&self) -> Result<Running, DoorError> {
        match self.ask(&Request::Describe).await? {
            Answer::Running(running) => Ok(running),
            other => Err(self.broken(format!("it answered {other:?}"))),
        }
    }

    /// Asks for something. A refusal is an error.
    pub async fn ask(&self, request: &Request) -> Result<Answer, DoorError> {
        self.ask_for(request, LONGEST_LINE).await
    }

    /// The ends of the kernel's log and of the appliance's.
    pub async fn logs(&self) -> Result<(String, String), DoorError> {
        match self.ask_for(&Request::Logs, LONGEST_LOGS).await? {
            Answer::Logs { kernel, appliance } => Ok((kernel, appliance)),
            other => Err(self.broken(format!("it answered {other:?}"))),
        }
    }

    /// The answer has so many bytes at most.
    async fn ask_for(&self, request: &Request, most: usize) -> Result<Answer, DoorError> {
        let asked = tokio::time::timeout(PATIENCE, async {
            let mut stream = self.knock(request).await?;
            self.hear(&mut stream, most).await
        });
        asked.await.map_err(|_| self.broken("it does not answer".into()))?
    }

    /// Sends a disc to be installed.
    pub async fn install(&self, disc: Disc, body: &mut BodyDataStream) -> Result<(Slot, Release), DoorError> {
        let mut left = disc.size as usize;
        let mut stream = self.knock(&Request::Install(disc)).await?;
        match tokio::time::timeout(PATIENCE, self.hear(&mut stream, LONGEST_LINE)).await {
            Ok(Ok(Answer::Send)) => {}
            Ok(Ok(other)) => return Err(self.broken(format!("it answered {other:?}"))),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(self.broken("it does not answer".into())),
        }
        // Whatever ends this early is told by the answer.
        while left > 0
            && let Some(Ok(chunk)) = body.next().await
        {
            let chunk = &chunk[..chunk.len().min(left)];
            if stream.write_all(chunk).await.is_err() {
                break;
            }
            left -= chunk.len();
        }
        let _ = stream.shutdown().await;
        let installed = tokio::time::timeout(INSTALLING, self.hear(&mut stream, LONGEST_LINE)).await;
        match installed.map_err(|_| self.broken("it does not answer".into()))?? {
            Answer::Installed { slot, release } => Ok((slot, release)),
            other => Err(self.broken(format!("it answered {other:?}"))),
        }
    }

    async fn knock(&self, request: &Request) -> Result<UnixStream, DoorError> {
        let mut stream = UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DoorError::NoDisc,
            _ => self.broken(error.to_string()),
        })?;
        let mut line = serde_json::to_vec(request).map_err(|error| self.broken(error.to_string()))?;
        line.push(b'\n');
        stream.write_all(&line).await.map_err(|error| self.broken(error.to_string()))?;
        Ok(stream)
    }

    async fn hear(&self, stream: &mut UnixStream, most: usize) -> Result<Answer, DoorError> {
        let mut line = String::new();
        let mut reader = BufReader::new(stream).take(most as u64);
        reader.read_line(&mut line).await.map_err(|error| self.broken(error.to_string()))?;
        match serde_json::from_str(&line) {
            Ok(Answer::Refused { what, advice }) => Err(DoorError::Refused { what, advice }),
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.broken(format!("it answered '{}' ({error})", line.trim()))),
        }
    }

    fn broken(&self, why: String) -> DoorError {
        DoorError::Broken { socket: self.socket.clone(), why }
    }
}
