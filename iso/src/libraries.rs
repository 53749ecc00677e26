//! The shared libraries that programs need, found as the dynamic linker finds them: by their names, in the packages' library
//! directories.

use anyhow::{Context, Result, bail};
use object::{
    Endianness, elf,
    read::elf::{Dyn, FileHeader, ProgramHeader},
};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where Debian's packages have them.
const DIRECTORIES: [&str; 4] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib64", "lib64"];

/// Every library that `programs` need, and those need, with the dynamic linker: as (path in the image, file).
pub fn needed(packages: &Path, programs: &[PathBuf]) -> Result<BTreeSet<(String, PathBuf)>> {
    let mut found = BTreeSet::new();
    let mut waiting: Vec<PathBuf> = programs.to_vec();
    while let Some(program) = waiting.pop() {
        let bytes = std::fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
        for name in names(&bytes).with_context(|| format!("{} is no ELF program", program.display()))? {
            let file = find(packages, &name)
                .with_context(|| format!("{} needs {name}, and no package has it", program.display()))?;
            let place = format!("lib/x86_64-linux-gnu/{name}");
            if found.insert((place, file.clone())) {
                waiting.push(file);
            }
        }
    }
    Ok(found)
}

fn find(packages: &Path, name: &str) -> Result<PathBuf> {
    let candidates = DIRECTORIES.iter().map(|directory| packages.join(directory).join(name));
    match candidates.into_iter().find(|path| path.exists()) {
        Some(path) => Ok(path),
        None => bail!("looked in {}", DIRECTORIES.join(", ")),
    }
}

/// `DT_NEEDED` of an ELF file; none of a static program.
fn names(bytes: &[u8]) -> Result<Vec<String>> {
    let header = elf::FileHeader64::<Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let mut names = Vec::new();
    for segment in header.program_headers(endian, bytes)? {
        let Some(entries) = segment.dynamic(endian, bytes)? else { continue };
        let sections = header.sections(endian, bytes)?;
        let Some((_, link)) = sections.dynamic(endian, bytes)? else { continue };
        let strings = sections.strings(endian, bytes, link)?;
        for entry in entries.iter().filter(|entry| entry.tag(endian) == elf::DT_NEEDED) {
            names.push(String::from_utf8_lossy(entry.string(endian, strings)?).into_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_this_host_needs_the_c_library_and_finds_it() {
        let program = std::env::current_exe().unwrap();
        let found = needed(Path::new("/"), &[program]).unwrap();
        let has = |name: &str| found.iter().any(|(place, file)| place.ends_with(name) && file.is_file());
        assert!(has("/libc.so.6"), "{found:?}");
    }

    #[test]
    fn a_text_is_no_program() {
        assert!(names(b"#!/bin/sh\n").is_err());
    }
}
