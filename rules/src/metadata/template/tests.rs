use super::*;
use minijinja::value::Serde;
use proptest::prelude::*;
use serde_json::json;

fn known() -> Value {
    Value::from(Serde(json!({
        "labels": { "rack": "r1", "role": "web", "n": "7", "a-b": "c", "quote": "a\"b: c" },
        "facts": { "serial": "S1", "inventory": { "disks": [{ "name": "sda" }, { "name": "sdb" }] } },
        "machine": { "id": "52:54:00:00:00:01", "hyphened": "52-54-00-00-00-01" },
        "boot": { "id": "b1", "origin": "http://10.77.0.1" },
        "image": { "reference": "web:v1", "name": "web", "tag": "v1" },
    })))
}

#[test]
fn what_people_write_is_rendered() {
    for (template, expected) in [
        ("plain", "plain"),
        ("{{ labels.role }}-{{ labels.rack }}", "web-r1"),
        ("{{ labels['a-b'] }}", "c"),
        ("{{ labels.room | default('none') }}", "none"),
        ("{{ labels.quote | tojson }}", r#""a\"b: c""#),
        ("{% if labels.role == 'web' and 'r' in labels.rack %}yes{% else %}no{% endif %}", "yes"),
        ("{% if labels.gpu is defined %}yes{% else %}no{% endif %}", "no"),
        ("{% for disk in facts.inventory.disks %}\n{{ loop.index }} {{ disk.name }}\n{% endfor %}\n", "1 sda\n2 sdb\n"),
        (
            "{% for key, value in labels | items | sort %}{{ key }}={{ value }};{% endfor %}",
            "a-b=c;n=7;quote=a\"b: c;rack=r1;role=web;",
        ),
        ("{% set n = labels.n | int %}{{ n + 1 }}", "8"),
        ("{{ 'a' ~ labels.n ~ 'b' }}", "a7b"),
        ("{{ labels.rack | upper | replace('R', 'rack-') }}", "rack-1"),
        ("x:\n  {{ ['a', 'b'] | join('\n') | indent(2) }}\n", "x:\n  a\n  b\n"),
        ("{% for i in range(3) %}{{ i }}{% endfor %}", "012"),
        ("{{ ['a', labels.rack] | tojson }}", r#"["a","r1"]"#),
        ("{% raw %}{{ kept }}{% endraw %}\n", "{{ kept }}"),
        ("{{ 'b' if labels.rack == 'r2' else labels.role }}", "web"),
    ] {
        assert_eq!(render(template, &known(), &mut Fuel::default()).unwrap(), expected, "{template}");
        assert_eq!(check(template), Ok(()), "{template}");
    }
}

#[test]
fn a_missing_label_is_named_with_its_line() {
    let error = render("a\nb: {{ labels.room }}\n", &known(), &mut Fuel::default()).unwrap_err();
    assert_eq!(error.line, 2);
    assert!(error.reason.contains("labels.room") && error.reason.contains("default"), "{error}");
    let error =
        render("{% for d in facts.inventory.fans %}{{ d }}{% endfor %}", &known(), &mut Fuel::default()).unwrap_err();
    assert!(error.reason.contains("facts.inventory.fans"), "{error}");
}

#[test]
fn what_is_wrong_for_every_machine_is_told_when_it_is_written() {
    for (template, line, part) in [
        ("\n{{ lables.rack }}", 2, "no 'lables'"),
        ("{{ rack }}", 1, "no 'rack'"),
        ("{% include 'x' %}", 1, "no template"),
        ("{% macro x() %}{% endmacro %}", 1, "no template"),
        ("{% if labels.a %}", 1, "no template"),
        ("echo ${#array[@]}", 1, "raw"),
        ("{{ labels.a | eval }}", 1, "no filter"),
        ("{{ labels.a is filter('x') }}", 1, "no test"),
        ("{{ machine.id.upper() }}", 1, "range"),
        ("{{ debug() }}", 1, "range"),
        ("{% set labels = 1 %}", 1, "Bennu's"),
        ("{{ 'a' * 1000000000 }}", 1, "'*'"),
        ("{% set a = 'x' %}\n{% set a = a ~ a %}", 2, "put together"),
        ("{% for a in [labels.rack] %}{% endfor %}", 1, "constants"),
        ("{% for a in labels recursive %}{{ loop(a) }}{% endfor %}", 1, "recursive"),
        ("{% set a %}x{% endset %}", 1, "not there"),
        ("{% with a = 1 %}{% endwith %}", 1, "not there"),
    ] {
        let error = check(template).unwrap_err();
        assert!(error.line == line && error.reason.contains(part), "{template}: {error}");
        assert!(render(template, &known(), &mut Fuel::default()).is_err(), "{template}");
    }
}

#[test]
fn costs_are_bounded() {
    let long = "a".repeat(1000);
    for (template, part) in [
        ("{% for a in range(64) %}{% for b in range(64) %}{% for c in range(64) %}{% endfor %}{% endfor %}{% endfor %}".to_owned(), "loops"),
        (format!("{{% for a in range(64) %}}{{% for b in range(64) %}}{long}{{% endfor %}}{{% endfor %}}"), "bytes"),
        ("{% for a in range(99999) %}{% endfor %}".to_owned(), "range"),
        (format!("{{% set a = '{}' | split('x') %}}", "x".repeat(65)), "split"),
        (format!("{{% set a = '{}' | split('x') %}}", "a".repeat(4097)), "split"),
        ("{% set a = 'abc' | split('') %}".to_owned(), "split"),
        (format!("{{% set a = [{}] | sort %}}", "1,".repeat(65)), "sort"),
        ("{{ facts ~ facts }}".repeat(20_000), "256 times"),
        ("{{ facts }}".repeat(20_000), "bytes"),
        ("{{ 'x' | indent(9999999999) }}".to_owned(), "columns"),
        (format!("{{{{ labels.rack{} }}}}", " | replace('r', 'rrrrrrrrrrrrrrrrrrrrrrrrrrr')".repeat(30)), ""),
        ("{{ range(999999999999) | join(',') }}".to_owned(), ""),
        (format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000)), ""),
        (format!("{}{}", "{% if 1 %}".repeat(2000), "{% endif %}".repeat(2000)), ""),
    ] {
        let error = render(&template, &known(), &mut Fuel::default()).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    let endless = "a\n{% for a in range(64) %}\n{% for b in range(64) %}{% for c in range(64) %}{{ c }}{% endfor %}{% endfor %}{% endfor %}";
    let error = render(endless, &known(), &mut Fuel::default()).unwrap_err();
    assert!(error.line >= 2 && error.reason.contains("loops over too much"), "{error}");
}

proptest! {
    #[test]
    fn any_text_is_rendered_or_refused(text in "[a-z{}%#|~.()\\[\\]\"' \n0-9]{0,80}", words in prop::collection::vec(
        prop::sample::select(vec!["{{", "}}", "{%", "%}", "labels", "facts", ".rack", "|", "~", "for", "in", "set", "a",
            "=", "if", "endif", "endfor", "range(9)", "default(", ")", "join", "indent(3)", "tojson", "[", "]", ",", "'x'"]), 0..24,
    )) {
        let _ = render(&text, &known(), &mut Fuel::default());
        let sentence = words.join(" ");
        if let Ok(rendered) = render(&sentence, &known(), &mut Fuel::default()) {
            prop_assert_eq!(check(&sentence), Ok(()));
            prop_assert!(rendered.len() <= MAX_RENDERED);
        }
    }
}
