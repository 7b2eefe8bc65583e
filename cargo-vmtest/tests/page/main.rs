//! The pages of `cargo vmtest report`, as a browser has them. Where no Chromium is installed these tests are reported as
//! ignored, by their names.

mod chromium;
#[path = "../made_up/mod.rs"]
mod made_up;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use tempfile::TempDir;

use chromium::{Page, installed};
use made_up::{HOSTILE, failed_attempt, write};

/// A window on a desk.
const WIDE: (u32, u32) = (1280, 900);
/// A phone.
const NARROW: (u32, u32) = (390, 844);
/// How many seconds of its own time a page may take for a hundred thousand events. Measured: 0.5 to 0.9.
const OPENS_WITHIN: f64 = 2.0;
/// What text needs over its background to be read (WCAG 2, AA).
const CONTRAST: f64 = 4.5;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let tests: [(&str, fn()); 9] = [
        ("a_long_page_opens_at_its_first_cause", a_long_page_opens_at_its_first_cause),
        ("filters_hide_and_show_lines", filters_hide_and_show_lines),
        ("a_search_finds_and_marks", a_search_finds_and_marks),
        ("the_jump_shows_what_filters_have_hidden", the_jump_shows_what_filters_have_hidden),
        ("lanes_are_zoomed_and_moved", lanes_are_zoomed_and_moved),
        ("links_lead_to_files_that_are_there", links_lead_to_files_that_are_there),
        ("nothing_is_wider_than_a_phone", nothing_is_wider_than_a_phone),
        ("dark_and_light_can_be_read", dark_and_light_can_be_read),
        ("a_killed_run_opens_at_its_end", a_killed_run_opens_at_its_end),
    ];
    let there = installed().is_some();
    if !there && !arguments.list {
        eprintln!("the tests of pages in a browser are not run: there is no chromium in PATH");
    }
    let trial = |(name, test): (&str, fn())| {
        let run = move || {
            test();
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(!there)
    };
    libtest_mimic::run(&arguments, tests.into_iter().map(trial).collect()).exit_code()
}

/// Has pages made of all attempts in a directory.
fn report(dir: &Path) {
    let command = env!("CARGO_BIN_EXE_cargo-vmtest");
    let made = Command::new(command).arg("report").arg(dir).output().expect("it can be run");
    assert!(made.status.success(), "{made:?}");
}

/// The page of one failed attempt with so many commands, open.
fn opened(commands: u32, size: (u32, u32)) -> (TempDir, Page) {
    let dir = TempDir::new().expect("a temporary directory");
    let attempt = failed_attempt(dir.path(), commands);
    let clock = "{\"at\":1.2,\"event\":\"guest_clock\",\"node\":\"web\",\"guest\":0.2,\"offset\":1.0,\"within\":0.1}\n";
    let timeline = std::fs::read_to_string(attempt.join("timeline.jsonl")).expect("it was written");
    write(&attempt, "timeline.jsonl", timeline + clock);
    write(&attempt, "nodes/web/dmesg.txt", "[    0.010000] the kernel of web\n[    0.020000] it goes on\n");
    report(dir.path());
    let page = open(&attempt, size);
    (dir, page)
}

fn open(attempt: &Path, (width, height): (u32, u32)) -> Page {
    let mut page = Page::new(width, height);
    page.open(&attempt.join("report.html"));
    page
}

/// How many lines are shown, of how many.
fn count(page: &mut Page) -> (u32, u32) {
    let text = page.text("document.getElementById('count').textContent");
    let (shown, all) = text.split_once(" of ").expect("it says both");
    (shown.parse().expect("a number"), all.parse().expect("a number"))
}

/// The lines that are elements of the page.
fn rows(page: &mut Page) -> Vec<String> {
    let rows = page.eval("[...document.querySelectorAll('#log .row')].map(row => row.textContent)");
    rows.as_array().expect("a list").iter().map(|row| row.as_str().expect("text").to_owned()).collect()
}

/// Chooses in a list, or ticks a box, as a user's click does.
fn choose(page: &mut Page, id: &str, set: &str) {
    page.eval(&format!("(e => {{ e.{set}; e.dispatchEvent(new Event('change')); }})(document.getElementById('{id}'))"));
}

