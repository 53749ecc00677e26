//! Commands about tokens.

use super::{Refusal, machines::Expected, precondition};
use crate::{
    Change, Decision, Moment, Timestamp, View,
    image::Digest,
    role::{Role, RoleName},
    selector::Selector,
    token::{Scope, Scopes, Token, TokenId, TokenName},
};
use std::collections::BTreeMap;

/// Days that a token may last: ten years. Who wants more gives none.
const MAX_DAYS: u32 = 3650;

const DAY_SECONDS: u64 = 86_400;

/// Makes a token. The secret is the appliance's to draw and to show; only its digest comes here.
#[derive(Debug, Clone)]
pub struct CreateToken {
    /// What people call it.
    pub name: TokenName,
    /// What its bearer may do.
    pub scopes: Scopes,
    /// The machines that its bearer sees and changes; `None`: all, and what belongs to no machine.
    pub limit: Option<Selector>,
    /// The role that says both, and how long it lasts at most.
    pub role: Option<RoleName>,
    /// SHA-256 of its secret.
    pub secret: Digest,
    /// How long it lasts; `None`: until it is revoked.
    pub days: Option<u32>,
    /// Who makes it.
    pub by: String,
}

/// Carries out [`CreateToken`]. A token that has ended gives its name to the new one, and goes.
pub fn create(request: &CreateToken, view: &View<'_>, at: &Moment) -> Decision<Result<Token, Refusal>> {
    let Powers { scopes, limit, days } = match powers(request, view) {
        Ok(powers) => powers,
        Err(refusal) => return Decision::just(Err(refusal)),
    };
    let namesake = view.records.tokens().into_iter().find(|token| token.name == request.name);
    if let Some(live) = namesake.as_ref().filter(|token| !token.is_expired(at.now)) {
        return Decision::just(Err(Refusal::TokenExists { name: request.name.clone(), id: live.id }));
    }
    // Thousands of tokens would have to exist for one of these to be taken.
    let mut ids = at.entropy.chunks_exact(4).filter_map(|bytes| bytes.try_into().ok().map(TokenId));
    let Some(id) = ids.find(|id| view.records.token(*id).is_none()) else {
        return Decision::just(Err(Refusal::NoTokenId));
    };
    let token = Token {
        id,
        name: request.name.clone(),
        scopes,
        limit,
        role: request.role.clone(),
        secret: request.secret,
        created: at.now,
        by: request.by.clone(),
        expires: days.map(|days| after_days(at.now, days)),
        last_used: None,
    };
    let ended = namesake.map(|token| Change::RemoveToken(token.id));
    let changes = ended.into_iter().chain([Change::PutToken(token.clone())]).collect();
    Decision { changes, ..Decision::just(Ok(token)) }
}

/// What a token may do, and for how long.
struct Powers {
    scopes: Scopes,
    limit: Option<Selector>,
    days: Option<u32>,
}

/// What the token shall be: as the request says, or its role.
fn powers(request: &CreateToken, view: &View<'_>) -> Result<Powers, Refusal> {
    let CreateToken { scopes, limit, days, .. } = request;
    let Some(name) = &request.role else {
        check_powers(scopes, limit.as_ref(), *days)?;
        return Ok(Powers { scopes: scopes.clone(), limit: limit.clone(), days: *days });
    };
    let role = view.records.role(name).ok_or_else(|| Refusal::UnknownRole(name.clone()))?;
    if !scopes.is_empty() || limit.is_some() {
        return Err(Refusal::RoleAndScopes(name.clone()));
    }
    check_powers(&role.scopes, role.limit.as_ref(), *days)?;
    match (role.expires_in_days, *days) {
        (Some(most), Some(days)) if days > most => Err(Refusal::BadLifetime { days, most }),
        (most, days) => Ok(Powers { scopes: role.scopes, limit: role.limit, days: days.or(most) }),
    }
}

/// Whether a token can be such a one.
pub(super) fn check_powers(scopes: &Scopes, limit: Option<&Selector>, days: Option<u32>) -> Result<(), Refusal> {
    if let Some(days) = days.filter(|days| !(1..=MAX_DAYS).contains(days)) {
        return Err(Refusal::BadLifetime { days, most: MAX_DAYS });
    }
    if scopes.is_empty() {
        return Err(Refusal::NoScope);
    }
    limit.and_then(|limit| unfit(limit, scopes)).map_or(Ok(()), |reason| Err(Refusal::BadLimit(reason)))
}

fn after_days(start: Timestamp, days: u32) -> Timestamp {
    start.plus_seconds(u64::from(days) * DAY_SECONDS)
}

/// The tokens of a role as the role is now: what it may not do any more they may not, from the next request on, and none
/// lasts longer than it says. None lasts longer than it did.
pub(super) fn follow(role: &Role, view: &View<'_>, now: Timestamp) -> Vec<Change> {
    let of_role = |token: &Token| token.role.as_ref() == Some(&role.name) && !token.is_expired(now);
    let followed = |token: Token| {
        let most = role.expires_in_days.map(|days| after_days(token.created, days));
        let expires = token.expires.into_iter().chain(most).min();
        Token { scopes: role.scopes.clone(), limit: role.limit.clone(), expires, ..token }
    };
    let tokens = view.records.tokens().into_iter().filter(of_role);
    tokens
        .filter_map(|token| Some(followed(token.clone())).filter(|after| *after != token))
        .map(Change::PutToken)
        .collect()
}

/// Why a token cannot be limited so.
fn unfit(limit: &Selector, scopes: &Scopes) -> Option<String> {
    if limit.is_everything() {
        return Some("it means every machine".into());
    }
    if limit.looks_at_hardware() {
        return Some("it looks at hardware, of which a machine can say anything; labels are people's alone".into());
    }
    if limit.matches(&BTreeMap::new()) {
        return Some(
            "it means machines without labels too, and so every card that comes; name a label that they have".into(),
        );
    }
    let whole = scopes.iter().find(|scope| matches!(scope, Scope::Images | Scope::Admin))?;
    Some(format!("the scope {whole} is about more than machines"))
}

