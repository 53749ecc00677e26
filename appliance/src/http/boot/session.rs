//! The session of a boot, and the reports that prove to come from it.

use super::{Appliance, Counters, Fault, PeerAddr, unknown_token};
use crate::secrets::files::{self, NotGiven};
use axum::{
    Json,
    body::Bytes,
    extract::{Extension, Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bennu_plan::{PROOF, Report, SealedFile, SessionGranted, SessionKey, proved};
use bennu_rules::boot::{
    BootId, Token,
    report::{self, Proof, ReportRequest, Taken},
    session::{self, Attempt, Opened, SessionRequest},
};
use crypto_box::{PublicKey, aead::OsRng};
use std::sync::Arc;
use zeroize::Zeroizing;

/// A report with its inventory is a few KiB; more is not from stage 1.
pub const MAX_REPORT: usize = 256 * 1024;
/// A key and its name.
pub const MAX_REQUEST: usize = 1024;

/// `POST /boot/<token>/session`
pub async fn open(
    State(appliance): State<Arc<Appliance>>,
    Extension(peer): Extension<PeerAddr>,
    Path(token): Path<String>,
    body: Bytes,
) -> Response {
    let Ok(bennu_plan::SessionRequest { key }) = serde_json::from_slice(&body) else {
        return (StatusCode::BAD_REQUEST, "Bennu: a session begins with {\"key\": \"<64 hex digits>\"}\n")
            .into_response();
    };
    let address = peer.0.ip().to_canonical();
    let request = SessionRequest { token: Token(token), key, address, card: appliance.card_at(address) };
    let opened = match appliance.ledger.decide(request, session::decide).await {
        Ok(opened) => opened,
        Err(fault) => return unavailable(&fault),
    };
    match opened {
        Opened::Granted { boot, machine, installs } => {
            let files = if installs { files::of(&appliance, machine, &boot).await } else { Ok(Vec::new()) };
            match files {
                Ok(files) => sealed(&appliance, boot, &key, files),
                Err(NotGiven::Fault(fault)) => unavailable(&fault),
                Err(error) => {
                    tracing::error!(%machine, %error, "cannot give a machine what is its own");
                    (StatusCode::SERVICE_UNAVAILABLE, format!("Bennu: {error}\n")).into_response()
                }
            }
        }
        Opened::UnknownToken => unknown_token(),
        Opened::Over => {
            (StatusCode::CONFLICT, "Bennu: this boot was handed over; its session is closed\n").into_response()
        }
        Opened::Refused(attempt) => {
            Counters::count(&appliance.counters.sessions_refused);
            let advice = match attempt {
                Attempt::OtherKey => "another key owns this boot: start the machine again",
                Attempt::OtherCard => "this address is another card's; if both are one machine's: bennu machine join",
                Attempt::OutOfTime | Attempt::Report => "this boot has no stage 1 that could ask: start it again",
            };
            (StatusCode::FORBIDDEN, format!("Bennu: {attempt}; {advice}\n")).into_response()
        }
    }
}

/// Everything that only the owner of `key` may read.
fn sealed(appliance: &Appliance, boot: BootId, key: &SessionKey, files: Vec<SealedFile>) -> Response {
    let secret = appliance.keyring.session(&boot, key).reveal();
    let granted = SessionGranted { boot: boot.0, secret, files, logs: appliance.config.logs.wanted() };
    let json = Zeroizing::new(serde_json::to_vec(&granted).unwrap_or_default());
    match PublicKey::from(key.0).seal(&mut OsRng, &json) {
        Ok(sealed) => {
            let fields = [(header::CONTENT_TYPE, "application/octet-stream"), (header::CACHE_CONTROL, "no-store")];
            (fields, sealed).into_response()
        }
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "Bennu: the answer could not be sealed\n").into_response(),
    }
}

/// `POST /boot/<token>/report`
pub async fn report(
    State(appliance): State<Arc<Appliance>>,
    Extension(peer): Extension<PeerAddr>,
    Path(token): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let report = match Json::<Report>::from_bytes(&body) {
        Ok(Json(report)) => report,
        Err(rejection) => return rejection.into_response(),
    };
    let token = Token(token);
    let proof = proof(&appliance, &token, &headers, &body);
    let address = peer.0.ip().to_canonical();
    let request = ReportRequest { token, report, proof, address, card: appliance.card_at(address) };
    match appliance.ledger.decide(request, report::decide).await {
        Ok(Taken::Noted) => StatusCode::NO_CONTENT.into_response(),
        Ok(Taken::UnknownToken) => unknown_token(),
        Ok(Taken::Refused) => {
            Counters::count(&appliance.counters.reports_refused);
            let fields = [(header::WWW_AUTHENTICATE, "Bennu-Proof")];
            (StatusCode::UNAUTHORIZED, fields, "Bennu: a session owns this boot, and this report is not from it\n")
                .into_response()
        }
        Err(fault) => unavailable(&fault),
    }
}

/// The session that the request's proof is of, if it is right.
fn proof(appliance: &Appliance, token: &Token, headers: &HeaderMap, body: &[u8]) -> Option<Proof> {
    let (sequence, mac) = headers.get(PROOF)?.to_str().ok()?.split_once(' ')?;
    let sequence = sequence.parse().ok()?;
    // A MAC has the length of a key, and is read as one.
    let SessionKey(mac) = mac.parse().ok()?;
    let owner = |live: &bennu_rules::Live| {
        let boot = live.boot_by_token(token)?;
        Some((boot.id.clone(), boot.session.as_ref()?.key))
    };
    let (boot, key) = appliance.ledger.live(|live, _| owner(live))?;
    let secret = appliance.keyring.session(&boot, &key);
    secret.verifies(&proved(sequence, body), &mac).then_some(Proof { key, sequence })
}

fn unavailable(fault: &Fault) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{fault}\n")).into_response()
}
