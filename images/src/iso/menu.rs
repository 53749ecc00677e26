//! The entry that a disc's own boot loader would start: ISOLINUX's (SYSLINUX wiki, "Config") or GRUB's.

use super::{Disc, Live};
use std::collections::VecDeque;

const LONGEST: u64 = 256 << 10;
/// Files that a configuration includes.
const MOST_FILES: usize = 16;

const ISOLINUX: [&str; 6] = [
    "isolinux/isolinux.cfg",
    "boot/isolinux/isolinux.cfg",
    "isolinux.cfg",
    "syslinux/syslinux.cfg",
    "boot/syslinux/syslinux.cfg",
    "syslinux.cfg",
];
const GRUB: [&str; 5] =
    ["boot/grub/grub.cfg", "boot/grub2/grub.cfg", "EFI/BOOT/grub.cfg", "efi/boot/grub.cfg", "EFI/boot/grub.cfg"];

/// An entry of a menu.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Choice {
    label: String,
    kernel: String,
    initrds: Vec<String>,
    arguments: String,
}

/// The entry to start, if its files are on the disc.
pub fn find(disc: &Disc) -> Option<Live> {
    let isolinux = ISOLINUX.iter().find(|path| disc.stretches(path).is_some()).and_then(|path| isolinux(disc, path));
    let choice = isolinux.or_else(|| GRUB.iter().find_map(|path| grub(&disc.text(path, LONGEST)?)))?;
    let is_there = |path: &String| disc.stretches(path).is_some();
    (is_there(&choice.kernel) && choice.initrds.iter().all(is_there)).then(|| Live {
        name: "the entry that its own boot loader starts",
        kernel: choice.kernel,
        initrds: choice.initrds,
        files: Vec::new(),
        cmdline: choice.arguments,
        is_guessed: true,
    })
}

fn isolinux(disc: &Disc, path: &str) -> Option<Choice> {
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mut files = VecDeque::from([path.to_owned()]);
    let mut text = String::new();
    for _ in 0..MOST_FILES {
        let Some(file) = files.pop_front() else { break };
        let Some(found) = disc.text(&file, LONGEST) else { continue };
        let included = found.lines().filter_map(|line| keyword(line)).filter(|(word, _)| word == "include");
        files.extend(included.map(|(_, name)| placed(directory, name)));
        text += &found;
        text.push('\n');
    }
    isolinux_choice(&text, directory)
}

/// A line's first word, in small letters, and the rest.
fn keyword(line: &str) -> Option<(String, &str)> {
    let (word, rest) = line.trim().split_once(char::is_whitespace)?;
    Some((word.to_ascii_lowercase(), rest.trim()))
}

fn isolinux_choice(text: &str, directory: &str) -> Option<Choice> {
    let (mut default, mut marked, mut choices) = (None, None, Vec::<Choice>::new());
    for line in text.lines() {
        if line.trim().eq_ignore_ascii_case("menu default") {
            marked = choices.len().checked_sub(1);
            continue;
        }
        let Some((word, rest)) = keyword(line) else { continue };
        match (word.as_str(), choices.last_mut()) {
            ("default", _) => default = Some(rest.to_owned()),
            ("label", _) => choices.push(Choice { label: rest.to_owned(), ..Choice::default() }),
            ("kernel" | "linux", Some(choice)) => choice.kernel = placed(directory, rest),
            ("initrd", Some(choice)) => choice.initrds = rest.split(',').map(|path| placed(directory, path)).collect(),
            ("append", Some(choice)) => {
                let (initrds, others): (Vec<_>, Vec<_>) =
                    rest.split_whitespace().partition(|word| word.starts_with("initrd="));
                if let Some(named) = initrds.first() {
                    choice.initrds = named["initrd=".len()..].split(',').map(|path| placed(directory, path)).collect();
                }
                choice.arguments = others.join(" ");
            }
            _ => {}
        }
    }
    // A menu's program may be the default, and then the menu marks the entry.
    let named = default.and_then(|label| choices.iter().position(|choice| choice.label == label));
    let chosen = named.or(marked).or_else(|| choices.iter().position(|choice| !choice.initrds.is_empty()))?;
    choices.into_iter().nth(chosen).filter(|choice| !choice.kernel.is_empty())
}

/// Paths are the disc's, or the configuration's own directory's.
fn placed(directory: &str, path: &str) -> String {
    let joined = match path.strip_prefix('/') {
        Some(path) => path.to_owned(),
        None if directory.is_empty() => path.to_owned(),
        None => format!("{directory}/{path}"),
    };
    joined.split('/').filter(|part| !matches!(*part, "" | ".")).collect::<Vec<_>>().join("/")
}

/// The first entry of a GRUB configuration that starts a kernel.
fn grub(text: &str) -> Option<Choice> {
    // `($root)/vmlinuz`: the disc, however it is called.
    let path = |word: &str| placed("", word.rsplit_once(')').map_or(word, |(_, path)| path));
    let mut choice = Choice::default();
    for line in text.lines() {
        let Some((word, rest)) = keyword(line) else { continue };
        let mut words = rest.split_whitespace();
        match word.as_str() {
            "linux" | "linuxefi" | "linux16" if choice.kernel.is_empty() => {
                choice.kernel = path(words.next()?);
                choice.arguments =
                    words.filter(|word| !word.contains('$') && *word != "---").collect::<Vec<_>>().join(" ");
            }
            "initrd" | "initrdefi" | "initrd16" if !choice.kernel.is_empty() => {
                choice.initrds = words.map(path).collect();
                return Some(choice);
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_entry_is_taken() {
        let text = "UI vesamenu.c32\nDEFAULT live\nlabel rescue\n kernel r\nLABEL live\n  MENU LABEL Live\n  KERNEL vmlinuz\n  \
                    APPEND quiet initrd=initrd.img,/more.img root=x\n";
        let choice = isolinux_choice(text, "isolinux").unwrap();
        assert_eq!((choice.kernel.as_str(), choice.arguments.as_str()), ("isolinux/vmlinuz", "quiet root=x"));
        assert_eq!(choice.initrds, ["isolinux/initrd.img", "more.img"]);
        let text =
            "default vesamenu.c32\nlabel a\n linux /a\n initrd /i\nlabel b\n menu default\n linux /b\n initrd /i\n";
        assert_eq!(isolinux_choice(text, "").unwrap().kernel, "b");
        assert_eq!(isolinux_choice("label a\n localboot 0x80\n", ""), None);
        let text = "set default=0\nmenuentry 'Live' --class os {\n  linux ($root)/boot/vmlinuz quiet $more ---\n  initrd /boot/a /boot/b\n}\n";
        let choice = grub(text).unwrap();
        assert_eq!((choice.kernel.as_str(), choice.arguments.as_str()), ("boot/vmlinuz", "quiet"));
        assert_eq!(choice.initrds, ["boot/a", "boot/b"]);
    }
}
