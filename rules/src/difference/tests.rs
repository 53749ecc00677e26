//! Differences, of roots written by hand.

use super::*;
use crate::commands::images::tests::{image, kernel_image};

fn root(files: &[(&str, char, u32, &str)]) -> Contents {
    let file = |(path, kind, mode, content): &(&str, char, u32, &str)| {
        let size = if *kind == 'f' { content.len() as u64 } else { 0 };
        let file = File { kind: *kind, mode: *mode, owner: (0, 0), size, content: content.as_bytes().to_vec() };
        (path.as_bytes().to_vec(), file)
    };
    Contents { files: files.iter().map(file).collect(), ..Contents::default() }
}

#[test]
fn files_differ_by_what_is_different_of_them() {
    let from =
        root(&[("/a", 'f', 0o644, "one"), ("/b", 'f', 0o644, "one"), ("/c", 'l', 0o777, "a"), ("/d", 'd', 0o755, "")]);
    let mut to =
        root(&[("/a", 'f', 0o644, "two"), ("/b", 'f', 0o755, "four"), ("/c", 'l', 0o777, "b"), ("/e", 'f', 0o644, "")]);
    let (_, files, _) = contents(&from, &to, true);
    let told: Vec<(&str, String)> = files.list.iter().map(|file| (file.path.as_str(), file.what.join("+"))).collect();
    let expected =
        [("/a", "content"), ("/b", "mode+size+content"), ("/c", "target"), ("/d", "removed"), ("/e", "added")];
    assert_eq!(told, expected.map(|(path, what)| (path, what.to_owned())));
    assert_eq!((files.added, files.removed, files.changed), (1, 1, 3));
    assert_eq!(contents(&from, &from, true).1, Files::default());
    assert_eq!(contents(&from, &to, false).1.list, []);
    to.files.get_mut(&b"/a"[..]).unwrap().kind = 'p';
    assert_eq!(contents(&from, &to, true).1.list[0].what, ["kind"]);
}

#[test]
fn packages_are_those_that_are_installed() {
    let dpkg = |text: &str| Contents { dpkg: Some(text.as_bytes().to_vec()), ..Contents::default() };
    let from = dpkg(
        "Package: curl\nStatus: install ok installed\nArchitecture: amd64\nVersion: 7.88\n\n\
         Package: gone\nStatus: install ok installed\nVersion: 1\n\n\
         Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36\n\n\
         Package: libc6\nStatus: install ok installed\nArchitecture: i386\nVersion: 2.36\n",
    );
    let to = dpkg(
        "Package: curl\nStatus: install ok installed\nVersion: 8.0\nDescription: x\n Version: no\n\n\
         Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
         Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36\n",
    );
    let text = |value: &str| Some(value.to_owned());
    let changed = |name: &str, from, to| Changed { name: name.to_owned(), from, to };
    assert_eq!(
        contents(&from, &to, false).0.unwrap(),
        [
            changed("curl", text("7.88"), text("8.0")),
            changed("gone", text("1"), None),
            changed("libc6:i386", text("2.36"), None)
        ]
    );
    let apk = Contents { apk: Some(b"C:Q1\nP:musl\nV:1.2\n\nP:busybox\nV:1.36\n".to_vec()), ..Contents::default() };
    assert_eq!(contents(&Contents::default(), &apk, false).0.unwrap().len(), 2);
    assert_eq!(contents(&Contents::default(), &Contents::default(), false).0, None);
}

#[test]
fn an_rpm_database_is_told_of() {
    let rpm = root(&[("/var/lib/rpm/rpmdb.sqlite", 'f', 0o644, "x")]);
    let (packages, _, notes) = contents(&Contents::default(), &rpm, false);
    assert_eq!(packages, None);
    assert!(notes[0].contains("the second image") && notes[0].contains("rpm"), "{notes:?}");
}

#[test]
fn images_differ_in_what_they_say_of_themselves() {
    let mut other = image(1);
    other.config.os = Some("Debian 13".into());
    let names: Vec<String> = facts(&image(1), &other).into_iter().map(|fact| fact.name).collect();
    assert_eq!(names, ["system"]);
    let names: Vec<String> = facts(&image(1), &kernel_image(2)).into_iter().map(|fact| fact.name).collect();
    assert_eq!(names, ["kernel", "kind", "size"]);
}
