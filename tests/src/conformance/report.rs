//! `tests/CONFORMANCE.md`: written by the run.

use anyhow::{Context, Result, ensure};
use std::{collections::BTreeMap, fmt::Write, fs};

use super::table::{Line, Shown, TESTED, UNTESTED};
use crate::workshop;

const FILE: &str = "tests/CONFORMANCE.md";

const PASSES: &str = "passes";
const FAILS: &str = "FAILS";

const HEAD: &str = "\
# Conformance: what the standards and the field ask, line by line

`rack test conformance` writes this page. Each line is shown by a test of that name against the built `bennu serve` in a
network namespace, spoken to by frames from another. The tests are in `src/conformance`.

| line | requirement | reference | test | result |
|---:|---|---|---|---|
";

const MORE: &str = "
## Beyond the list

| requirement | about | test | result |
|---|---|---|---|
";

/// Writes the page anew. An error if it had said something else.
pub fn write(passed: &BTreeMap<&'static str, bool>) -> Result<String> {
    let page = render(passed);
    let file = workshop::checkout().join(FILE);
    let before = fs::read_to_string(&file).unwrap_or_default();
    fs::write(&file, &page).with_context(|| format!("cannot write {}", file.display()))?;
    // A line that fails has been told already.
    let without_results = |page: &str| page.replace(FAILS, PASSES);
    let same = without_results(&before) == without_results(&page);
    ensure!(same, "{FILE} said something else; it has been written anew, commit it");
    let count = passed.values().filter(|passed| **passed).count();
    Ok(format!("{count} tests pass, {} lines do not apply", UNTESTED.len()))
}

fn render(passed: &BTreeMap<&'static str, bool>) -> String {
    let mut lines: Vec<&Line> = TESTED.iter().chain(UNTESTED).filter(|line| line.number > 0).collect();
    lines.sort_by_key(|line| line.number);
    let mut page = HEAD.to_owned();
    for line in lines {
        let _ = writeln!(page, "| {} {}", line.number, row(line, passed));
    }
    page += MORE;
    for line in TESTED.iter().filter(|line| line.number == 0) {
        let _ = writeln!(page, "{}", row(line, passed));
    }
    page
}

fn row(line: &Line, passed: &BTreeMap<&'static str, bool>) -> String {
    let Line { requirement, reference, shown, .. } = line;
    let (test, result) = match shown {
        Shown::By(test) => {
            let passes = passed.get(test.name) == Some(&true);
            (format!("`{}`", test.name), if passes { PASSES } else { FAILS }.to_owned())
        }
        Shown::DoesNotApply(reason) => (String::new(), format!("does not apply: {reason}")),
    };
    format!("| {requirement} | {reference} | {test} | {result} |")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_checklist_is_there_once() {
        let mut numbers: Vec<u8> =
            TESTED.iter().chain(UNTESTED).map(|line| line.number).filter(|number| *number > 0).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(1..=67));
    }

    #[test]
    fn a_test_bears_the_number_of_its_line() {
        for line in TESTED {
            let Shown::By(test) = line.shown else { panic!("line {} has no test", line.number) };
            let start = if line.number == 0 { "wire_".into() } else { format!("line_{:02}_", line.number) };
            assert!(test.name.starts_with(&start), "{}", test.name);
        }
    }
}
