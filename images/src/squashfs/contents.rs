//! What is in a squashfs, by `unsquashfs -pf` of squashfs-tools: a list of all files, then all their bytes, in one
//! stream. A file's bytes are hashed as they pass, so that no root is ever unpacked.

use crate::import::Cancelled;
use bennu_rules::difference::{Contents, File};
use ring::digest::{Context, SHA256};
use std::{
    io::{self, BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
};

/// Files of a root that make sense.
const MOST_FILES: usize = 2_000_000;

/// A package database that makes sense.
const LARGEST_DATABASE: u64 = 64 << 20;

/// What begins a squashfs.
const MAGIC: &[u8] = b"hsqs";

/// Why it cannot be told what is in a root.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// It is another file system.
    #[error("it is no squashfs")]
    Other,
    /// The tool is not there.
    #[error("unsquashfs is not installed. Install the package squashfs-tools (4.5 or newer)")]
    Missing,
    /// The tool could not be run or read.
    #[error("cannot run unsquashfs: {0}. Look at the package squashfs-tools")]
    Run(io::Error),
    /// The tool failed, or says what is not understood.
    #[error("unsquashfs cannot list it: {0}. Run `bennu image verify`, which says whether the image is damaged")]
    Said(String),
    /// Whoever asked went away.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// The tool, which ends with us.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lists a root. Blocks; `check` is asked often whether to go on.
pub fn contents(root: &Path, check: &dyn Fn() -> Result<(), Cancelled>) -> Result<Contents, ContentsError> {
    let mut magic = Vec::new();
    std::fs::File::open(root).and_then(|file| file.take(4).read_to_end(&mut magic)).map_err(ContentsError::Run)?;
    if magic != MAGIC {
        return Err(ContentsError::Other);
    }
    let mut command = Command::new("unsquashfs");
    command.env_clear().env("LC_ALL", "C").envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.args(["-quiet", "-no-progress", "-pf", "/dev/stdout"]).arg(root);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ContentsError::Missing,
        _ => ContentsError::Run(error),
    })?;
    let mut running = Running(child);
    let (stdout, stderr) = (running.0.stdout.take(), running.0.stderr.take());
    // It says little; more than a pipe holds would stop it.
    let words = std::thread::spawn(move || {
        let mut words = Vec::new();
        let _ = stderr.map(|stderr| io::copy(&mut stderr.take(16 << 10), &mut words));
        String::from_utf8_lossy(&words).trim().to_owned()
    });
    let stdout = stdout.ok_or_else(|| ContentsError::Said("it has no output".into()))?;
    let read = parse(&mut BufReader::with_capacity(1 << 20, stdout), check);
    if matches!(read, Err(ContentsError::Cancelled(_))) {
        return read;
    }
    let ended = running.0.wait().map_err(ContentsError::Run)?;
    match (read, words.join().unwrap_or_default()) {
        (read, _) if ended.success() => read,
        (_, words) => Err(ContentsError::Said(format!("{ended}: {words}"))),
    }
}

/// A line of the list.
struct Line {
    path: Vec<u8>,
    file: File,
    /// Where its bytes lie.
    at: Option<u64>,
    /// The name that it is another of.
    link: Option<Vec<u8>>,
}

fn parse(input: &mut impl BufRead, check: &dyn Fn() -> Result<(), Cancelled>) -> Result<Contents, ContentsError> {
    let mut lines: Vec<Line> = Vec::new();
    let mut pending = Vec::new();
    loop {
        let mut text = Vec::new();
        input.by_ref().take(1 << 16).read_until(b'\n', &mut text).map_err(ContentsError::Run)?;
        if text.pop() != Some(b'\n') {
            return Err(ContentsError::Said("its list is cut short".into()));
        }
        if pending.is_empty() && text == b"#" {
            break;
        }
        // A name may hold the end of a line, and so may what a link leads to.
        pending.extend_from_slice(&text);
        match line(&pending) {
            Some(line) => {
                lines.push(line);
                pending.clear();
            }
            None => match lines.last_mut().filter(|last| last.file.kind == 'l' && split(&pending).is_some()) {
                Some(last) => {
                    last.file.content.push(b'\n');
                    last.file.content.append(&mut pending);
                }
                None => pending.push(b'\n'),
            },
        }
        if lines.len() > MOST_FILES || pending.len() > 1 << 17 {
            return Err(ContentsError::Said(format!("its list is longer than {MOST_FILES} files, or makes no sense")));
        }
    }
    for _ in 0..2 {
        input.read_until(b'\n', &mut Vec::new()).map_err(ContentsError::Run)?;
    }
    read_data(lines, input, check)
}

fn read_data(
    lines: Vec<Line>,
    input: &mut impl BufRead,
    check: &dyn Fn() -> Result<(), Cancelled>,
) -> Result<Contents, ContentsError> {
    let (mut contents, mut links, mut offset) = (Contents::default(), Vec::new(), 0);
    for Line { path, mut file, at, link } in lines {
        if let Some(link) = link {
            links.push((path, link));
            continue;
        }
        if let Some(at) = at {
            if at != offset {
                return Err(ContentsError::Said("its list does not fit what follows".into()));
            }
            offset += file.size;
            let mut kept = match path.as_slice() {
                b"/var/lib/dpkg/status" => Some(&mut contents.dpkg),
                b"/lib/apk/db/installed" => Some(&mut contents.apk),
                _ => None,
            }
            .filter(|_| file.size <= LARGEST_DATABASE)
            .map(|kept| kept.insert(Vec::new()));
            let (mut hash, mut left) = (Context::new(&SHA256), file.size);
            while left > 0 {
                check()?;
                let chunk = input.fill_buf().map_err(ContentsError::Run)?;
                let count = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                if count == 0 {
                    return Err(ContentsError::Said("its data is cut short".into()));
                }
                hash.update(&chunk[..count]);
                kept.iter_mut().for_each(|kept| kept.extend_from_slice(&chunk[..count]));
                input.consume(count);
                left -= count as u64;
            }
            file.content = hash.finish().as_ref().to_vec();
        }
        contents.files.insert(path, file);
    }
    for (path, link) in links {
        let file = contents.files.get(&link).cloned();
        contents.files.extend(file.map(|file| (path, file)));
    }
    Ok(contents)
}

