//! Where a request goes. Repositories have slashes in their names, so paths are read from their end.

use super::error::{Code, Refused};
use bennu_rules::image::{Digest, ImageName, ImageReference};

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Empty where the target belongs to none.
    pub repository: String,
    /// In it.
    pub target: Target,
}

/// What is asked for in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/tags/list`
    Tags,
    /// `/v2/<name>/referrers/<digest>`
    Referrers(Digest),
    /// `/v2/<name>/blobs/<digest>`
    Blob(Digest),
    /// `/v2/<name>/blobs/uploads/`
    Uploads,
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload(String),
    /// `/v2/<name>/manifests/<tag or digest>`
    Manifest(ImageReference),
}

/// Reads a path that begins with `/v2`.
pub fn parse(path: &str) -> Result<Place, Refused> {
    let rest = path.strip_prefix("/v2").unwrap_or(path).trim_start_matches('/');
    let alone = |target| Ok(Place { repository: String::new(), target });
    match rest {
        "" => return alone(Target::Base),
        "_catalog" => return alone(Target::Catalog),
        _ => {}
    }
    let mut names: Vec<&str> = rest.split('/').collect();
    let nothing = || Refused::new(Code::NameUnknown, format!("there is nothing at {path}"));
    let place = |names: &[&str], target| Ok(Place { repository: repository(names)?, target });
    // `/blobs/uploads/` ends in a slash, and some clients leave it out.
    if names.ends_with(&["blobs", "uploads", ""]) || names.ends_with(&["blobs", "uploads"]) {
        names.truncate(names.len() - if rest.ends_with('/') { 3 } else { 2 });
        return place(&names, Target::Uploads);
    }
    let last = names.pop().ok_or_else(nothing)?;
    match names.pop().ok_or_else(nothing)? {
        "uploads" if names.last() == Some(&"blobs") => {
            place(&names[..names.len() - 1], Target::Upload(last.to_owned()))
        }
        "blobs" => place(&names, Target::Blob(digest(last)?)),
        "manifests" => {
            let repository = repository(&names)?;
            let target = Target::Manifest(reference(&repository, last)?);
            Ok(Place { repository, target })
        }
        "referrers" => place(&names, Target::Referrers(digest(last)?)),
        "tags" if last == "list" => place(&names, Target::Tags),
        _ => Err(nothing()),
    }
}

fn repository(names: &[&str]) -> Result<String, Refused> {
    let name = names.join("/");
    match format!("{name}:x").parse::<ImageName>() {
        Ok(_) => Ok(name),
        Err(_) => Err(Refused::new(
            Code::NameInvalid,
            format!("'{name}' is no name of a repository; use lower-case letters, digits, '.', '_', '-' and '/'"),
        )),
    }
}

fn digest(text: &str) -> Result<Digest, Refused> {
    text.parse().map_err(|error| Refused::new(Code::DigestInvalid, format!("{error}; Bennu's store uses SHA-256 only")))
}

fn reference(repository: &str, text: &str) -> Result<ImageReference, Refused> {
    if text.contains(':') {
        return digest(text).map(ImageReference::Digest);
    }
    let name = format!("{repository}:{text}").parse();
    name.map(ImageReference::Name).map_err(|_| Refused::new(Code::TagInvalid, format!("'{text}' is no tag")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_their_targets() {
        let hex = "ab".repeat(32);
        let digest: Digest = format!("sha256:{hex}").parse().unwrap();
        for (path, repository, target) in [
            ("/v2", "", Target::Base),
            ("/v2/", "", Target::Base),
            ("/v2/_catalog", "", Target::Catalog),
            ("/v2/web/tags/list", "web", Target::Tags),
            ("/v2/team/web/blobs/uploads/", "team/web", Target::Uploads),
            ("/v2/team/web/blobs/uploads", "team/web", Target::Uploads),
            ("/v2/web/blobs/uploads/123", "web", Target::Upload("123".into())),
            ("/v2/web/manifests/v1", "web", Target::Manifest("web:v1".parse().unwrap())),
            ("/v2/manifests/manifests/v1", "manifests", Target::Manifest("manifests:v1".parse().unwrap())),
            (&format!("/v2/a/b/c/blobs/sha256:{hex}"), "a/b/c", Target::Blob(digest)),
            (&format!("/v2/web/manifests/sha256:{hex}"), "web", Target::Manifest(ImageReference::Digest(digest))),
            (&format!("/v2/web/referrers/sha256:{hex}"), "web", Target::Referrers(digest)),
        ] {
            assert_eq!(parse(path).unwrap(), Place { repository: repository.into(), target }, "{path}");
        }
        for path in [
            "/v2/web",
            "/v2/web/tags",
            "/v2/web/tags/other",
            "/v2//manifests/v1",
            "/v2/Web/manifests/v1",
            "/v2/../web/manifests/v1",
            "/v2/web/manifests/.v1",
            "/v2/web/blobs/sha512:00",
            "/v2/web/blobs/latest",
            "/v2/blobs/uploads/",
        ] {
            assert!(parse(path).is_err(), "{path}");
        }
    }
}
