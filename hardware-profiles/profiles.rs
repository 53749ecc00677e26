//! What is known of server models: one TOML file each, embedded here.

use bennu_rules::profile::Profile;
use include_dir::{Dir, include_dir};

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/models");

/// Every profile.
///
/// # Panics
///
/// When an embedded file is wrong, which the tests of this crate rule out.
pub fn all() -> Vec<Profile> {
    FILES
        .files()
        .map(|file| {
            let text = file.contents_utf8().expect("profiles are text");
            toml::from_str(text).unwrap_or_else(|error| panic!("{}: {error}", file.path().display()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bennu_rules::{facts::Facts, profile};

    #[test]
    fn every_profile_finds_its_own_example() {
        let profiles = all();
        assert!(!profiles.is_empty());
        for profile in &profiles {
            let facts = Facts {
                manufacturer: Some(profile.example.manufacturer.clone()),
                product: Some(profile.example.product.clone()),
                ..Facts::default()
            };
            assert_eq!(profile::find(&profiles, &facts).map(|found| &found.name), Some(&profile.name));
        }
    }
}
