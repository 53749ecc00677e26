//! Sessions of browsers: who logged in with which token. They are kept in memory and end with the service.

use super::digest_of;
use bennu_rules::{Timestamp, image::Digest, token::TokenId};
use std::{collections::BTreeMap, fmt::Write as _, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The cookie. The prefix makes browsers hold it to this host, to TLS and to the whole site (RFC 6265bis §4.1.3.2).
pub const COOKIE: &str = "__Host-bennu";

/// A session that nobody uses ends.
pub const IDLE_MS: u64 = 2 * 3_600_000;

/// Every session ends.
pub const LASTS_MS: u64 = 12 * 3_600_000;

/// Sessions at once; beyond that the one that was used least of late gives way.
pub const MAX_SESSIONS: usize = 1024;

/// Sessions of one token at once, so that one cannot take the place of all others.
pub const MAX_OF_A_TOKEN: usize = 64;

/// What a request must show beside the cookie to change something: another site cannot read it out of our pages.
#[derive(Clone, PartialEq, Eq)]
pub struct FormKey(String);

impl FormKey {
    /// A new one.
    pub fn random() -> Self {
        Self(hex(&rand::random()))
    }

    /// As forms and the `X-Bennu-Key` header carry it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `shown` is it, compared in a time that tells nothing.
    pub fn is(&self, shown: &str) -> bool {
        let (own, shown) = (self.0.as_bytes(), shown.as_bytes());
        let differs = own.iter().zip(shown).fold(0, |differs, (a, b)| differs | (a ^ b));
        own.len() == shown.len() && std::hint::black_box(differs) == 0
    }
}

impl std::fmt::Debug for FormKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FormKey(…)")
    }
}

/// A token as it was shown: which, and the SHA-256 of its secret. Every request of a session is judged by it anew, so that
/// a token's end is its sessions' end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Which token.
    pub id: TokenId,
    /// SHA-256 of its secret.
    pub secret: Digest,
}

/// One browser that logged in.
#[derive(Debug, Clone)]
pub struct Session {
    /// By which token.
    pub held: Held,
    /// What its writes must show.
    pub key: FormKey,
    began: Timestamp,
    used: Timestamp,
    ended: CancellationToken,
}

/// When a session ends, for answers that go on as long as somebody listens.
#[derive(Debug, Clone)]
pub struct SessionEnd {
    ended: CancellationToken,
    at: Instant,
}

impl SessionEnd {
    /// Waits for it.
    pub async fn comes(self) {
        let _ = tokio::time::timeout_at(self.at, self.ended.cancelled()).await;
    }
}

impl Session {
    fn has_ended(&self, now: Timestamp) -> bool {
        now.since(self.used) >= IDLE_MS || now.since(self.began) >= LASTS_MS
    }

    /// Its end: somebody ends it, or its time is over.
    pub fn end(&self, now: Timestamp) -> SessionEnd {
        let left = LASTS_MS.saturating_sub(now.since(self.began));
        SessionEnd { ended: self.ended.clone(), at: Instant::now() + Duration::from_millis(left) }
    }
}

/// All of them, by the SHA-256 of their cookie: whoever reads our memory's image finds no cookie in it.
#[derive(Debug, Default)]
pub struct Sessions(BTreeMap<Digest, Kept>);

/// A session; with it goes what goes on for it.
#[derive(Debug)]
struct Kept {
    session: Session,
    _end: DropGuard,
}

impl Sessions {
    /// Begins a session; the answer is its cookie's value. Time is any steady count.
    pub fn begin(&mut self, held: Held, now: Timestamp) -> String {
        self.0.retain(|_, kept| !kept.session.has_ended(now));
        let of_token = self.0.values().filter(|kept| kept.session.held.id == held.id).count();
        if of_token >= MAX_OF_A_TOKEN {
            self.end_oldest(|session| session.held.id == held.id);
        } else if self.0.len() >= MAX_SESSIONS {
            self.end_oldest(|_| true);
        }
        let secret: [u8; 32] = rand::random();
        let ended = CancellationToken::new();
        let end = ended.clone().drop_guard();
        let session = Session { held, key: FormKey::random(), began: now, used: now, ended };
        self.0.insert(digest_of(&secret), Kept { session, _end: end });
        hex(&secret)
    }

    fn end_oldest(&mut self, among: impl Fn(&Session) -> bool) {
        let among = self.0.iter().filter(|(_, kept)| among(&kept.session));
        let oldest = among.min_by_key(|(_, kept)| kept.session.used);
        if let Some(digest) = oldest.map(|(digest, _)| *digest) {
            self.0.remove(&digest);
        }
    }

