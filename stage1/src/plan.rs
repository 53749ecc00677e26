//! Fetching the boot plan.

use crate::http::{self, HttpError};
use bennu_plan::{PLAN_VERSION, Plan};

/// No plan is longer: 256 KiB of metadata can be six times that as JSON.
const LIMIT: u64 = 4 << 20;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum NoPlan {
    /// The network.
    #[error("{0}")]
    Connection(#[from] HttpError),
    /// The appliance refuses.
    #[error("the appliance answers {status}{}", .said.as_ref().map(|said| format!(": {said}")).unwrap_or_default())]
    Status {
        /// HTTP status.
        status: u16,
        /// What the answer said.
        said: Option<String>,
    },
    /// What came is no plan.
    #[error("the appliance's plan cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// The plan is from a newer appliance, in a way that an old stage 1 could misread.
    #[error(
        "the plan has version {0} and this stage 1 reads up to {PLAN_VERSION}: the machine must start again to load the appliance's own stage 1"
    )]
    Newer(u32),
}

impl NoPlan {
    /// Whether asking again under the same token will not help: the appliance has forgotten this boot, or speaks another version.
    pub fn needs_restart(&self) -> bool {
        matches!(self, Self::Newer(_) | Self::Status { status: 400..=499, .. })
    }
}

/// Asks once.
pub fn fetch(base: &str) -> Result<Plan, NoPlan> {
    let response = http::get(&format!("{base}plan.json"), 0, http::NORMAL)?;
    let status = response.status;
    let text = response.text(LIMIT)?;
    if status != 200 {
        let said = text.lines().next().filter(|line| !line.is_empty()).map(|line| line.chars().take(200).collect());
        return Err(NoPlan::Status { status, said });
    }
    read(&text)
}

fn read(text: &str) -> Result<Plan, NoPlan> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    // The version first: a newer plan may not read as one of ours at all.
    let Version { version } = serde_json::from_str(text)?;
    if version > PLAN_VERSION {
        return Err(NoPlan::Newer(version));
    }
    Ok(serde_json::from_str(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let plan = r#"{"version":1,"boot":"b","machine":"m","action":{"do":"discover","poll_seconds":2}}"#;
        assert_eq!(read(plan).unwrap().boot, "b");
        let newer = read(r#"{"version":2,"something":"else"}"#).unwrap_err();
        assert!(matches!(newer, NoPlan::Newer(2)) && newer.needs_restart());
        assert!(!read("<html>").unwrap_err().needs_restart());
    }
}