/// Ends a token: the next request that shows it is refused.
#[derive(Debug, Clone)]
pub struct RevokeToken {
    /// Which.
    pub id: TokenId,
    /// The token looked at.
    pub expected: Option<Expected>,
}

/// The version of a token: changes whenever it does. That it was used is no change.
pub fn version(token: &Token) -> String {
    super::version(&Token { last_used: None, ..token.clone() })
}

/// Carries out [`RevokeToken`]; the answer is the token that is gone.
pub fn revoke(request: &RevokeToken, view: &View<'_>, _at: &Moment) -> Decision<Result<Token, Refusal>> {
    match view.records.token(request.id) {
        Some(token) => {
            let (what, stale) = (format_args!("token {}", token.id), |what| Refusal::Stale { what });
            if let Err(refusal) = precondition::check(&request.expected, Some(version(&token)), what, stale) {
                return Decision::just(Err(refusal));
            }
            let changes = vec![Change::RemoveToken(request.id)];
            Decision { changes, ..Decision::just(Ok(token)) }
        }
        None => Decision::just(Err(Refusal::UnknownToken(request.id))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Live, Records, memory::Memory, settings::Settings};
    use std::sync::Arc;

    struct Desk {
        memory: Memory,
        at: Moment,
    }

    impl Desk {
        fn new() -> Self {
            let now = Timestamp(1_790_000_000_000);
            let entropy = std::array::from_fn(|at| at as u8);
            Self { memory: Memory::default(), at: Moment { now, entropy, settings: Arc::new(Settings::default()) } }
        }

        fn run<R>(
            &mut self,
            request: &R,
            rule: fn(&R, &View<'_>, &Moment) -> Decision<Result<Token, Refusal>>,
        ) -> Result<Token, Refusal> {
            let live = Live::default();
            let decision = rule(request, &View { records: &self.memory, live: &live }, &self.at);
            decision.changes.into_iter().for_each(|change| self.memory.apply(change));
            decision.answer
        }

        fn create(&mut self, name: &str, days: Option<u32>) -> Result<Token, Refusal> {
            let secret = Digest([9; 32]);
            let name = name.parse().unwrap();
            let (scopes, limit, by) = ([Scope::Read].into(), None, "local (uid 0)".into());
            self.run(&CreateToken { name, scopes, limit, role: None, secret, days, by }, create)
        }
    }

    #[test]
    fn a_name_is_one_tokens_as_long_as_it_is_valid() {
        let mut desk = Desk::new();
        let first = desk.create("ci", Some(1)).unwrap();
        assert_eq!((first.id, first.expires), (TokenId([0, 1, 2, 3]), Some(desk.at.now.plus_seconds(86_400))));
        assert!(matches!(desk.create("ci", None), Err(Refusal::TokenExists { id, .. }) if id == first.id));
        let other = desk.create("other", None).unwrap();
        assert_eq!(other.id, TokenId([4, 5, 6, 7]), "an id that is taken is not given again");
        desk.at.now = desk.at.now.plus_seconds(86_400);
        let second = desk.create("ci", None).unwrap();
        assert_ne!(second.id, first.id);
        assert_eq!(desk.memory.tokens().len(), 2, "the one that ended is gone");
    }

    #[test]
    fn a_revoked_token_is_gone() {
        let mut desk = Desk::new();
        let token = desk.create("ci", None).unwrap();
        assert_eq!(desk.run(&RevokeToken { id: token.id, expected: None }, revoke), Ok(token.clone()));
        assert_eq!(
            desk.run(&RevokeToken { id: token.id, expected: None }, revoke),
            Err(Refusal::UnknownToken(token.id))
        );
        assert!(desk.memory.tokens().is_empty());
    }

    #[test]
    fn a_limit_looks_at_labels_and_leaves_out_what_belongs_to_no_machine() {
        let mut desk = Desk::new();
        let mut make = |limit: &str, scopes: &[Scope]| {
            let request = CreateToken {
                name: "ci".parse().unwrap(),
                scopes: scopes.iter().copied().into(),
                limit: Some(limit.parse().unwrap()),
                role: None,
                secret: Digest([9; 32]),
                days: None,
                by: "local".into(),
            };
            desk.run(&request, create)
        };
        for (limit, scopes) in [
            ("", &[Scope::Read][..]),
            ("bennu.manufacturer=Dell", &[Scope::Read]),
            ("rack=r1", &[Scope::Read, Scope::Images]),
            ("rack=r1", &[Scope::Admin]),
        ] {
            assert!(matches!(make(limit, scopes), Err(Refusal::BadLimit(_))), "{limit} {scopes:?}");
        }
        assert_eq!(make("rack=r1", &[]), Err(Refusal::NoScope));
        assert!(make("rack=r1", &[Scope::Read, Scope::Assign, Scope::Power]).is_ok());
    }

    #[test]
    fn refusals_say_what_to_do_and_change_nothing() {
        let mut desk = Desk::new();
        for days in [0, 3651, u32::MAX] {
            let refusal = desk.create("ci", Some(days)).unwrap_err();
            assert!(refusal.advice().contains("3650"), "{refusal}");
        }
        for _ in 0..8 {
            let name = format!("t{}", desk.memory.tokens().len());
            desk.create(&name, None).unwrap();
        }
        assert_eq!(desk.create("more", None), Err(Refusal::NoTokenId), "eight ids are drawn, and all are taken");
        assert_eq!(desk.memory.tokens().len(), 8);
    }
}
