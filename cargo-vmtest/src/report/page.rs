//! Pages to read, each in one file that needs no server.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use minijinja::{Environment, context};
use serde_json::{Value, json};
use vmtest::evidence::{Ending, Kept};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("report.js");
/// Their ends decide how they are escaped.
const TEMPLATES: [(&str, &str); 2] =
    [("attempt.html", include_str!("attempt.html")), ("index.html", include_str!("index.html"))];

/// The page of one attempt.
pub(super) fn of_attempt(kept: &Kept) -> Result<String, String> {
    let files: Vec<_> = kept.files().into_iter().filter(|file| file != "report.html").collect();
    render(
        "attempt.html",
        context! {
            test => kept.test, binary => kept.suite(), verdict => kept.ending.word(), began => time(kept.began),
            took => format!("{:.2}", kept.took), failure => kept.failure, first => kept.first_cause,
            files, style => STYLE, script => SCRIPT, data => in_a_script(&data(kept)),
        },
    )
}

/// The page over all of them, relative to this directory.
pub(super) fn index(dir: &Path, all: &[Kept]) -> Result<String, String> {
    let row = |kept: &Kept| {
        let page = kept.dir.strip_prefix(dir).unwrap_or(&kept.dir).join("report.html");
        let first = kept.first_cause["what"].as_str().or_else(|| kept.failure.lines().next()).unwrap_or_default();
        context! {
            page => page.display().to_string(), test => kept.test, binary => kept.suite(), verdict => kept.ending.word(),
            began => time(kept.began), took => format!("{:.2}", kept.took), first, node => kept.first_cause["node"].as_str(),
        }
    };
    // Those that want to be read come first, and each group keeps the newest first.
    let (good, bad): (Vec<_>, Vec<_>) = all.iter().partition(|kept| !kept.ending.is_bad());
    let passed = good.iter().filter(|kept| kept.ending == Ending::Passed).count();
    let rows: Vec<_> = bad.iter().chain(&good).map(|kept| row(kept)).collect();
    render("index.html", context! { rows, bad => bad.len(), good => passed, style => STYLE })
}

fn render(name: &str, with: minijinja::Value) -> Result<String, String> {
    let mut templates = Environment::new();
    for (name, text) in TEMPLATES {
        templates.add_template(name, text).expect("the templates are part of this program");
    }
    templates.get_template(name).and_then(|page| page.render(with)).map_err(|e| e.to_string())
}

fn time(unix: f64) -> String {
    let time = UNIX_EPOCH + Duration::try_from_secs_f64(unix).unwrap_or_default();
    humantime::format_rfc3339_seconds(time).to_string()
}

/// JSON that ends no element of a page.
fn in_a_script(data: &Value) -> String {
    data.to_string().replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// What the script shows: spans, marks and lines, in arrays because there are many of them. A node is its number, -1 stands
/// for what is of none.
fn data(kept: &Kept) -> Value {
    let number = |node: &Value| {
        let name = node.as_str();
        kept.nodes.iter().position(|node| Some(node.as_str()) == name).map_or(json!(-1), |number| json!(number))
    };
    let mut lines = Vec::new();
    let mut marks = Vec::new();
    let mut spans: Vec<(Value, f64, Option<f64>, String, String, bool)> = Vec::new();
    let mut open: BTreeMap<u64, usize> = BTreeMap::new();
    let mut states: BTreeMap<String, usize> = BTreeMap::new();
    for event in &kept.events {
        let at = event["at"].as_f64().unwrap_or_default();
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let id = event["id"].as_u64().unwrap_or_default();
        let mut node = event["node"].clone();
        let mut bad = false;
        match text("event").as_str() {
            "began" => {
                open.insert(id, spans.len());
                spans.push((node.clone(), at, None, text("kind"), text("what"), false));
            }
            "ended" => {
                bad = event["error"].is_string() || event["code"].as_i64().is_some_and(|code| code != 0);
                if let Some(span) = open.remove(&id).map(|place| &mut spans[place]) {
                    node = span.0.clone();
                    (span.2, span.5) = (Some(at), bad);
                }
            }
            "state" => {
                if let Some(before) = states.insert(text("node"), spans.len()) {
                    spans[before].2 = Some(at);
                }
                spans.push((node.clone(), at, None, "state".into(), text("state"), false));
            }
            "reached" => marks.push(json!([number(&node), at, "rung", text("rung")])),
            "step" => marks.push(json!([-1, at, "step", text("what")])),
            "anomaly" => {
                bad = true;
                marks.push(json!([number(&node), at, "anomaly", text("line")]));
            }
            _ => {}
        }
        lines.push((at, number(&node), 0, told(event), u8::from(bad)));
    }
    for (place, name) in kept.nodes.iter().enumerate() {
        for line in kept.console(name) {
            lines.push((line.at, json!(place), 1, line.text, 0));
        }
        for line in kept.guest_log(name) {
            lines.push((line.at, json!(place), 2, line.text, 0));
        }
    }
    lines.sort_by(|a, b| a.0.total_cmp(&b.0));
    let spans: Vec<_> = spans
        .into_iter()
        .map(|(node, from, to, kind, what, bad)| json!([number(&node), from, to, kind, what, bad]))
        .collect();
    json!({
        "nodes": kept.nodes, "took": kept.took, "first": kept.first_cause, "failed": kept.ending.is_bad(),
        "spans": spans, "marks": marks, "lines": lines,
    })
}

/// An event in a line.
fn told(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    let seconds = |key: &str| event[key].as_f64().unwrap_or_default();
    match text("event") {
        "began" => format!("{} {}", text("kind"), text("what")),
        "ended" => {
            let how = match (event["error"].as_str(), event["code"].as_i64(), event["signal"].as_str()) {
                (Some(error), ..) => format!("failed: {error}"),
                (None, Some(code), _) => format!("ended with {code}"),
                (None, None, Some(signal)) => format!("ended by SIG{signal}"),
                _ if event["given_up"] == true => "was given up".to_owned(),
                _ => "done".to_owned(),
            };
            let printed = |key: &str| event[key]["text"].as_str().map(|text| format!(" | {key}: {}", text.trim_end()));
            let printed: String = ["stdout", "stderr"].iter().filter_map(|key| printed(key)).collect();
            format!("{how} after {:.3} s{printed}", seconds("took"))
        }
        "state" => format!("is {} {}", text("state"), text("why")),
        "reached" => format!("reached {}", text("rung").replace('_', " ")),
        "anomaly" => format!("anomaly, {}: {}", text("sign"), text("line")),
        "step" => format!("step: {}", text("what")),
        "body_ended" => format!("the body has ended: {}", event["failure"].as_str().unwrap_or("success")),
        kind => {
            let rest =
                event.as_object().into_iter().flatten().filter(|(key, _)| !["at", "event"].contains(&key.as_str()));
            let rest: Vec<_> = rest.map(|(key, value)| format!("{key}={value}")).collect();
            format!("{} {}", kind.replace('_', " "), rest.join(" "))
        }
    }
}
