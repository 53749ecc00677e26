//! Which disc this is.

use bennu_host::slots::Release;

/// The one that runs.
pub fn of_this_disc() -> Release {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    parse(&text)
}

/// Reads `os-release(5)`.
fn parse(text: &str) -> Release {
    let value = |key: &str| {
        let mut fields = text.lines().filter_map(|line| line.split_once('='));
        fields.find_map(|(name, value)| (name == key).then(|| value.trim_matches('"').to_owned()))
    };
    Release {
        version: value("VERSION_ID").unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
        built: value("BENNU_BUILT").and_then(|seconds| seconds.parse().ok()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disc_says_which_it_is() {
        let text = "ID=bennu\nVERSION_ID=\"0.2.0-rc1\"\nBENNU_BUILT=1767225600\n";
        assert_eq!(parse(text), Release { version: "0.2.0-rc1".into(), built: 1_767_225_600 });
        assert_eq!(parse("").built, 0);
    }
}
