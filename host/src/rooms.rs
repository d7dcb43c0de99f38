//! The rooms of this library stand one above the other: a room uses only what stands below it.

use std::fs;
use std::path::{Path, PathBuf};

/// From the top down; `host/ARCHITECTURE.md` says what each is.
const ROOMS: [&str; 40] = [
    "host",
    "fleet",
    "admin",
    "insight",
    "gateway",
    "openapi",
    "deployment",
    "transport",
    "pipelines",
    "jobs",
    "events",
    "registry",
    "cases",
    "runtime",
    "interfaces",
    "grpc",
    "plan",
    "manifest",
    "build",
    "logs",
    "nats",
    "programs",
    "wire",
    "headers",
    "micro",
    "nest",
    "subject",
    "json",
    "spans",
    "otlp",
    "stats",
    "claims",
    "call",
    "value",
    "shape",
    "interface",
    "telemetry",
    "poll",
    "per_core",
    "text",
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The room of a path such as `gateway/route.rs` or `wire.rs`.
fn room_of(file: &Path) -> Option<usize> {
    let room = file.components().next()?.as_os_str().to_str()?;
    let room = room.strip_suffix(".rs").unwrap_or(room);
    ROOMS.iter().position(|known| *known == room)
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The first names after `crate::` in a file, tests and documentation left out: `a` and `b` of
/// `crate::a::x` and `crate::{a::x, b}`.
fn used(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let code: String = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut used = Vec::new();
    for after in code.split("crate::").skip(1) {
        let name = |text: &str| {
            let end = text.find(|c: char| c != '_' && !c.is_ascii_alphanumeric());
            text[..end.unwrap_or(text.len())].to_owned()
        };
        match after.strip_prefix('{') {
            None => used.push(name(after)),
            Some(list) => {
                let list = &list[..list.find(';').unwrap_or(list.len())];
                // Commas within a nested list separate names of one room.
                let mut depth = 0;
                let top = list.split(|c| {
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        _ => {}
                    }
                    c == ',' && depth == 0
                });
                used.extend(top.map(|item| name(item.trim())));
            }
        }
    }
    used
}

#[test]
fn no_room_uses_one_above_it() {
    let source = source();
    let mut files = Vec::new();
    files_below(&source, &mut files);
    let mut upwards = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&source).unwrap();
        let Some(room) = room_of(inside) else {
            continue;
        };
        for name in used(&fs::read_to_string(&file).unwrap()) {
            let above = ROOMS.iter().position(|known| *known == name);
            if above.is_some_and(|above| above < room) {
                let inside = inside.display();
                upwards.push(format!(
                    "src/{inside} uses src/{name}, which stands above it"
                ));
            }
        }
    }
    assert!(upwards.is_empty(), "{}", upwards.join("\n"));
}

#[test]
fn every_file_stands_in_a_room() {
    let outside = ["bin", "lib.rs", "rooms.rs"];
    for entry in fs::read_dir(source()).unwrap() {
        let name = entry.unwrap().file_name();
        let known = outside.iter().any(|known| name == *known);
        assert!(
            known || room_of(Path::new(&name)).is_some(),
            "src/{} has no place in `ROOMS`",
            name.display()
        );
    }
}

#[test]
fn uses_are_found_in_every_form() {
    let text = "
        use crate::call::{Call, CallError};
        use crate::{subject, wire::{self, MAX_HEADER}, text};
        // crate::host is only mentioned
        fn f() -> crate::json::Limits { crate::text::serde_as_text!(X); }
    ";
    let used = used(text);
    assert_eq!(used, ["call", "subject", "wire", "text", "json", "text"]);
}