    /// The session of a cookie's value, which is used thereby.
    pub fn find(&mut self, cookie: &str, now: Timestamp) -> Option<Session> {
        let digest = digest_of_cookie(cookie)?;
        if self.0.get(&digest)?.session.has_ended(now) {
            self.0.remove(&digest);
            return None;
        }
        let session = &mut self.0.get_mut(&digest)?.session;
        session.used = now;
        Some(session.clone())
    }

    /// Ends the session of a cookie's value.
    pub fn end(&mut self, cookie: &str) {
        if let Some(digest) = digest_of_cookie(cookie) {
            self.0.remove(&digest);
        }
    }
}

fn digest_of_cookie(cookie: &str) -> Option<Digest> {
    Digest::from_hex(cookie).ok().map(|secret| digest_of(&secret.0))
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_000_000);

    fn held(id: u8) -> Held {
        Held { id: TokenId([id; 4]), secret: Digest([id; 32]) }
    }

    #[test]
    fn a_session_is_found_by_its_cookie_until_it_ends() {
        let mut sessions = Sessions::default();
        let cookie = sessions.begin(held(1), START);
        let session = sessions.find(&cookie, START).unwrap();
        assert_eq!(session.held, held(1));
        assert!(session.key.is(session.key.reveal()) && !session.key.is("") && !session.key.is(&cookie));
        for other in ["", "0", &"0".repeat(64), &cookie[1..], &cookie.replace(|c: char| c.is_ascii_digit(), "g")] {
            assert!(sessions.find(other, START).is_none(), "{other}");
        }
        assert!(!format!("{sessions:?}").contains(&cookie), "what is kept is no cookie");
        assert!(!format!("{session:?}").contains(session.key.reveal()));
        sessions.end(&cookie);
        assert!(sessions.find(&cookie, START).is_none());
    }

    #[test]
    fn sessions_end_when_nobody_uses_them_and_at_last_anyway() {
        let mut sessions = Sessions::default();
        let cookie = sessions.begin(held(1), START);
        assert!(sessions.find(&cookie, Timestamp(START.0 + IDLE_MS)).is_none(), "nobody used it");
        let cookie = sessions.begin(held(1), START);
        let mut now = START.0;
        while now + IDLE_MS / 2 < START.0 + LASTS_MS {
            now += IDLE_MS / 2;
            assert!(sessions.find(&cookie, Timestamp(now)).is_some(), "it is used");
        }
        assert!(sessions.find(&cookie, Timestamp(START.0 + LASTS_MS)).is_none());
        assert!(sessions.0.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_on_for_a_session_ends_with_it() {
        let mut sessions = Sessions::default();
        let is_over =
            async |end: &SessionEnd| tokio::time::timeout(Duration::from_millis(1), end.clone().comes()).await.is_ok();
        let cookie = sessions.begin(held(1), START);
        let end = sessions.find(&cookie, START).unwrap().end(START);
        assert!(!is_over(&end).await);
        sessions.end(&cookie);
        assert!(is_over(&end).await, "somebody logged out");
        let cookie = sessions.begin(held(1), START);
        let end = sessions.find(&cookie, START).unwrap().end(START);
        tokio::time::advance(Duration::from_millis(LASTS_MS)).await;
        assert!(is_over(&end).await, "its time is over, though nobody asked since");
        let first = sessions.begin(held(2), START);
        let end = sessions.find(&first, START).unwrap().end(START);
        for n in 1..=MAX_OF_A_TOKEN as u64 {
            sessions.begin(held(2), Timestamp(START.0 + n));
        }
        assert!(is_over(&end).await, "it gave way to others");
    }

    #[test]
    fn their_number_is_bounded_and_one_token_ends_only_its_own() {
        let mut sessions = Sessions::default();
        let other = sessions.begin(held(2), START);
        let first = sessions.begin(held(1), START);
        for n in 1..=MAX_OF_A_TOKEN as u64 {
            sessions.begin(held(1), Timestamp(START.0 + n));
        }
        assert_eq!(sessions.0.len(), 1 + MAX_OF_A_TOKEN);
        assert!(sessions.find(&first, START).is_none() && sessions.find(&other, START).is_some());
        for id in 3..=60 {
            (0..MAX_OF_A_TOKEN).for_each(|_| drop(sessions.begin(held(id), START.plus_seconds(1))));
        }
        assert_eq!(sessions.0.len(), MAX_SESSIONS);
        assert!(sessions.find(&other, START).is_none(), "it was used least of late");
    }
}
