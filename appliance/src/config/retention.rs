//! `[retention]`, as written and as used.

use bennu_rules::settings::Retention;
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WrittenRetention {
    keep_last: Option<u32>,
    keep_days: Option<u32>,
}

impl WrittenRetention {
    pub fn check(&self) -> Result<Retention, String> {
        let (keep_last, keep_days) = (self.keep_last, self.keep_days);
        for (key, value, what) in [("keep_last", keep_last, "images of each tag"), ("keep_days", keep_days, "days")] {
            if value == Some(0) {
                return Err(format!("retention.{key}: write how many {what} to keep, at least 1, or leave it out"));
            }
        }
        Ok(Retention { keep_last, keep_days })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Retention, String> {
        toml::from_str::<WrittenRetention>(text).unwrap().check()
    }

    #[test]
    fn rules_are_absent_or_at_least_one() {
        assert_eq!(check("").unwrap(), Retention::default());
        let both = Retention { keep_last: Some(3), keep_days: Some(30) };
        assert_eq!(check("keep_last = 3\nkeep_days = 30").unwrap(), both);
        for text in ["keep_last = 0", "keep_days = 0"] {
            assert!(check(text).unwrap_err().contains("at least 1"), "{text}");
        }
    }
}