/// Which text of the line that is gone to is in sight, if it is.
fn gone_to(page: &mut Page) -> Value {
    page.eval(
        "(() => { const row = document.querySelector('#log .here'), log = document.getElementById('log'); if (!row) return null; \
         const [r, l] = [row.getBoundingClientRect(), log.getBoundingClientRect()]; \
         return r.top >= l.top && r.bottom <= l.bottom ? row.textContent : 'out of sight'; })()",
    )
}

/// From and to which second the lanes are drawn.
fn range(page: &mut Page) -> (f64, f64) {
    let text = page.text("document.getElementById('range').textContent");
    let (from, to) = text.split_once(" to ").expect("it says both");
    let seconds = |text: &str| text.trim_end_matches(" s").parse().expect("a number");
    (seconds(from), seconds(to))
}

/// What is drawn.
fn drawn(page: &mut Page) -> String {
    page.text("document.getElementById('lanes').toDataURL()")
}

fn assert_content(page: &mut Page) {
    assert_eq!(page.complaints(), &[] as &[String]);
}

fn a_long_page_opens_at_its_first_cause() {
    let (_dir, mut page) = opened(50_000, WIDE);
    let took = page.thread_time();
    assert_eq!(count(&mut page), (100_008, 100_008));
    let here = gone_to(&mut page);
    assert!(here.as_str().is_some_and(|line| line.contains("anomaly, oom: </script>")), "{here}");
    assert!(rows(&mut page).len() < 200, "only what is seen is part of the page");
    println!("a hundred thousand events in {took:.2} s of the page's thread");
    assert!(took < OPENS_WITHIN, "{took} s");
    assert_content(&mut page);
}

fn filters_hide_and_show_lines() {
    let (_dir, mut page) = opened(100, WIDE);
    let (shown, all) = count(&mut page);
    assert_eq!((shown, all), (208, 208));
    choose(&mut page, "node", "value = '0'");
    let of_db = count(&mut page).0;
    assert!(of_db > 50 && of_db < all, "{of_db}");
    assert!(rows(&mut page).iter().all(|row| row.contains("  db  ")), "{:?}", rows(&mut page));
    choose(&mut page, "source", "value = '1'");
    assert_eq!(rows(&mut page), ["    1.000  db    the console of db"]);
    choose(&mut page, "node", "value = '1'");
    assert_eq!(rows(&mut page), Vec::<String>::new());
    choose(&mut page, "source", "value = '2'");
    assert_eq!(rows(&mut page), ["    1.010  web   the kernel of web", "    1.020  web   it goes on"]);
    choose(&mut page, "source", "value = ''");
    assert!(count(&mut page).0 > 50);
    choose(&mut page, "node", "value = '-1'");
    assert!(rows(&mut page).iter().all(|row| row.contains("  test  ")), "{:?}", rows(&mut page));
    choose(&mut page, "node", "value = ''");
    choose(&mut page, "only", "checked = true");
    assert!(rows(&mut page).len() == 1 && rows(&mut page)[0].contains("anomaly, oom"), "{:?}", rows(&mut page));
    choose(&mut page, "only", "checked = false");
    assert_eq!(count(&mut page), (all, all));
    assert_content(&mut page);
}

fn a_search_finds_and_marks() {
    let (_dir, mut page) = opened(100, WIDE);
    let (_, all) = count(&mut page);
    let marks = "[...document.querySelectorAll('#log mark')].map(mark => mark.textContent)";
    page.click("#search");
    page.write("COMMAND 42");
    assert_eq!(rows(&mut page).len(), 1, "{:?}", rows(&mut page));
    assert!(rows(&mut page)[0].ends_with("command command 42"));
    assert_eq!(page.eval(marks), serde_json::json!(["command", "command", "42"]));
    page.write(" is nowhere");
    assert_eq!((count(&mut page), rows(&mut page).len()), ((0, all), 0));
    assert_eq!(page.text("document.getElementById('none').innerText"), "No line is like that.");
    page.eval("document.getElementById('search').select()");
    page.write("<script>");
    let found = rows(&mut page);
    assert!(found.len() == 1 && found[0].contains(&HOSTILE[..HOSTILE.len() - 3]), "{found:?}");
    assert_eq!(page.eval(marks), serde_json::json!(["<script>"]));
    page.eval("document.getElementById('search').select()");
    page.write(" ");
    assert_eq!(count(&mut page), (all, all));
    assert_eq!(page.eval("document.getElementById('none').hidden"), true);
    assert_eq!(page.eval(marks), serde_json::json!([]));
    assert_content(&mut page);
}

