//! NestJS microservices beside an app.

use super::{accepted, problem};
use crate::manifest::{App, Provider};
use crate::nest::Pattern;

#[test]
fn handlers_and_wires_are_read_and_written() {
    let app = accepted(
        "[[nest]]\npattern = { cmd = 'on-hand', v = 1 }\ncall = 'a:b/c.d'\n[[nest]]\npattern = 7\ncall = 'a:b/c.e'\nqueue = 'q'\n\
         stream = true\n[wire.'a:b/x']\nexternal = 'nest'\npatterns = { get = 'x.get', all = { cmd = 'all' } }\nstreams = ['all']\n",
    );
    assert_eq!(
        app.nest[0].pattern.subject(),
        "{\"cmd\":\"on-hand\",\"v\":1}"
    );
    assert_eq!((&*app.nest[0].queue, app.nest[0].stream), ("bay", false));
    assert_eq!(
        (&app.nest[1].pattern, app.nest[1].stream),
        (&Pattern::Number(7), true)
    );
    let Provider::Nest(spec) = &app.wires[0].provider else {
        panic!("no NestJS");
    };
    assert_eq!(spec.patterns.len(), 2);
    let written = serde_json::to_string(&app).unwrap();
    assert_eq!(serde_json::from_str::<App>(&written).unwrap(), app);
}

#[test]
fn they_are_checked() {
    for (lines, expected) in [
        (
            "[[nest]]\ncall = 'a:b/c.d'",
            "4:1: nest \"a:b/c.d\": `pattern` is missing",
        ),
        (
            "[[nest]]\npattern = 'x'\ncall = 'd'",
            "6:8: nest \"d\": `call`: ",
        ),
        (
            "[[nest]]\npattern = 'a b'\ncall = 'a:b/c.d'",
            "5:11: nest \"a:b/c.d\": `pattern`: `a b` is no subject",
        ),
        (
            "[[nest]]\npattern = 'bay.x'\ncall = 'a:b/c.d'",
            "`bay.x` is a subject of NATS or of hosts",
        ),
        (
            "[[nest]]\npattern = [1]\ncall = 'a:b/c.d'",
            "`pattern`: accepted: a text, an integer, or a table of them",
        ),
        (
            "[[nest]]\npattern = 'x'\ncall = 'a:b/c.d'\nqueue = 'a b'",
            "`queue` is 'a b'; accepted: a queue group",
        ),
        ("[wire.'a:b/c']\nexternal = 'nest'", "`patterns` is missing"),
        (
            "[wire.'a:b/c']\nexternal = true\npatterns = { a = 'b' }",
            "`patterns` is for `external = \"nest\"`",
        ),
        (
            "[wire.'a:b/c']\nexternal = 'next'",
            "`external` is 'next'; accepted: `true`, `\"nest\"`",
        ),
        (
            "[wire.'a:b/c']\nexternal = 'nest'\npatterns = { a = 'b' }\nstreams = ['c']",
            "`streams`: there is no pattern of `c`",
        ),
    ] {
        let found = problem(lines);
        assert!(found.contains(expected), "{lines}: {found}");
    }
    let twice =
        "[[nest]]\npattern = 'x'\ncall = 'a:b/c.d'\n[[nest]]\npattern = 'x'\ncall = 'a:b/c.e'";
    assert!(problem(twice).contains("`pattern`: `x` is there twice"));
}
