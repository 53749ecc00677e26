//! Files against a served API, as a process would.

use super::*;
use crate::cli::tests::{Served, run};
use std::{fs, process::ExitCode};

const RACK: &str = "
kind: Machine
name: 52-54-00-00-00-01
labels: {rack: r1, note: 'yes'}
reservation: 10.77.0.20
options:
  12: text:web1
---
# nothing here
---
kind: Rule
name: web
selector: rack=r1
image: web:v1
priority: 5
";

async fn served() -> Served {
    let served = Served::new();
    served.bench.import("web:v1", 1).await;
    served
}

fn write(directory: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = directory.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn a_directory_is_applied_and_its_export_applies_to_nothing() {
    let (served, directory) = (served().await, tempfile::tempdir().unwrap());
    write(&directory, "rack/one.yaml", RACK);
    write(&directory, "two.toml", "kind = 'Machine'\nname = '525400000002'\n[labels]\nrack = 'r2'\n");
    let three =
        "[[documents]]\nkind='Machine'\nname='525400000003'\n[[documents]]\nkind='Rule'\nname='l'\nimage='local'\n";
    write(&directory, "three.toml", three);
    write(&directory, "README.md", "not a document");
    write(&directory, ".git/x.yaml", "{");
    let path = directory.path().display();
    let dry = run(&served, &format!("apply -f {path} --dry-run")).await.unwrap_err();
    assert_eq!((dry.exit_code(), dry.what.as_str()), (ExitCode::from(3), ""));
    assert_eq!(served.bench.get("/v1/rules").await.json()["items"], serde_json::json!([]));
    run(&served, &format!("apply -f {path}")).await.unwrap();
    let machine = served.bench.get("/v1/machines/525400000001").await.json();
    assert_eq!((&machine["labels"]["note"], &machine["options"]["12"]), (&"yes".into(), &"text:web1".into()));
    assert_eq!(machine["next"]["origin"]["rule"]["name"], "web");
    run(&served, &format!("apply -f {path} --dry-run --json")).await.unwrap();
    let exported = directory.path().join("exported");
    run(&served, &format!("export {}", exported.display())).await.unwrap();
    run(&served, &format!("apply -f {} --dry-run --prune Rule,Machine", exported.display())).await.unwrap();
    let pruned = run(&served, &format!("apply -f {path}/two.toml --prune Rule --dry-run")).await.unwrap_err();
    assert_eq!(pruned.exit_code(), ExitCode::from(3));
}

#[tokio::test]
async fn what_is_wrong_is_told_with_file_document_and_field() {
    let (served, directory) = (served().await, tempfile::tempdir().unwrap());
    for (name, text, told) in [
        (
            "field.yaml",
            "kind: Rule\nname: a\nimage: local\n---\nkind: Rule\nname: b\nimag: local\n",
            "field.yaml, document 2, field imag: unknown field `imag`",
        ),
        (
            "type.yaml",
            "kind: Machine\nname: 525400000001\n",
            "type.yaml, document 1, field name: invalid type: integer",
        ),
        (
            "label.yaml",
            "kind: Machine\nname: '525400000001'\nlabels:\n  a/b: 7\n",
            "label.yaml, document 1, field labels.a/b: invalid type: integer",
        ),
        (
            "twice.yaml",
            "kind: Rule\nname: a\nimage: local\n---\nkind: Rule\nname: a\nimage: local\n",
            "twice.yaml, document 2, field name: the rule a has a document already",
        ),
        ("key.yaml", "kind: Rule\nname: a\nname: b\n", "key.yaml: "),
        ("cut.yaml", "kind: [Rule\n", "cut.yaml: "),
        ("cut.toml", "kind = \n", "cut.toml: "),
        ("beside.toml", "x = 1\n[[documents]]\nkind = 'Rule'\n", "beside.toml: 'x' stands beside"),
    ] {
        let path = write(&directory, name, text);
        let error = run(&served, &format!("apply -f {path}")).await.unwrap_err();
        assert!(error.what.contains(told), "{name}: {error}");
        assert_eq!(error.exit_code(), ExitCode::from(1));
    }
    let gone = run(&served, "apply -f /nonexistent").await.unwrap_err();
    assert!(gone.what.contains("cannot read /nonexistent"), "{gone}");
    assert_eq!(served.bench.get("/v1/rules").await.json()["items"], serde_json::json!([]));
}

#[tokio::test]
async fn bombs_are_refused_before_they_unfold() {
    let (served, directory) = (served().await, tempfile::tempdir().unwrap());
    let mut laughs = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for level in 1..12 {
        let list = vec![format!("*a{}", level - 1); 9].join(",");
        laughs += &format!("a{level}: &a{level} [{list}]\n");
    }
    let filled = format!("kind: Rule\n# {}\n", "x".repeat(10 << 20));
    let nested = format!("kind: {}", "[".repeat(100_000));
    let scalars = format!("kind: [{}]", "a,".repeat(2_000_000));
    let big = format!("kind: {}", "x".repeat(17 << 20));
    for (name, text) in [("laughs", laughs), ("nested", nested), ("scalars", scalars), ("big", big), ("filled", filled)]
    {
        let path = write(&directory, &format!("{name}.yaml"), &text);
        let began = std::time::Instant::now();
        let error = run(&served, &format!("apply -f {path}")).await.unwrap_err();
        assert!(
            error.what.contains(&format!("{name}.yaml")),
            "{name}: {}",
            error.what.chars().take(300).collect::<String>()
        );
        assert!(error.what.len() < 2000, "{name}");
        assert!(began.elapsed().as_secs() < 20, "{name}: {:?}", began.elapsed());
    }
}

#[test]
fn every_text_comes_back_from_yaml() {
    let texts = [
        "",
        "yes",
        "null",
        "~",
        "0x1f",
        "1e3",
        "12",
        "-",
        "a: b",
        "#x",
        "'q'",
        "\"d\"",
        "é ☃",
        " lead",
        "*x",
        "&y",
        "!t",
        "%",
        "@",
        "a\\b",
        "2001-01-01",
        "<<",
    ];
    let labels: serde_json::Map<String, Value> =
        texts.iter().enumerate().map(|(n, text)| (format!("k{n}"), Value::from(*text))).collect();
    let document = serde_json::json!({"name": "12", "kind": "Machine", "labels": labels, "options": {"12": "text:x"}});
    let text = written::yaml(&[document.clone(), document.clone()]).unwrap();
    assert!(text.starts_with("kind: Machine\nname: "), "{text}");
    let directory = tempfile::tempdir().unwrap();
    let path = write(&directory, "x.yaml", &text);
    assert_eq!(documents::read(&[path.into()]).unwrap().values, [document.clone(), document]);
}

/// `cargo test --release -p bennu -- --ignored speed_of_apply`
#[tokio::test]
#[ignore = "a measurement, with optimisation"]
async fn speed_of_apply() {
    let (served, directory) = (served().await, tempfile::tempdir().unwrap());
    let machine = |n: u32| format!("kind: Machine\nname: '525400{n:06x}'\nlabels: {{rack: r{}, role: web}}\n", n / 40);
    let text = (0..10_000).map(machine).collect::<Vec<_>>().join("---\n");
    let path = write(&directory, "all.yaml", &text);
    for what in ["first", "again"] {
        let began = std::time::Instant::now();
        run(&served, &format!("apply -f {path} --json")).await.unwrap();
        eprintln!("10,000 documents, {what}: {:?}", began.elapsed());
        assert!(began.elapsed().as_secs() < 10);
    }
}

#[tokio::test]
async fn a_metadata_document_is_set_from_yaml_json_and_toml() {
    let (served, directory) = (served().await, tempfile::tempdir().unwrap());
    for (name, text) in [
        (
            "a.yaml",
            "kind: Metadata\nname: doc\npriority: 1\nfiles:\n- path: /etc/motd\n  content: |\n    a\n    {{ machine.id }}\n",
        ),
        ("b.yml", "name: doc\npriority: 2\n"),
        ("c.json", r#"{"name": "doc", "priority": 3}"#),
        ("d.toml", "kind = 'Metadata'\nname = 'doc'\npriority = 4\n"),
        ("e", "name = 'doc'\npriority = 5\n"),
    ] {
        let path = write(&directory, name, text);
        run(&served, &format!("metadata set -f {path}")).await.unwrap();
        let stored = served.bench.get("/v1/metadata/doc").await.json();
        assert!(text.contains(&stored["priority"].to_string()), "{name}: {stored}");
        assert_eq!(stored["files"].is_array(), name == "a.yaml");
    }
    let bomb: String = (1..9).map(|n| format!("b{n}: &b{n} [{}]\n", format!("*b{}, ", n - 1).repeat(9))).collect();
    for (name, text, told) in [
        ("bomb.yaml", format!("name: doc\nb0: &b0 [x]\n{bomb}"), "bomb.yaml: "),
        ("deep.yaml", format!("name: {}", "[".repeat(100_000)), "deep.yaml: "),
        ("two.yaml", "name: a\n---\nname: b\n".to_owned(), "has 2 documents"),
        ("none.yaml", "# nothing\n".to_owned(), "has 0 documents"),
        ("key.yaml", "name: a\nname: b\n".to_owned(), "key.yaml: "),
        ("rule.yaml", "kind: Rule\nname: a\n".to_owned(), "is of kind \"Rule\""),
        ("cut.json", "{".to_owned(), "cut.json: "),
        ("field.yaml", "name: doc\nhostnam: x\n".to_owned(), "hostnam"),
        ("label.yaml", "name: doc\nhostname: '{{ labls.x }}'\n".to_owned(), "line 1 of the template"),
    ] {
        let path = write(&directory, name, &text);
        let error = run(&served, &format!("metadata set -f {path}")).await.unwrap_err();
        assert!(error.what.contains(told), "{name}: {}", error.what);
    }
    assert_eq!(served.bench.get("/v1/metadata/doc").await.json()["priority"], 5);
}
