use super::*;

/// A log of `count` records from `first` on, each as its text.
fn log(count: u64) -> Vec<String> {
    let mut previous = GENESIS;
    let record = |seq: u64| {
        let record = json!({
            "seq": seq, "at": seq, "who": { "kind": "unknown" }, "from": "socket", "action": "changed",
            "target": "tag web:v1", "before": null, "after": { "é": seq }, "previous": previous,
        });
        let (text, hash) = sealed(record);
        previous = hash;
        text
    };
    (1..=count).map(record).collect()
}

fn walk(log: &[String], head: Option<Digest>) -> Verified {
    let mut walk = Walk::expecting(head);
    for text in log {
        walk.see(text, None);
    }
    walk.end(None)
}

fn bad(log: &[String]) -> u64 {
    walk(log, None).bad.map_or(0, |bad| bad.seq)
}

#[test]
fn a_whole_log_is_found_whole() {
    let log = log(5);
    let verified = walk(&log, None);
    assert_eq!((verified.intact, verified.records, verified.first, verified.last), (true, 5, 1, 5));
    let third: Value = serde_json::from_str(&log[2]).unwrap();
    let third: Digest = serde_json::from_value(third["hash"].clone()).unwrap();
    assert!(walk(&log, Some(third)).intact, "an earlier head is still there");
    assert!(walk(&log, Some(verified.head)).intact);
    let cut = walk(&log[..4], Some(verified.head));
    assert_eq!(cut.bad.map(|bad| bad.seq), Some(5), "its end was cut off");
    assert!(walk(&[], None).intact && walk(&[], Some(GENESIS)).intact);
    assert!(!walk(&[], Some(third)).intact);
}

#[test]
fn the_first_bad_record_is_named() {
    let good = log(5);
    for (what, at) in [(r#""from":"socket""#, r#""from":"sucket""#), (r#""at":3"#, r#""at":4"#)]
        .iter()
        .flat_map(|(from, to)| good.iter().map(move |text| text.replace(from, to)).enumerate())
        .filter(|(at, text)| *text != good[*at])
        .map(|(at, text)| (text, at))
    {
        let mut edited = good.clone();
        edited[at] = what;
        assert_eq!(bad(&edited), at as u64 + 1);
    }
    let mut removed = good.clone();
    removed.remove(2);
    assert_eq!(bad(&removed), 3);
    let mut moved = good.clone();
    moved.swap(1, 3);
    assert_eq!(bad(&moved), 2);
    let mut doubled = good.clone();
    doubled.insert(1, good[1].clone());
    assert_eq!(bad(&doubled), 3);
    // Who edits a record and seals it anew breaks the next.
    let mut resealed = good.clone();
    let mut record: Value = serde_json::from_str(&good[2]).unwrap();
    record["from"] = json!("elsewhere");
    resealed[2] = sealed(record).0;
    assert_eq!(bad(&resealed), 4);
    assert_eq!(bad(&good[1..]), 1, "nothing says that the first was trimmed");
    for text in ["", "{}", "[]", "null", r#"{"seq":1}"#] {
        let mut broken = good.clone();
        broken[2] = text.into();
        assert_eq!(bad(&broken), 3, "{text}");
    }
}
