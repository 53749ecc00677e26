//! Answers that come line by line while work goes on: JSON lines, the last of which is the end.

use axum::{
    body::{Body, Bytes},
    response::{IntoResponse, Response},
};
use bennu_images::import::Cancelled;
use futures_util::{StreamExt, stream};
use http::header;
use serde::Serialize;
use std::io;
use tokio::sync::mpsc;

/// Where the work puts its lines.
pub struct Lines<T>(mpsc::Sender<T>);

impl<T> Clone for Lines<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Lines, and the answer that they become.
pub fn answer<T: Serialize + Send + 'static>() -> (Lines<T>, Response) {
    let (lines, told) = mpsc::channel::<T>(64);
    let encode = |line: T| {
        let mut json = serde_json::to_vec(&line).map_err(io::Error::other)?;
        json.push(b'\n');
        Ok::<_, io::Error>(Bytes::from(json))
    };
    let lines_out = stream::unfold(told, |mut told| async { told.recv().await.map(|line| (line, told)) });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    (Lines(lines), (headers, Body::from_stream(lines_out.map(encode))).into_response())
}

impl<T> Lines<T> {
    /// Says something that the next line makes old: a slow reader misses it.
    pub fn hint(&self, line: T) -> Result<(), Cancelled> {
        match self.0.try_send(line) {
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Cancelled),
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
        }
    }

    /// Says something that nobody is to miss, from a thread that may block.
    pub fn tell(&self, line: T) -> Result<(), Cancelled> {
        self.0.blocking_send(line).map_err(|_| Cancelled)
    }

    /// The same, from a task.
    pub async fn send(&self, line: T) -> Result<(), Cancelled> {
        self.0.send(line).await.map_err(|_| Cancelled)
    }

    /// Waits until the answer's body is gone, with its connection.
    pub async fn closed(&self) {
        self.0.closed().await;
    }

    /// Whether the answer's body is gone, with its connection.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_closed()
    }
}