fn the_jump_shows_what_filters_have_hidden() {
    let (_dir, mut page) = opened(2000, WIDE);
    page.eval("document.getElementById('log').scrollTop = 1e9");
    page.eval("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))");
    assert_eq!(gone_to(&mut page), Value::Null);
    page.click("#jump");
    let first = gone_to(&mut page);
    assert!(first.as_str().is_some_and(|line| line.contains("anomaly, oom")), "{first}");
    page.click("#search");
    page.write("is nowhere");
    assert_eq!(gone_to(&mut page), Value::Null);
    page.click("#jump");
    assert_eq!(gone_to(&mut page), first);
    assert_content(&mut page);
}

fn lanes_are_zoomed_and_moved() {
    let (_dir, mut page) = opened(2000, WIDE);
    let (whole, all) = (range(&mut page), drawn(&mut page));
    assert!(whole.0 == 0.0 && whole.1 >= 3.0, "{whole:?}");
    for _ in 0..3 {
        page.click("#in");
    }
    let (near, zoomed) = (range(&mut page), drawn(&mut page));
    let length = |(from, to): (f64, f64)| to - from;
    assert!((length(near) - length(whole) / 8.0).abs() < 0.01, "{near:?}");
    assert!(near.0 < 1.0006 && near.1 > 1.0006, "the line that was gone to stays in sight: {near:?}");
    assert_ne!(zoomed, all);

    let (x, y) = page.middle("#lanes");
    page.mouse("mouseMoved", (x, y), false);
    page.mouse("mousePressed", (x, y), true);
    page.mouse("mouseMoved", (x - 200.0, y), true);
    page.mouse("mouseReleased", (x - 200.0, y), false);
    let moved = range(&mut page);
    assert!(moved.0 > near.0 && (length(moved) - length(near)).abs() < 0.01, "{near:?}, then {moved:?}");
    assert_ne!(drawn(&mut page), zoomed);

    page.wheel((x, y), -120.0);
    let wheeled = range(&mut page);
    assert!(length(wheeled) < length(moved), "{moved:?}, then {wheeled:?}");
    page.click("#out");
    assert!(length(range(&mut page)) > length(wheeled));
    page.click("#all");
    assert_eq!(range(&mut page), whole);

    let at = page.middle("#lanes");
    page.mouse("mouseMoved", at, false);
    assert!(page.text("document.getElementById('hover').textContent").contains(" s  "), "it says what is there");
    page.click("#lanes");
    assert_ne!(gone_to(&mut page), Value::Null, "a click goes to that moment");
    assert_content(&mut page);
}

/// The files to which the links of a page lead.
fn links(page: &mut Page) -> Vec<PathBuf> {
    let links = page.eval("[...document.links].map(link => decodeURIComponent(new URL(link.href).pathname))");
    links.as_array().expect("a list").iter().map(|link| link.as_str().expect("a path").into()).collect()
}

fn links_lead_to_files_that_are_there() {
    let dir = TempDir::new().expect("a temporary directory");
    let attempt = failed_attempt(dir.path(), 10);
    let odd = ["saved/a #1?b=%41&c.txt", "saved/über \"alles\" <b>.txt", "saved/below/mine"];
    odd.iter().for_each(|name| write(&attempt, name, "mine"));
    report(dir.path());
    let mut page = Page::new(WIDE.0, WIDE.1);
    page.open(&dir.path().join("index.html"));
    assert_eq!(links(&mut page), [attempt.join("report.html")]);
    page.follow("td a");
    let files = links(&mut page);
    for file in &files {
        assert!(file.is_file(), "{}", file.display());
    }
    for name in odd.into_iter().chain(["timeline.jsonl", "nodes/db/console.log", "failure.txt"]) {
        assert!(files.contains(&attempt.join(name)), "no link to {name} in {files:?}");
    }
    assert_content(&mut page);
}

