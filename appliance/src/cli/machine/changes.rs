//! What `bennu machine …` takes as one argument.

use bennu_rules::dhcp::{OptionCode, OptionValue, site::BadOption};
use std::{net::Ipv4Addr, str::FromStr};

/// One change of a label.
#[derive(Debug, Clone)]
pub struct LabelChange {
    /// Which.
    pub key: String,
    /// To what; `None` removes it.
    pub value: Option<String>,
}

impl FromStr for LabelChange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text.split_once('='), text.strip_suffix('-')) {
            (Some((key, value)), _) => Ok(Self { key: key.into(), value: Some(value.into()) }),
            (None, Some(key)) => Ok(Self { key: key.into(), value: None }),
            (None, None) => Err("write KEY=VALUE to set a label, KEY- to remove it".into()),
        }
    }
}

/// One change of a DHCP option.
#[derive(Debug, Clone)]
pub struct OptionChange {
    /// Which.
    pub code: String,
    /// To what; `None` removes it.
    pub value: Option<String>,
}

impl FromStr for OptionChange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (code, value) = text
            .split_once('=')
            .ok_or("write CODE=VALUE to set an option, such as 12=text:web1, or CODE= to remove it")?;
        let told = |bad: BadOption| bad.to_string();
        code.parse::<OptionCode>().map_err(told)?;
        if !value.is_empty() {
            value.parse::<OptionValue>().map_err(told)?;
        }
        Ok(Self { code: code.into(), value: Some(value.to_owned()).filter(|value| !value.is_empty()) })
    }
}

/// An address to hold, or none.
#[derive(Debug, Clone, Copy)]
pub struct Reservation(pub Option<Ipv4Addr>);

impl FromStr for Reservation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            text => {
                text.parse().map(|address| Self(Some(address))).map_err(|_| "write an IPv4 address, or none".into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_set_and_removed() {
        let set: LabelChange = "rack=b-7".parse().unwrap();
        assert_eq!((set.key.as_str(), set.value.as_deref()), ("rack", Some("b-7")));
        let removed: LabelChange = "rack-".parse().unwrap();
        assert_eq!((removed.key.as_str(), removed.value), ("rack", None));
        assert!("rack".parse::<LabelChange>().is_err());
    }

    #[test]
    fn options_are_set_and_removed() {
        let set: OptionChange = "12=text:a=b".parse().unwrap();
        assert_eq!((set.code.as_str(), set.value.as_deref()), ("12", Some("text:a=b")));
        assert_eq!("12=".parse::<OptionChange>().unwrap().value, None);
        for wrong in ["12", "67=text:x", "12=web1"] {
            assert!(wrong.parse::<OptionChange>().is_err(), "{wrong}");
        }
    }
}
