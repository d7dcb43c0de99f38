//! Browsers that look at pages, as scripts have them.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::examples::root;
use crate::pipelines::tell;

/// Where the pictures of the last run are, for people.
const PICTURES: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/page");

/// Upper bound of the time to the first paint in a debug build on a busy machine, in milliseconds. It is
/// about 50 where nothing else runs.
const PAINT: f64 = 2_000.0;

/// Both browsers, each with its program.
pub(crate) const BROWSERS: [(&str, &str); 2] = [
    ("chrome", "chromium-headless-shell"),
    ("firefox", "firefox-esr"),
];

/// Has a browser do what a script says with a page; returns what that found, after saying it.
pub(crate) fn browse(
    script: &str,
    (browser, program): (&str, &str),
    url: &str,
    more: &[&str],
) -> Value {
    let tools = root().join(".tools/bin");
    let browse = tools.join("browse");
    assert!(
        browse.exists(),
        "no browsers: run `guests/tools.sh browsers`"
    );
    std::fs::create_dir_all(PICTURES).unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let output = Command::new(browse)
        .arg(scripts.join(script))
        .arg(browser)
        .arg(tools.join(program))
        .args([url, PICTURES])
        .args(more)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{browser}: {said}{error}");
    // Also where the test succeeds: the figures are for people.
    let scene = more.first().unwrap_or(&script);
    tell(&format!("{scene} in {browser}: {}", said.trim()));
    serde_json::from_str(said.trim()).unwrap()
}

/// Whether the first paint was soon enough.
pub(crate) fn is_painted(found: &Value) {
    assert!(found["paint"].as_f64().unwrap() < PAINT, "{found}");
}
