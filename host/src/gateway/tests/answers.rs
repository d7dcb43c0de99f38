//! What replies become: statuses, bodies, refusals.

use super::*;

#[test]
fn results_have_statuses() {
    let nothing = one("POST", "/f", "", "func()");
    assert_eq!(answered(&nothing, "POST", "/f", ""), (204, String::new()));
    let value = one("GET", "/f", "", "func() -> list<u32>");
    assert_eq!(answered(&value, "GET", "/f", "[1]"), (200, "[1]".into()));
    let option = one("GET", "/f", "", "func() -> option<u32>");
    assert_eq!(answered(&option, "GET", "/f", "null"), (200, "null".into()));
    let created = one(
        "POST",
        "/f",
        "status = 201",
        "func() -> result<u32, string>",
    );
    assert_eq!(
        answered(&created, "POST", "/f", r#"{"ok":5}"#),
        (201, "5".into())
    );
    let done = one("POST", "/f", "", "func() -> result<_, string>");
    assert_eq!(
        answered(&done, "POST", "/f", r#"{"ok":null}"#),
        (204, String::new())
    );
    let silent = one("POST", "/f", "status = 204", "func() -> result<u32>");
    assert_eq!(
        answered(&silent, "POST", "/f", r#"{"ok":5}"#),
        (204, String::new())
    );
    // Other hosts' white space.
    assert_eq!(
        answered(&created, "POST", "/f", " { \"ok\" : [1, 2] } "),
        (201, "[1, 2]".into())
    );
}

#[test]
fn errors_have_the_statuses_of_their_cases() {
    let errors = "errors = { unknown-sku = 404, declined = 402 }";
    let signature = "func() -> result<u32, variant { unknown-sku(string), declined, other }>";
    let table = one("POST", "/f", errors, signature);
    let answer = |reply: &str| answered(&table, "POST", "/f", reply);
    let unknown = r#"{"tag":"unknown-sku","val":"x"}"#;
    assert_eq!(
        answer(&format!(r#"{{"err":{unknown}}}"#)),
        (404, unknown.into())
    );
    let backwards = r#"{"val":"x","tag":"unknown-sku"}"#;
    assert_eq!(
        answer(&format!(r#"{{"err":{backwards}}}"#)),
        (404, backwards.into())
    );
    assert_eq!(answer(r#"{"err":{"tag":"declined"}}"#).0, 402);
    assert_eq!(
        answer(r#"{"err":"declined"}"#),
        (402, "\"declined\"".into())
    );
    assert_eq!(answer(r#"{"err":{"tag":"other"}}"#).0, 422);
    assert_eq!(answer(r#"{"err":{"nonsense":1}}"#).0, 422);

    let table = one(
        "POST",
        "/f",
        "errors = { \"*\" = 418 }",
        "func() -> result<u32, enum { a, b }>",
    );
    assert_eq!(
        answered(&table, "POST", "/f", r#"{"err":"b"}"#),
        (418, "\"b\"".into())
    );
    let table = one("POST", "/f", "", "func() -> result<u32>");
    assert_eq!(
        answered(&table, "POST", "/f", r#"{"err":null}"#),
        (422, String::new())
    );
    // A string is no case, whatever it says.
    let table = one("POST", "/f", "", "func() -> result<u32, string>");
    assert_eq!(
        answered(&table, "POST", "/f", r#"{"err":"declined"}"#),
        (422, "\"declined\"".into())
    );
}

#[test]
fn a_reply_that_is_no_result_is_the_services_fault() {
    let table = one("POST", "/f", "", "func() -> result<u32, string>");
    for reply in [
        "",
        "5",
        "{}",
        r#"{"ok":1,"err":2}"#,
        r#"{"ok":1} x"#,
        r#"{"ok":}"#,
        "{\"ok\":1",
    ] {
        let (status, body) = answered(&table, "POST", "/f", reply);
        assert_eq!(status, 502, "{reply}");
        assert!(
            body.contains("\"blame\":\"guest\"") && body.contains("no result"),
            "{body}"
        );
    }
}

#[test]
fn refusals_say_when_to_come_back() {
    for (status, retry) in [(429, true), (503, true), (500, false), (404, false)] {
        let status = StatusCode::from_u16(status).unwrap();
        let answer = Refusal::caller(status, "why").answer();
        assert_eq!(answer.headers().contains_key("retry-after"), retry);
        let expected = format!(
            r#"{{"error":{{"code":{},"message":"why","blame":"caller"}}}}"#,
            status.as_u16()
        );
        assert_eq!(text(answer), expected);
    }
}
