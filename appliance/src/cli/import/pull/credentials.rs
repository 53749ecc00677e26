//! A user and a password for a registry: as given, or as other tools' login left them.

use crate::cli::error::{CliError, Done};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use std::{collections::BTreeMap, ffi::OsString, fmt, io, path::PathBuf};

/// Where `USER:PASSWORD` may be, out of the sight of other users' `ps`.
pub const VARIABLE: &str = "BENNU_REGISTRY_CREDS";

/// A user and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: String,
}

impl Credentials {
    /// `USER:PASSWORD`; a user's name has no colon (RFC 7617 §2).
    pub fn parse(text: &str) -> Option<Self> {
        let (user, password) = text.split_once(':').filter(|(user, _)| !user.is_empty())?;
        Some(Self { user: user.to_owned(), password: password.to_owned() })
    }

    /// The value of an `Authorization` header.
    pub fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:…", self.user)
    }
}

/// What is known of a registry's login.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// What to show it.
    pub credentials: Option<Credentials>,
    /// Why a login that exists cannot be used.
    pub unusable: Option<String>,
}

/// Looks for credentials: what was given, then the environment, then the files that podman, skopeo and docker keep.
pub fn find(
    given: Option<&str>,
    registry: &str,
    name: &str,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Done<Known> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let from_variable = set(VARIABLE).map(|value| value.to_string_lossy().trim().to_owned());
    for (text, place) in [(given, "--creds"), (from_variable.as_deref(), VARIABLE)] {
        if let Some(text) = text {
            let credentials = Credentials::parse(text)
                .ok_or_else(|| CliError::usage(format!("{place} holds no user and password"), "write USER:PASSWORD"))?;
            return Ok(Known { credentials: Some(credentials), unusable: None });
        }
    }
    let mut known = Known::default();
    for (path, must_exist) in files(set) {
        let failed = |why: String| {
            let what = format!("cannot read the registry logins in {}: {why}", path.display());
            CliError::failed(what, "mend that file, log in anew (skopeo login), or use --creds USER:PASSWORD")
        };
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => continue,
            Err(error) => return Err(failed(error.to_string())),
        };
        let file: File = serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
        let one = file.login(registry, name).map_err(failed)?;
        if one.credentials.is_some() {
            return Ok(one);
        }
        let told = one.unusable.map(|why| format!("{} {why}", path.display()));
        known.unusable = known.unusable.or(told);
    }
    Ok(known)
}

