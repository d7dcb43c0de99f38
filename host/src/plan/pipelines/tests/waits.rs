use super::*;

const EVENTS: &str = r#"
[wire."shop:bank/events"]
mode = "event"
durable = true
"#;

/// A shop whose bank says by an event that an order is paid.
fn planned(lines: &str) -> Result<Plan, Vec<String>> {
    let mut shop = shop();
    shop.imports = vec![interface(
        "shop:bank/events@1.0.0",
        &[(
            "paid",
            "func(order-id: string, by: enum { card, cash }, amount: record { minor: u64 }, note: option<string>)",
        )],
    )];
    let components = BTreeMap::from([("shop".to_owned(), shop)]);
    let plan = plan(&app(lines), &components);
    plan.map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn pipeline(wires: &str, steps: &str) -> Result<Plan, Vec<String>> {
    planned(&format!(
        "{wires}[pipeline.p]\nimplements = 'a:b/c.d'\ntype = 'func(id: string, number: u32) -> result<u64, string>'\n\
         deadline = '2h'\nresult = '$paid.amount.minor'\n{steps}"
    ))
}

fn wait(key: &str, equals: &str, more: &str) -> String {
    format!(
        "[[pipeline.p.step]]\nname = 'paid'\n\
         wait-for = {{ event = 'shop:bank/events.paid', key = '{key}', equals = {equals}, timeout = '1h' }}\n{more}"
    )
}

const SLEEP: &str = "[[pipeline.p.step]]\nname = 'rest'\nsleep = '10m'\n";

#[test]
fn waits_are_planned_and_kept_with_a_run() {
    let steps = format!("{SLEEP}{}", wait("$.orderId", "'$.id'", "error = 'late'\n"));
    let plan = pipeline(EVENTS, &steps).unwrap();
    let pipeline = &plan.pipelines[0];
    assert_eq!(pipeline.steps[0].act, Act::Sleep(600_000));
    let wait = pipeline.steps[1].wait().unwrap();
    assert_eq!(wait.stream, "bay_app_shop_bank_events_v1");
    assert_eq!(wait.timeout, 3_600_000);
    let event = br#"{"orderId":"o-1","by":"card","amount":{"minor":7}}"#;
    let arguments = wait.read(event).unwrap();
    assert_eq!(wait.key_of(&arguments), Some("\"o-1\""));
    assert_eq!(
        arguments.get(),
        r#"{"orderId":"o-1","by":"card","amount":{"minor":7},"note":null}"#
    );
    assert!(wait.read(b"{}").is_none());
    let subject = "bay.app.shop.bank.events.v1.paid";
    assert!(wait.is_of(subject) && wait.is_of(&format!("{subject}.3")));
    assert!(!wait.is_of(&format!("{subject}-not")) && !wait.is_of(&format!("{subject}.3.4")));
    let text = serde_json::to_string(pipeline).unwrap();
    assert_eq!(serde_json::from_str::<Pipeline>(&text).unwrap(), *pipeline);
}

#[test]
fn an_app_with_waits_is_the_same_when_it_is_stored() {
    let steps = format!(
        "{SLEEP}{}",
        wait("$.by", "'card'", "on-error = 'continue'\n")
    );
    let text = format!(
        "{EVENTS}[pipeline.p]\nimplements = 'a:b/c.d'\ntype = 'func() -> u64'\ndeadline = '2h'\nresult = 5\n{steps}"
    );
    let app = app(&text);
    let stored = serde_json::to_string(&app.pipelines[0]).unwrap();
    assert!(
        stored.contains(r#""sleep":"10m""#) && !stored.contains("\"on-error\":\"fail\""),
        "{stored}"
    );
    assert!(
        stored.contains(
            r#""wait-for":{"event":"shop:bank/events.paid","key":"$.by","equals":"card","timeout":"1h"}"#
        ),
        "{stored}"
    );
}

#[test]
fn what_cannot_be_waited_for_is_refused() {
    let refused = |wires: &str, steps: &str, expected: &str| {
        let errors = pipeline(wires, steps).unwrap_err();
        assert!(
            errors.iter().any(|error| error.contains(expected)),
            "{errors:#?}"
        );
    };
    let usual = wait("$.orderId", "'$.id'", "");
    refused(
        "[wire.'shop:bank/events']\nmode = 'event'\n",
        &usual,
        "wasmbay.toml:13:22: pipeline \"p\": step \"paid\": `wait-for.event`: shop:bank/events@1.0.0 is wired as events \
         that nothing stores, so one that comes early would be lost; accepted: one with `mode = \"event\"` and \
         `durable = true` on its wire",
    );
    refused(
        "",
        &usual,
        "calls a function of shop:bank/events, which no service exports",
    );
    refused(
        EVENTS,
        &wait("$.order", "'$.id'", ""),
        "`wait-for.key`: `$.order`: `$` is record { order-id: string",
    );
    refused(
        EVENTS,
        &wait("$.amount", "'$.id'", ""),
        "`wait-for.key`: `$.amount` is record { minor: u64 }; expected a text, an integer, a boolean, a character or an enum",
    );
    refused(
        EVENTS,
        &wait("$.note", "'$.id'", ""),
        "`$.note` is option<string>; expected a text",
    );
    refused(
        EVENTS,
        &wait("$.orderId", "'$.number'", ""),
        "`wait-for.equals`: `$.number` is u32; expected string",
    );
    refused(
        EVENTS,
        &wait("$.by", "'gold'", ""),
        "`wait-for.equals`: expected enum { card, cash }",
    );
    let optional = wait("$.orderId", "'$.id'", "on-error = 'continue'\n");
    refused(EVENTS, &optional, "which may be none");
    let long = usual.replace("'1h'", "'2h'");
    refused(
        EVENTS,
        &long,
        "`timeout`: 2h is not less than the pipeline's `deadline` of 2h; accepted: less, or a longer `deadline`",
    );
    let long = SLEEP.replace("10m", "3h");
    refused(
        EVENTS,
        &format!("{long}{usual}"),
        "`sleep`: 3h is not less than",
    );
    let both = wait(
        "$.orderId",
        "'$.id'",
        "on-error = 'continue'\nerror = 'late'\n",
    );
    refused(EVENTS, &both, "leave one of the two out");
}

#[test]
fn keys_that_mean_nothing_to_a_wait_are_refused() {
    for (step, expected) in [
        (
            "sleep = '1m'\nwith = { a = 1 }\n",
            "`with`: a step with `sleep` has none; leave it out",
        ),
        (
            "sleep = '1m'\ncall = 'a:b/c.e'\n",
            "a step has one of `call`, `event`, `sleep` and `wait-for`; leave the others out",
        ),
        (
            "sleep = '1m'\non-error = 'continue'\n",
            "`on-error`: a step with `sleep` has none",
        ),
        ("sleep = 'soon'\n", "`sleep` is"),
        (
            "wait-for = { event = 'a:b/c.e', key = '$.a', equals = 1, timeout = '1m' }\non-error = 'retry'\n",
            "an event that did not come in time is not waited for again",
        ),
        (
            "wait-for = { event = 'a:b/c.e', key = '$.a', equals = 1, timeout = '1m' }\nundo = { call = 'a:b/c.e' }\n",
            "`undo`: a step with `wait-for` has none",
        ),
        (
            "wait-for = { event = 'a:b/c.e', key = 'a', equals = 1, timeout = '1m' }\n",
            "`key`: accepted: a path from the event's arguments",
        ),
        ("wait-for = { event = 'a:b/c.e' }\n", "`equals` is missing"),
    ] {
        let text = format!(
            "name = 'app'\n[pipeline.p]\nimplements = 'a:b/c.d'\n[[pipeline.p.step]]\nname = 'x'\n{step}"
        );
        let error = Manifest::parse(Path::new("wasmbay.toml"), &text)
            .err()
            .unwrap_or_else(|| panic!("{step}"))
            .to_string();
        assert!(error.contains(expected), "{step}: {error}");
    }
}
