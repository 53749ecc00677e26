//! What the manual says is tried, so that it stays true.

use super::tests::{Served, run};
use super::*;
use clap::error::ErrorKind;
use std::{collections::BTreeMap, fs};

/// README.md and the pages under docs/, by their paths from the top.
fn pages() -> BTreeMap<String, String> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut pages = BTreeMap::from([("README.md".to_owned(), fs::read_to_string(top.join("README.md")).unwrap())]);
    for entry in fs::read_dir(top.join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name = format!("docs/{}", path.file_name().unwrap().to_str().unwrap());
            pages.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
    assert!(pages.len() > 8, "{:?}", pages.keys());
    pages
}

/// The blocks of code of a page: what stands behind the fence, and the text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut open = false;
    for line in page.lines() {
        match line.trim_start().strip_prefix("```") {
            Some(kind) if !open => {
                found.push((kind.to_owned(), String::new()));
                open = true;
            }
            Some(_) => open = false,
            None if open => found.last_mut().unwrap().1.push_str(&format!("{line}\n")),
            None => {}
        }
    }
    assert!(!open, "a block of code does not end");
    found
}

fn blocks_of(kind: &str) -> Vec<String> {
    let all = pages().into_values().flat_map(|page| blocks(&page));
    all.filter(|(of, _)| of == kind).map(|(_, text)| text).collect()
}

#[tokio::test]
async fn the_examples_of_the_api_work() {
    use std::process::Command;
    let served = Served::new();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("installer.tar"), crate::http::api::tests::foreign_tar(7)).unwrap();
    let script = blocks_of("sh api");
    assert!(script.concat().matches("http://localhost/").count() > 15, "the manual has examples of every job");
    let socket = served.server.trim_start_matches("unix://").to_owned();
    let script = script.join("\n").replace("/run/bennu/bennu.sock", &socket);
    let mut shell = Command::new("sh");
    shell.args(["-euxc", &script]).current_dir(directory.path());
    let output = tokio::task::spawn_blocking(move || shell.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("\"problem\""), "an import ended with a problem:\n{said}");
}

/// The words of a command line, up to where a shell would begin another command, a comment or a redirection.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('|' | '<' | '>' | '&' | ';', None) => break,
            ('#', None) if word.is_none() => break,
            (' ', None) => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[test]
fn every_command_that_the_manual_writes_is_one() {
    let mut tried = 0;
    for (name, page) in pages() {
        for (_, text) in blocks(&page).into_iter().filter(|(kind, _)| matches!(kind.as_str(), "" | "sh")) {
            for line in text.replace("\\\n", " ").lines().map(|line| line.trim().trim_start_matches("$ ")) {
                let words = words(line);
                // Behind settings of its environment, or of no name that stands for one.
                let start = words.iter().position(|word| !word.contains('=') || word.starts_with('-'));
                let Some(command) = start.map(|start| &words[start..]) else { continue };
                if command[0] != "bennu" || command.iter().any(|word| word.contains('…')) {
                    continue;
                }
                let names =
                    |word: &String| if word.starts_with("MAC") { "52:54:00:12:34:56".to_owned() } else { word.clone() };
                let parsed = Cli::try_parse_from(command.iter().map(names));
                let shows_help =
                    |error: &clap::Error| matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
                if let Err(error) = parsed.map_err(|error| (shows_help(&error), error)).map(drop) {
                    assert!(error.0, "{name}: {line}: {}", error.1);
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 80, "{tried} commands");
}

#[tokio::test]
async fn the_documents_of_the_manual_apply() {
    let served = Served::new();
    served.bench.import("web:v1", 1).await;
    let directory = tempfile::tempdir().unwrap();
    let documents: Vec<String> = blocks_of("yaml").into_iter().filter(|text| text.starts_with("kind: ")).collect();
    assert!(!documents.is_empty());
    for (number, text) in documents.iter().enumerate() {
        fs::write(directory.path().join(format!("{number}.yaml")), text).unwrap();
    }
    run(&served, &format!("apply -f {}", directory.path().display())).await.unwrap();
    let exported = served.bench.get("/v1/export").await.json();
    for kind in bennu_rules::commands::apply::kinds() {
        let is_there = exported["documents"].as_array().unwrap().iter().any(|document| document["kind"] == kind);
        assert!(is_there, "the manual shows no document of kind {kind}");
    }
}

#[test]
fn the_configurations_of_the_manual_are_read() {
    let mut read = 0;
    for text in blocks_of("toml").into_iter().filter(|text| text.contains("[boot]") && text.contains("interface")) {
        let text: Vec<&str> = text.lines().map(|line| line.strip_prefix("   ").unwrap_or(line)).collect();
        let parsed = crate::config::Config::parse(&text.join("\n"));
        assert!(parsed.is_ok(), "{:?}\n{}", parsed.err(), text.join("\n"));
        read += 1;
    }
    assert!(read > 1);
}

/// A heading as a link names it.
fn anchor(heading: &str) -> String {
    let kept = heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .collect::<String>();
    kept.replace(' ', "-")
}

#[test]
fn every_link_leads_somewhere_and_the_readme_leads_to_every_page() {
    let pages = pages();
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (name, page) in &pages {
        let folder = Path::new(name).parent().unwrap();
        for to in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if to.starts_with("http") {
                continue;
            }
            let (file, part) = to.split_once('#').unwrap_or((to, ""));
            let path = if file.is_empty() { top.join(name) } else { top.join(folder).join(file) };
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {to}: {error}"));
            let mut headings =
                text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches(['#', ' ']));
            assert!(part.is_empty() || headings.any(|heading| anchor(heading) == part), "{name}: {to}");
        }
    }
    for name in pages.keys().filter(|name| *name != "README.md") {
        assert!(pages["README.md"].contains(&format!("]({name})")), "README.md leads nobody to {name}");
    }
}
