//! How a request came in. A page asks the API for what it shows and changes, and asks through the door by which whoever
//! looks at it came: it can do no more than they may.

use super::{
    Caller, Guard,
    refusal::Refused,
    sessions::{FormKey, Held},
};
use crate::http::{
    api::problem::Answer,
    connection::{LocalAddr, PeerAddr, PeerUid},
};
use axum::{
    extract::Request,
    http::{Extensions, Method},
};
use bennu_rules::token::Bearer;
use std::sync::Arc;

/// In the extensions of every request of the management plane.
#[derive(Clone)]
pub struct Door {
    pub(super) way: Way,
    /// From where, for what is kept of what they do.
    pub(super) place: Extensions,
}

#[derive(Clone)]
pub(super) enum Way {
    /// Over the local socket.
    Local { caller: Caller, key: FormKey },
    /// With a token; in a browser's session that has a key of its own.
    Token { guard: Arc<Guard>, held: Held, key: Option<FormKey> },
    /// Nobody yet.
    Open { guard: Arc<Guard> },
}

impl Door {
    pub(super) fn new(way: Way, request: &Request) -> Self {
        let (from, mut place) = (request.extensions(), Extensions::new());
        from.get::<PeerAddr>().map(|peer| place.insert(*peer));
        from.get::<LocalAddr>().map(|local| place.insert(*local));
        from.get::<PeerUid>().map(|uid| place.insert(*uid));
        Self { way, place }
    }

    /// Lets a request in as this door's caller, or refuses it as the API would.
    pub fn admit(&self, request: &mut Request) -> Answer<()> {
        let caller = match &self.way {
            Way::Local { caller, .. } => caller.clone(),
            Way::Token { guard, held, .. } => {
                let path = request.uri().path().to_owned();
                guard.judge(*held, request.method(), &path)?.map_err(|refused| refused.problem())?.caller
            }
            Way::Open { .. } => return Err(Refused::NoToken.problem()),
        };
        request.extensions_mut().extend(self.place.clone());
        request.extensions_mut().insert(caller);
        Ok(())
    }

    /// Whether the caller might ask so: for what a page offers.
    pub fn allows(&self, method: &Method, path: &str) -> bool {
        match &self.way {
            Way::Local { .. } => true,
            Way::Token { guard, held, .. } => matches!(guard.judge(*held, method, path), Ok(Ok(_))),
            Way::Open { .. } => false,
        }
    }

    /// What forms must show; `None`: a program came with its token, and no page of another site can.
    pub fn key(&self) -> Option<&FormKey> {
        match &self.way {
            Way::Local { key, .. } => Some(key),
            Way::Token { key, .. } => key.as_ref(),
            Way::Open { .. } => None,
        }
    }

    /// Whether there is a session to end.
    pub fn is_session(&self) -> bool {
        matches!(&self.way, Way::Token { key: Some(_), .. })
    }

    /// Whether it is the local socket, where everybody is in.
    pub fn is_local(&self) -> bool {
        matches!(&self.way, Way::Local { .. })
    }

    /// Begins a session for whoever shows a token that may look at the pages; the answer is the session's cookie.
    pub fn log_in(&self, token: &str) -> Answer<Result<String, Refused>> {
        let (Way::Open { guard } | Way::Token { guard, .. }) = &self.way else { return Ok(Err(Refused::NoToken)) };
        let peer = self.place.get().map(|PeerAddr(peer)| peer.ip().to_canonical());
        guard.log_in(peer, Bearer::parse(token.trim()))
    }

    /// Ends the session of a cookie's value.
    pub fn log_out(&self, cookie: &str) {
        if let Way::Token { guard, .. } = &self.way {
            super::lock(&guard.sessions).end(cookie);
        }
    }
}
