//! Names of images in registries: `HOST[:PORT]/NAME[:TAG|@DIGEST]`.

use crate::cli::error::{CliError, Done};
use bennu_rules::image::{Digest, ImageName};
use http::uri::Authority;
use std::{fmt, net::IpAddr};

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The registry: a host, and its port where that is not HTTPS's own.
    pub registry: Authority,
    /// The repository in it.
    pub name: String,
    /// Which of its images.
    pub version: Version,
}

/// Which image of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// What the tag points at.
    Tag(String),
    /// This one.
    Digest(Digest),
}

const FORM: &str = "write docker://HOST[:PORT]/NAME[:TAG|@DIGEST], such as docker://registry.example.com/web:v1";

impl Reference {
    /// Reads what stands after `docker:`.
    pub fn parse(text: &str) -> Done<Self> {
        let whole = text;
        let refuse = |why: &str| Err(CliError::usage(format!("docker:{whole}: {why}"), FORM));
        let Some(text) = text.strip_prefix("//") else { return refuse("there are no two slashes after docker:") };
        // Without a port or a dot it would be a name of Docker's, which stands for a registry of its own choice.
        let is_host = |host: &str| host.contains(['.', ':']) || host == "localhost";
        let Some((host, rest)) = text.split_once('/').filter(|(host, _)| is_host(host)) else {
            return refuse(
                "it names no registry, and Bennu assumes none; a registry's host has a dot or a port, or is localhost",
            );
        };
        let Ok(registry) = host.parse::<Authority>() else {
            return refuse("its host is neither a name nor an address");
        };
        if host.contains('@') || registry.host().is_empty() {
            return refuse("its host is neither a name nor an address; a user and a password go into --creds");
        }
        let (name, version) = match (rest.split_once('@'), rest.rsplit_once(':')) {
            (Some((name, digest)), _) => {
                if name.contains(':') {
                    return refuse("a tag and a digest are there at once");
                }
                match digest.parse() {
                    Ok(digest) => (name, Version::Digest(digest)),
                    Err(_) => return refuse("what stands after @ is no digest: sha256: and 64 hexadecimal digits"),
                }
            }
            (None, Some((name, tag))) => (name, Version::Tag(tag.to_owned())),
            (None, None) => (rest, Version::Tag("latest".to_owned())),
        };
        let tag = match &version {
            Version::Tag(tag) => tag,
            Version::Digest(_) => "latest",
        };
        match format!("{name}:{tag}").parse::<ImageName>() {
            Ok(_) => Ok(Self { registry, name: name.to_owned(), version }),
            Err(_) => {
                refuse("this is no name of an image; names are lower-case letters, digits, '.', '_', '-' and '/'")
            }
        }
    }

    /// The tag or digest, as a registry's paths have it.
    pub fn version(&self) -> String {
        match &self.version {
            Version::Tag(tag) => tag.clone(),
            Version::Digest(digest) => digest.to_string(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "docker://{}/{}", self.registry, self.name)?;
        match &self.version {
            Version::Tag(tag) => write!(f, ":{tag}"),
            Version::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

/// Whether what is said to that host stays on this one.
pub fn is_loopback(authority: &Authority) -> bool {
    let host = bare_host(authority);
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// A host without the brackets of an IPv6 address.
pub fn bare_host(authority: &Authority) -> &str {
    authority.host().trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_written() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (text, written, host, name, version) in [
            ("//registry.example.com/web:v1", None, "registry.example.com", "web", "v1"),
            ("//registry.example.com:5000/a/b/web", Some(":latest"), "registry.example.com:5000", "a/b/web", "latest"),
            ("//[::1]:5000/web:v1", None, "[::1]:5000", "web", "v1"),
            ("//localhost/web:v1", None, "localhost", "web", "v1"),
            (&format!("//127.0.0.1:5000/web@{digest}"), None, "127.0.0.1:5000", "web", &digest),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!((reference.registry.as_str(), reference.name.as_str()), (host, name));
            assert_eq!(reference.version(), version);
            assert_eq!(reference.to_string(), format!("docker:{text}{}", written.unwrap_or_default()));
        }
    }

    #[test]
    fn a_registry_must_be_named() {
        for (text, says) in [
            ("//web:v1", "names no registry"),
            ("//team/web:v1", "names no registry"),
            ("web", "two slashes"),
            ("//registry.example.com", "names no registry"),
            ("//registry.example.com/", "no name of an image"),
            ("//registry.example.com/Web", "no name of an image"),
            ("//registry.example.com/../web", "no name of an image"),
            ("//registry.example.com/web:v 1", "no name of an image"),
            ("//registry.example.com/web:v1@sha256:00", "at once"),
            ("//registry.example.com/web@sha512:00", "no digest"),
            ("//a:b@registry.example.com/web", "--creds"),
            ("//:5000/web", "neither a name nor an address"),
        ] {
            let error = Reference::parse(text).unwrap_err();
            assert!(error.what.contains(says), "{text}: {error}");
            assert_eq!(error.help, FORM);
        }
    }

    #[test]
    fn loopback_is_told_by_the_address() {
        for (host, is) in
            [("localhost:1", true), ("127.9.9.9", true), ("[::1]:5000", true), ("127.0.0.1.example", false)]
        {
            assert_eq!(is_loopback(&host.parse().unwrap()), is, "{host}");
        }
    }
}
