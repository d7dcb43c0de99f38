//! Changes that are hard to see: what is removed and made again, moved, made late, or behind a link.

use std::fs;
use std::os::unix::fs::symlink;

use super::{APP, demo};
use crate::support::cli::{Cli, Up};
use crate::support::components::GUEST;
use crate::support::{PATIENCE, until_ok_blocking_within};

/// The guest with another letter in `repeat`.
fn other(letter: u8) -> String {
    GUEST.replace("i32.const 120", &format!("i32.const {letter}"))
}

/// Waits until something was printed so often.
fn until_times(up: &Up, text: &str, times: usize) {
    let what = format!("{text:?} is there {times} times");
    until_ok_blocking_within(PATIENCE, &what, || {
        let said = up.stdout();
        let is_there = said.matches(text).count() >= times;
        is_there.then_some(()).ok_or_else(|| (said, up.stderr()))
    });
}

fn assert_still_follows(cli: &Cli, up: &Up, component: &str, swaps: usize) {
    cli.write(component, other(b'a' + u8::try_from(swaps).unwrap()));
    until_times(up, "swapped guest", swaps);
}

#[test]
fn a_broken_manifest_and_a_folder_that_is_touched() {
    let cli = demo();
    let up = cli.up(&[]);
    cli.write("wasmbay.toml", "name = ");
    let folder = cli.path("");
    let mode = fs::metadata(&folder).unwrap().permissions();
    fs::set_permissions(&folder, mode).unwrap();
    up.until("what ran before goes on");
    // What runs is followed meanwhile.
    assert_still_follows(&cli, &up, "guest.wat", 1);
    cli.write(
        "wasmbay.toml",
        APP.replace("[[route]]", "config = { a = \"b\" }\n[[route]]"),
    );
    up.until("reconfigured guest");
    up.stop();
}

#[test]
fn a_folder_that_is_removed_and_made_again_later() {
    let cli = Cli::new().with(&[
        (
            "wasmbay.toml",
            &APP.replace("guest.wat", "dist/deep/guest.wat"),
        ),
        ("dist/deep/guest.wat", GUEST),
    ]);
    let up = cli.up(&[]);
    fs::remove_dir_all(cli.path("dist")).unwrap();
    up.until("what ran before goes on");
    fs::create_dir(cli.path("dist")).unwrap();
    fs::create_dir(cli.path("dist/deep")).unwrap();
    assert_still_follows(&cli, &up, "dist/deep/guest.wat", 1);
    assert_still_follows(&cli, &up, "dist/deep/guest.wat", 2);
    // The same by moving.
    cli.write("next/deep/guest.wat", other(b'm'));
    fs::rename(cli.path("dist"), cli.path("old")).unwrap();
    fs::rename(cli.path("next"), cli.path("dist")).unwrap();
    until_times(&up, "swapped guest", 3);
    assert_still_follows(&cli, &up, "dist/deep/guest.wat", 4);
    up.stop();
}

#[test]
fn an_apps_folder_that_another_one_replaces() {
    let cli = Cli::new().with(&[
        ("app/wasmbay.toml", APP),
        ("app/guest.wat", GUEST),
        ("next/wasmbay.toml", APP),
        ("next/guest.wat", &other(b'n')),
    ]);
    let up = cli.up(&["app"]);
    fs::rename(cli.path("app"), cli.path("old")).unwrap();
    fs::rename(cli.path("next"), cli.path("app")).unwrap();
    until_times(&up, "swapped guest", 1);
    assert_still_follows(&cli, &up, "app/guest.wat", 2);
    up.stop();
}

#[test]
fn an_apps_folder_behind_a_link_that_is_pointed_elsewhere() {
    let cli = Cli::new().with(&[
        ("releases/one/wasmbay.toml", APP),
        ("releases/one/guest.wat", GUEST),
        ("releases/two/wasmbay.toml", APP),
        ("releases/two/guest.wat", &other(b'n')),
    ]);
    symlink("releases/one", cli.path("current")).unwrap();
    let up = cli.up(&["current"]);
    symlink("releases/two", cli.path("next")).unwrap();
    fs::rename(cli.path("next"), cli.path("current")).unwrap();
    until_times(&up, "swapped guest", 1);
    assert_still_follows(&cli, &up, "releases/two/guest.wat", 2);
    up.stop();
}

#[test]
fn a_component_behind_a_link_that_is_pointed_elsewhere() {
    let cli = Cli::new().with(&[
        ("wasmbay.toml", &APP.replace("guest.wat", "current.wat")),
        ("built/one.wat", GUEST),
        ("built/two.wat", &other(b'n')),
    ]);
    symlink("built/one.wat", cli.path("current.wat")).unwrap();
    let up = cli.up(&[]);
    symlink("built/two.wat", cli.path("next.wat")).unwrap();
    fs::rename(cli.path("next.wat"), cli.path("current.wat")).unwrap();
    until_times(&up, "swapped guest", 1);
    assert_still_follows(&cli, &up, "built/two.wat", 2);
    up.stop();
}

#[test]
fn a_guests_folder_that_is_made_late() {
    let cli = demo();
    cli.run(&["new", "--lang", "c", "late", "--path", "made"]);
    fs::rename(cli.path("made/late/wit"), cli.path("wit")).unwrap();
    let up = cli.up(&[]);
    let late = "[service.late]\ncomponent = \"guests/late\"\n";
    cli.write("wasmbay.toml", format!("{APP}\n{late}"));
    up.until("there is nothing at");
    fs::create_dir_all(cli.path("guests/late")).unwrap();
    up.until("what ran before goes on");
    for file in fs::read_dir(cli.path("made/late/late")).unwrap() {
        let file = file.unwrap();
        fs::rename(file.path(), cli.path("guests/late").join(file.file_name())).unwrap();
    }
    up.until_built("started late");
    up.stop();
}