/// The files in the order in which podman and skopeo look (containers-auth.json(5)), and whether they must be there.
fn files(set: impl Fn(&str) -> Option<OsString>) -> Vec<(PathBuf, bool)> {
    if let Some(path) = set("REGISTRY_AUTH_FILE") {
        return vec![(path.into(), true)];
    }
    let home = |path: &str| Some(PathBuf::from(set("HOME")?).join(path));
    let config = set("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| home(".config"));
    let docker = set("DOCKER_CONFIG").map(PathBuf::from).or_else(|| home(".docker"));
    let places = [
        set("XDG_RUNTIME_DIR").map(|directory| PathBuf::from(directory).join("containers/auth.json")),
        config.map(|directory| directory.join("containers/auth.json")),
        docker.map(|directory| directory.join("config.json")),
    ];
    places.into_iter().flatten().map(|path| (path, false)).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Login>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct Login {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    identitytoken: Option<String>,
}

impl File {
    /// The login for a repository, or else for the registry: the longest key that fits.
    fn login(&self, registry: &str, name: &str) -> Result<Known, String> {
        let whole = format!("{registry}/{name}");
        // `docker login` writes keys as URLs.
        let key = |text: &str| {
            let text = text.strip_prefix("https://").or(text.strip_prefix("http://")).unwrap_or(text);
            let text = text.trim_end_matches('/');
            text.strip_suffix("/v1").or(text.strip_suffix("/v2")).unwrap_or(text).to_owned()
        };
        let is_for = |key: &str| whole == key || whole.strip_prefix(key).is_some_and(|rest| rest.starts_with('/'));
        let logins = self.auths.iter().map(|(written, login)| (key(written), login));
        let login = logins.filter(|(key, _)| is_for(key)).max_by_key(|(key, _)| key.len()).map(|(_, login)| login);
        if let Some(login) = login
            && !login.auth.is_empty()
        {
            let decoded = STANDARD.decode(login.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let credentials = decoded.as_deref().and_then(|text| Credentials::parse(text.trim_end_matches('\0')));
            let credentials =
                credentials.ok_or_else(|| format!("the login for {registry} is not USER:PASSWORD in base64"))?;
            return Ok(Known { credentials: Some(credentials), unusable: None });
        }
        let helper = self.cred_helpers.iter().find(|(written, _)| is_for(&key(written))).map(|(_, helper)| helper);
        let unusable =
            match (login.and_then(|login| login.identitytoken.as_ref()), helper.or(self.creds_store.as_ref())) {
                (Some(_), _) => Some("holds an identity token for it, which Bennu does not use".to_owned()),
                (None, Some(helper)) => {
                    Some(format!("keeps logins in the credential helper '{helper}', which Bennu does not ask"))
                }
                (None, None) => None,
            };
        Ok(Known { credentials: None, unusable })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(known: Done<Known>) -> String {
        known.unwrap().credentials.map(|login| format!("{}:{}", login.user, login.password)).unwrap_or_default()
    }

    #[test]
    fn what_is_given_comes_before_the_environment_and_that_before_files() {
        let home = tempfile::tempdir().unwrap();
        let write = |path: &str, login: &str| {
            let path = home.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text = format!(r#"{{"auths":{{"registry.example.com":{{"auth":"{}"}}}}}}"#, STANDARD.encode(login));
            std::fs::write(&path, text).unwrap();
            path
        };
        let find = |given, set: &[(&str, &std::path::Path)]| {
            let variable = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into());
            super::find(given, "registry.example.com", "team/web", variable)
        };
        let in_home = ("HOME", home.path());
        assert_eq!(found(find(None, &[in_home])), "", "nobody ever logged in");
        write(".docker/config.json", "docker:1");
        assert_eq!(found(find(None, &[in_home])), "docker:1");
        write(".config/containers/auth.json", "podman:2");
        assert_eq!(found(find(None, &[in_home])), "podman:2");
        write("run/containers/auth.json", "running:3");
        let run = home.path().join("run");
        let run = ("XDG_RUNTIME_DIR", run.as_path());
        assert_eq!(found(find(None, &[in_home, run])), "running:3");
        let named = write("named.json", "named:4");
        let named = ("REGISTRY_AUTH_FILE", named.as_path());
        assert_eq!(found(find(None, &[in_home, run, named])), "named:4");
        let set = (VARIABLE, std::path::Path::new("set:5:6"));
        assert_eq!(found(find(None, &[in_home, named, set])), "set:5:6");
        assert_eq!(found(find(Some("given:7"), &[in_home, named, set])), "given:7");
        assert!(find(Some("given"), &[]).unwrap_err().what.contains("--creds"));
        let none = home.path().join("none.json");
        assert!(find(None, &[("REGISTRY_AUTH_FILE", &none)]).unwrap_err().what.contains("none.json"));
    }

    #[test]
    fn the_longest_key_fits_and_helpers_are_told_of() {
        let file = |text: &str| serde_json::from_str::<File>(text).unwrap();
        let logins = file(
            r#"{"auths":{"r.example:5000":{"auth":"YTox"},"r.example:5000/team":{"auth":"Yjoy"},
                "https://old.example/v1/":{"auth":"Yzoz"},"bad.example":{"auth":"?"},"id.example":{"identitytoken":"x"}}}"#,
        );
        for (registry, name, expected) in [
            ("r.example:5000", "web", "a:1"),
            ("r.example:5000", "team/web", "b:2"),
            ("r.example:5000", "teams/web", "a:1"),
            ("old.example", "web", "c:3"),
            ("r.example", "web", ""),
        ] {
            assert_eq!(found(Ok(logins.login(registry, name).unwrap())), expected, "{registry}/{name}");
        }
        assert!(logins.login("bad.example", "web").unwrap_err().contains("base64"));
        assert!(logins.login("id.example", "web").unwrap().unusable.unwrap().contains("identity token"));
        for text in
            [r#"{"credsStore":"desktop"}"#, r#"{"credHelpers":{"r.example":"desktop"},"auths":{"r.example":{}}}"#]
        {
            assert!(file(text).login("r.example", "web").unwrap().unusable.unwrap().contains("'desktop'"));
        }
    }

    #[test]
    fn no_log_shows_a_password() {
        assert_eq!(format!("{:?}", Credentials::parse("ci:secret").unwrap()), "ci:…");
    }
}
