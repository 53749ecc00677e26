//! Kernel arguments: from the image, the profile, the machine and Bennu; later wins.

/// Consoles of a machine for which nobody named any. `ttyS0` is last, so `/dev/console` is the serial port,
/// which a rack's operator can reach.
const DEFAULT_CONSOLES: &str = "console=tty0 console=ttyS0,115200";

/// Joins layers of arguments, each winning over those before it: `key=value` replaces an earlier `key=…`, and the
/// consoles of a layer replace all earlier consoles together, since their order has meaning.
pub fn join(layers: &[&str]) -> String {
    let mut joined: Vec<String> = Vec::new();
    for layer in layers {
        let words = split(layer);
        let keys: Vec<&str> = words.iter().map(|word| key(word)).collect();
        joined.retain(|earlier| !keys.contains(&key(earlier)));
        joined.extend(words.iter().map(|word| (*word).to_owned()));
    }
    joined.join(" ")
}

/// The same with consoles where none are named.
pub fn with_consoles(arguments: String) -> String {
    if split(&arguments).iter().any(|word| key(word) == "console") {
        return arguments;
    }
    join(&[DEFAULT_CONSOLES, &arguments])
}

/// Puts URLs in the places that an image's arguments leave for them: `{{url:NAME}}` is where the file of that name is
/// fetched, and `{{base:NAME}}` the same without the name. `url` answers the base. What names no file stays.
pub fn filled(arguments: &str, base: impl Fn(&str) -> Option<String>) -> String {
    let mut filled = String::with_capacity(arguments.len());
    let mut rest = arguments;
    while let Some((before, after)) = rest.split_once("{{") {
        filled += before;
        let place = after.split_once("}}").and_then(|(place, behind)| {
            let (kind, name) = place.split_once(':')?;
            let base = base(name)?;
            match kind {
                "url" => Some((base + name, behind)),
                "base" => Some((base, behind)),
                _ => None,
            }
        });
        match place {
            Some((url, behind)) => {
                filled += &url;
                rest = behind;
            }
            None => {
                filled += "{{";
                rest = after;
            }
        }
    }
    filled + rest
}

/// The place for the address of a boot's NoCloud data, as `ds=nocloud-net;s=` takes it.
const NOCLOUD: &str = "{{nocloud}}";

/// The place for the URL of a boot's Ignition configuration.
pub const IGNITION: &str = "{{ignition}}";

/// Whether arguments have a place.
pub fn names(arguments: &str, place: &str) -> bool {
    arguments.contains(place)
}

/// Puts the URLs of a boot's metadata in their places; `base` is the boot's own, with a slash at its end.
pub fn with_metadata(arguments: String, base: &str) -> String {
    arguments
        .replace(NOCLOUD, &format!("{base}{}/", bennu_plan::NOCLOUD))
        .replace(IGNITION, &format!("{base}{}", bennu_plan::IGNITION))
}

fn key(word: &str) -> &str {
    word.split_once('=').map_or(word, |(key, _)| key)
}

/// Words of a kernel command line: spaces inside double quotes belong to the word (`lib/cmdline.c`, `next_arg`).
pub fn split(arguments: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let (mut start, mut quoted) = (None, false);
    for (at, char) in arguments.char_indices() {
        match char {
            '"' => quoted = !quoted,
            ' ' | '\t' if !quoted => {
                words.extend(start.take().map(|from| &arguments[from..at]));
                continue;
            }
            _ => {}
        }
        start.get_or_insert(at);
    }
    words.extend(start.map(|from| &arguments[from..]));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_layers_win() {
        assert_eq!(join(&["quiet root=a", "root=b", "", "x"]), "quiet root=b x");
        assert_eq!(join(&["console=tty0 console=ttyS0", "console=ttyS1"]), "console=ttyS1");
        assert_eq!(join(&["a=1", "a=2 a=3"]), "a=2 a=3");
        assert_eq!(join(&[r#"dyndbg="file x +p" a"#, "b"]), r#"dyndbg="file x +p" a b"#);
    }

    #[test]
    fn places_for_urls_are_filled() {
        let base = |name: &str| (name == "a.sfs").then(|| "http://x/blobs/ab/".to_owned());
        assert_eq!(
            filled("q fetch={{url:a.sfs}} srv={{base:a.sfs}}", base),
            "q fetch=http://x/blobs/ab/a.sfs srv=http://x/blobs/ab/"
        );
        for other in ["", "quiet", "{{", "x={{url:b}}", "{{url:a.sfs", "{{urn:a.sfs}}", "{{{{url}}"] {
            assert_eq!(filled(other, base), other);
        }
    }

    #[test]
    fn places_for_metadata_are_filled() {
        assert_eq!(
            with_metadata("ds=nocloud-net;s={{nocloud}} ignition.config.url={{ignition}}".into(), "http://x/boot/t/"),
            "ds=nocloud-net;s=http://x/boot/t/nocloud/ ignition.config.url=http://x/boot/t/ignition.json"
        );
    }

    #[test]
    fn consoles_come_by_default_only() {
        assert_eq!(with_consoles("quiet".into()), "console=tty0 console=ttyS0,115200 quiet");
        assert_eq!(with_consoles("console=ttyS1".into()), "console=ttyS1");
    }
}
