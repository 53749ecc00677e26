//! What a module says about itself: the NUL-separated `key=value` strings of its `.modinfo` section.

use object::{Object as _, ObjectSection as _};

/// The values of a key; `Err` when the bytes are no ELF object.
pub fn values(module: &[u8], key: &str) -> Result<Vec<String>, object::Error> {
    let file = object::File::parse(module)?;
    let Some(section) = file.section_by_name(".modinfo") else { return Ok(Vec::new()) };
    let strings = section.data()?.split(|&b| b == 0).filter_map(|string| std::str::from_utf8(string).ok());
    let value = |string: &str| string.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
    Ok(strings.filter_map(value).collect())
}