/// Where a name ends: at the first space that has no backslash before it.
fn split(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (mut name, mut at) = (vec![b'/'], 0);
    loop {
        match *text.get(at)? {
            b' ' => break,
            b'\\' => {
                name.push(*text.get(at + 1)?);
                at += 2;
            }
            byte => {
                name.push(byte);
                at += 1;
            }
        }
    }
    if name.starts_with(b"//") {
        name.remove(0);
    }
    Some((name, &text[at + 1..]))
}

/// `NAME TYPE TIME MODE UID GID …`
fn line(text: &[u8]) -> Option<Line> {
    let (path, rest) = split(text)?;
    let nothing = File { kind: 'f', mode: 0, owner: (0, 0), size: 0, content: Vec::new() };
    if let Some(target) = rest.strip_prefix(b"L ") {
        // Its target is written as a name is, and ends with the line.
        let (link, _) = split(&[target, b" "].concat())?;
        return Some(Line { path, file: nothing, at: None, link: Some(link) });
    }
    let mut fields = rest.splitn(6, |byte| *byte == b' ');
    let mut field = || fields.next().and_then(|field| std::str::from_utf8(field).ok());
    let letter = field()?;
    let _time = field()?.parse::<i64>().ok()?;
    let mode = u32::from_str_radix(field()?, 8).ok()?;
    let owner = (field()?.parse().ok()?, field()?.parse().ok()?);
    let more = fields.next().unwrap_or_default();
    let numbers = || std::str::from_utf8(more).ok().map(|text| text.split(' ').map(str::parse::<u64>));
    let kind = match letter {
        "D" => 'd',
        "S" => 'l',
        "C" => 'c',
        "B" => 'b',
        "I" if more == b"s" => 's',
        "I" => 'p',
        "R" => 'f',
        _ => return None,
    };
    let mut made = Line { path, file: File { kind, mode, owner, ..nothing }, at: None, link: None };
    match kind {
        'f' => {
            let mut numbers = numbers()?;
            made.file.size = numbers.next()?.ok()?;
            made.at = Some(numbers.next()?.ok()?);
        }
        'd' => {}
        _ => made.file.content = more.to_vec(),
    }
    Some(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt as _, os::unix::fs::symlink};

    #[test]
    fn a_root_is_listed_with_everything_that_is_odd_in_it() {
        let home = tempfile::tempdir().unwrap();
        let (tree, root) = (home.path().join("tree"), home.path().join("root.squashfs"));
        for directory in ["var/lib/dpkg", "a b"] {
            fs::create_dir_all(tree.join(directory)).unwrap();
        }
        let status = "Package: curl\nVersion: 1\n".repeat(5000);
        let odd: &[(&[u8], &[u8])] = &[
            (b"var/lib/dpkg/status", status.as_bytes()),
            (b"a b/f\"q\\s", b"hello\n"),
            (b"new\nline", b"x"),
            (b"\xff\xfe", b"y"),
            (b"#", b""),
            (b"zeros", &[0; 300_000]),
        ];
        for (name, content) in odd {
            fs::write(tree.join(OsStr::from_bytes(name)), content).unwrap();
        }
        symlink("two words\nand a line", tree.join("link")).unwrap();
        fs::hard_link(tree.join("zeros"), tree.join("again")).unwrap();
        let made = Command::new("mksquashfs").arg(&tree).arg(&root).args(["-quiet", "-no-progress"]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let contents = contents(&root, &|| Ok(())).unwrap();
        for (name, content) in odd {
            let file = &contents.files[&[b"/", *name].concat()];
            let hash = ring::digest::digest(&SHA256, content);
            assert_eq!((file.size, file.content.as_slice()), (content.len() as u64, hash.as_ref()), "{name:?}");
        }
        assert_eq!(contents.files[&b"/again"[..]], contents.files[&b"/zeros"[..]]);
        assert_eq!(contents.files[&b"/link"[..]].content, b"two words\nand a line");
        assert_eq!((contents.files[&b"/"[..]].kind, contents.files.len()), ('d', 13));
        assert_eq!(contents.dpkg.as_deref(), Some(status.as_bytes()));
    }

    #[test]
    fn what_is_no_squashfs_says_so() {
        let home = tempfile::tempdir().unwrap();
        let (other, damaged) = (home.path().join("other"), home.path().join("damaged"));
        fs::write(&other, [0; 4096]).unwrap();
        assert!(matches!(contents(&other, &|| Ok(())), Err(ContentsError::Other)));
        fs::write(&damaged, [b"hsqs", [0xff; 4092].as_slice()].concat()).unwrap();
        assert!(matches!(contents(&damaged, &|| Ok(())), Err(ContentsError::Said(_))));
    }
}
