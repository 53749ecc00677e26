use super::*;
use crate::cli::tests::{Served, run};
use std::process::ExitCode;

#[test]
fn spans_are_read() {
    assert_eq!(parse_span("30m"), Ok(1_800_000));
    assert_eq!(parse_span("12h"), Ok(43_200_000));
    assert_eq!(parse_span("7d"), Ok(604_800_000));
    for text in ["", "m", "7", "-1h", "7w", "99999999999d", "é"] {
        assert!(parse_span(text).is_err(), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_listed_exported_and_verified() {
    let served = Served::new();
    run(&served, "machine label 52:54:00:00:00:01 rack=r1").await.unwrap();
    run(&served, "machine label 52:54:00:00:00:01 rack=r2").await.unwrap();
    for line in ["audit list", "audit list --since 1h --json", "audit show 2", "audit show 1 --json", "audit verify"] {
        assert_eq!(run(&served, line).await.unwrap(), ExitCode::SUCCESS, "{line}");
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("log");
    run(&served, &format!("audit export {}", file.display())).await.unwrap();
    let verified = of_file(&file, None).unwrap();
    assert_eq!((verified.intact, verified.last), (true, 2));
    let head = verified.head;
    run(&served, &format!("audit verify {} --head {head}", file.display())).await.unwrap();
    run(&served, &format!("audit verify --head {head}")).await.unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("rack", "rakc", 1)).unwrap();
    let error = run(&served, &format!("audit verify {}", file.display())).await.unwrap_err();
    assert!(error.what.contains("from record 1 on") && error.exit_code() == ExitCode::from(1), "{error}");
    std::fs::write(&file, text.lines().next().unwrap()).unwrap();
    assert!(of_file(&file, None).unwrap().intact);
    assert_eq!(of_file(&file, Some(head)).unwrap().bad.unwrap().seq, 2, "its end is gone");
    assert!(run(&served, &format!("audit verify {}/none", directory.path().display())).await.is_err());
    assert!(run(&served, "audit show 3").await.is_err());
}
