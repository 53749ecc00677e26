//! What people ask of the appliance's own host: to start again, to be switched off, to take up another disc.

use crate::{Change, Decision, Moment, Timestamp, View};
use serde::{Deserialize, Serialize};

/// The last thing that was asked of the host. It is kept so that the audit log has every one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Order {
    /// What, as a verb, such as `restart`.
    pub what: String,
    /// When.
    pub at: Timestamp,
}

/// Asks something of the host.
#[derive(Debug, Clone)]
pub struct Give(pub String);

/// Puts an order on record, before it is carried out: a host that is switched off writes nothing any more.
pub fn give(Give(what): &Give, _: &View<'_>, at: &Moment) -> Decision<Order> {
    let order = Order { what: what.clone(), at: at.now };
    Decision { changes: vec![Change::PutOrder(order.clone())], ..Decision::just(order) }
}