fn nothing_is_wider_than_a_phone() {
    let dir = TempDir::new().expect("a temporary directory");
    let attempt = failed_attempt(dir.path(), 100);
    let (long, name) = ("x".repeat(600), "n".repeat(63));
    let started = format!("{{\"test\":\"{long}\",\"binary\":\"{long}\",\"unix_time\":1.7e9}}");
    write(&attempt, "started.json", started);
    write(&attempt, "failure.txt", &long);
    write(&attempt, "first-cause.json", format!("{{\"at\":1.0,\"node\":\"{name}\",\"what\":\"{long}\"}}"));
    write(&attempt, &format!("nodes/{name}/console.log"), format!("    1.0 {long}\n"));
    write(&attempt, &format!("saved/{}", "f".repeat(200)), "");
    report(dir.path());
    for scheme in ["light", "dark"] {
        for file in [attempt.join("report.html"), dir.path().join("index.html")] {
            let mut page = Page::new(NARROW.0, NARROW.1);
            page.colours(scheme);
            page.open(&file);
            let width = page.number("document.documentElement.scrollWidth");
            assert!(width <= f64::from(NARROW.0), "{} is {width} wide", file.display());
            let wide = page.eval(
                "[...document.querySelectorAll('body *')].filter(e => !e.closest('#log, pre, .wide') \
                 && e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML.slice(0, 80))",
            );
            assert_eq!(wide, serde_json::json!([]), "{}", file.display());
            assert_content(&mut page);
        }
    }
    // Turned, or in a window that is made wider, the lanes are as wide as it is.
    let mut page = open(&attempt, NARROW);
    page.resize(WIDE.0, WIDE.1);
    page.eval("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))");
    assert!(page.number("document.getElementById('lanes').width") > 1000.0);
}

/// How bright a colour is (WCAG 2), given as the browser says it.
fn brightness(colour: &str) -> f64 {
    let parts = colour.trim_start_matches("rgb(").trim_end_matches(')').split(',');
    let part = |text: &str| {
        let part = text.trim().parse::<f64>().unwrap_or_else(|_| panic!("{colour} is no colour")) / 255.0;
        if part <= 0.040_45 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
    };
    parts.map(part).zip([0.2126, 0.7152, 0.0722]).map(|(part, weight)| part * weight).sum()
}

fn dark_and_light_can_be_read() {
    let (_dir, mut page) = opened(100, WIDE);
    page.click("#search");
    page.write("command");
    let colour = |page: &mut Page, of: &str, which: &str| {
        brightness(&page.text(&format!("getComputedStyle(document.querySelector('{of}')).{which}")))
    };
    let mut seen = Vec::new();
    for (scheme, dark) in [("light", false), ("dark", true)] {
        page.colours(scheme);
        page.eval("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))");
        let ground = colour(&mut page, "body", "backgroundColor");
        assert_eq!(ground < 0.2, dark, "{scheme}: {ground}");
        let card = colour(&mut page, ".card", "backgroundColor");
        let hit = colour(&mut page, "mark", "backgroundColor");
        for (of, ground) in
            [("body", ground), (".dim", ground), (".failed", ground), (".card", card), ("button", card), ("mark", hit)]
        {
            let text = colour(&mut page, of, "color");
            let contrast = (text.max(ground) + 0.05) / (text.min(ground) + 0.05);
            assert!(contrast >= CONTRAST, "{scheme}: {of} has {contrast:.2}");
        }
        seen.push(drawn(&mut page));
    }
    assert_ne!(seen[0], seen[1], "the lanes are drawn in the other colours too");
    assert_content(&mut page);
}

fn a_killed_run_opens_at_its_end() {
    let dir = TempDir::new().expect("a temporary directory");
    let attempt = dir.path().join("b.killed/1");
    write(&attempt, "started.json", r#"{"test":"killed","binary":"b","unix_time":1.0}"#);
    let timeline = b"{\"at\":0.5,\"event\":\"step\",\"what\":\"the last step\"}\n\xff\xfe\n{\"at\":0.7,\"event\":\"st";
    write(&attempt, "timeline.jsonl", timeline);
    let mut console = b"    0.250000 from the console \xff\n".to_vec();
    console.extend((0..100_000).map(|n| (n % 256) as u8));
    write(&attempt, "nodes/db/console.log", console);
    report(dir.path());
    let mut page = open(&attempt, WIDE);
    let here = gone_to(&mut page);
    assert!(here.as_str().is_some_and(|line| line.contains("the last step")), "{here}");
    assert_eq!(page.eval("document.getElementById('jump')"), Value::Null);
    page.click("#search");
    page.write("from the console");
    assert_eq!(rows(&mut page).len(), 1);
    assert_content(&mut page);
}
