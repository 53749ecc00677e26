//! The configuration, as a person may write it.

use bennu_appliance::config::Config;

/// Any text: used, or refused in words.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse(text) {
        Ok(config) => {
            assert!(!config.interfaces.is_empty());
            for subnet in &config.settings.subnets {
                assert_eq!(subnet.network, subnet.network.trunc());
                if let Some(range) = &subnet.range {
                    assert!(range.start() <= range.end());
                    assert!(subnet.network.contains(range.start()) && subnet.network.contains(range.end()));
                }
            }
        }
        Err(reason) => assert!(reason.len() > 10, "'{reason}' says nothing"),
    }
}
