mod secrets;
mod waits;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::value::RawValue;

use super::*;
use crate::manifest::{App, Manifest};
use crate::plan::{Description, Plan, plan};
use crate::shape::InterfaceDescription;

const LINE: &str = "record { sku: string, quantity: u32, gift-note: option<string> }";
const ORDER: &str = "order-id: string, lines: list<record { sku: string, quantity: u32, gift-note: option<string> }>, \
                     customer: option<record { name: string }>, express: bool, pair: tuple<u8, string>";
const PLACE: &str =
    "result<record { id: string, receipt: string }, variant { declined(string), busy }>";

fn interface(id: &str, functions: &[(&str, &str)]) -> InterfaceDescription {
    InterfaceDescription {
        id: id.parse().unwrap(),
        functions: functions
            .iter()
            .map(|(name, signature)| ((*name).to_owned(), signature.parse().unwrap()))
            .collect(),
        types: BTreeMap::new(),
    }
}

/// A shop that exports what is called, and imports the pipeline.
fn shop() -> Description {
    let reserve = format!(
        "func(order-id: string, lines: list<{LINE}>) -> result<record {{ id: string, hint: option<string> }}, string>"
    );
    let place = format!("func({ORDER}) -> {PLACE}");
    Description {
        exports: vec![
            interface(
                "shop:stock/stock@1.2.0",
                &[
                    ("reserve", &reserve),
                    (
                        "release",
                        "func(reservation-id: string) -> result<_, string>",
                    ),
                    ("count", "func() -> u32"),
                ],
            ),
            interface(
                "shop:bank/bank@1.0.0",
                &[(
                    "charge",
                    "func(order-id: string, amount: record { minor: u64, currency: string }) -> result<string, variant { declined(string), busy }>",
                )],
            ),
        ],
        imports: vec![interface(
            "shop:checkout/checkout@1.0.0",
            &[("place", &place)],
        )],
        ..Description::default()
    }
}

fn app(lines: &str) -> App {
    let text = format!("name = 'app'\n[service.shop]\ncomponent = 'shop.wasm'\n{lines}");
    let read = Manifest::parse(Path::new("wasmbay.toml"), &text);
    read.unwrap_or_else(|error| panic!("{error}")).app
}

fn planned(lines: &str) -> Result<Plan, Vec<String>> {
    let components = BTreeMap::from([("shop".to_owned(), shop())]);
    let plan = plan(&app(lines), &components);
    plan.map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

const RESERVE: &str = r#"
[pipeline.checkout]
implements = "shop:checkout/checkout.place"
[[pipeline.checkout.step]]
name = "reserve"
call = "shop:stock/stock.reserve"
with = { order-id = "$.orderId", lines = "$.lines" }
error = { tag = "declined", val = "$error" }
undo = { call = "shop:stock/stock.release", with = { reservation-id = "$reserve.id" } }
"#;

const CHARGE: &str = r#"
[[pipeline.checkout.step]]
name = "charge"
call = "shop:bank/bank.charge"
with = { order-id = "$.order-id", amount = { minor = "$.pair[0]", currency = "EUR" } }
"#;

const RESULT: &str = "[pipeline.checkout.result]\nid = '$reserve.id'\nreceipt = '$charge'\n";

fn checkout(reserve: &str, charge: &str, result: &str) -> Result<Plan, Vec<String>> {
    planned(&format!("{reserve}{charge}{result}"))
}

#[test]
fn a_pipeline_is_planned_with_its_types() {
    let plan = checkout(RESERVE, CHARGE, RESULT).unwrap();
    let [pipeline] = &plan.pipelines[..] else {
        panic!()
    };
    assert_eq!(
        pipeline.function.to_string(),
        "shop:checkout/checkout.place@1.0.0"
    );
    assert_eq!(
        pipeline.steps[0].call().unwrap().function.to_string(),
        "shop:stock/stock.reserve@1.2.0"
    );
    let called: Vec<_> = plan.required.iter().map(ToString::to_string).collect();
    assert!(
        called.contains(&"shop:stock/stock.release@1.2.0".to_owned()),
        "{called:?}"
    );
    assert!(plan.pipeline_of(&pipeline.function).is_some());
    // It is stored with each run, and read again.
    let text = serde_json::to_string(pipeline).unwrap();
    assert_eq!(serde_json::from_str::<Pipeline>(&text).unwrap(), *pipeline);
}

#[test]
fn values_are_put_together_as_text() {
    let plan = checkout(RESERVE, CHARGE, RESULT).unwrap();
    let pipeline = &plan.pipelines[0];
    let input = r#"{"orderId":"o","lines":[],"customer":null,"express":true,"pair":[7,"x"]}"#;
    let input: Box<RawValue> = serde_json::from_str(input).unwrap();
    let reserved: Box<RawValue> = serde_json::from_str(r#"{"id":"r","hint":null}"#).unwrap();
    let declined: Box<RawValue> = serde_json::from_str(r#""sold out""#).unwrap();
    let sources = Sources {
        input: &input,
        steps: &[Some(&reserved), None],
        error: Some(&declined),
        item: None,
    };
    let json = |filled: &Filled| filled.json(&sources).unwrap().get().to_owned();
    assert_eq!(
        json(&pipeline.steps[0].call().unwrap().with),
        r#"{"orderId":"o","lines":[]}"#
    );
    assert_eq!(
        json(&pipeline.steps[1].call().unwrap().with),
        r#"{"orderId":"o","amount":{"minor":7,"currency":"EUR"}}"#
    );
    assert_eq!(
        json(pipeline.steps[0].error.as_ref().unwrap()),
        r#"{"tag":"declined","val":"sold out"}"#
    );
    assert!(
        pipeline.steps[0]
            .undo
            .as_ref()
            .unwrap()
            .with
            .needs(Root::Step(0))
    );
    // Of a step without a result.
    assert!(pipeline.result.as_ref().unwrap().json(&sources).is_none());
}

/// The one error of a manifest in which `from` is replaced.
fn refused(from: &str, to: &str) -> String {
    let text = format!("{RESERVE}{CHARGE}{RESULT}");
    assert!(text.contains(from), "{from}");
    let errors = planned(&text.replace(from, to)).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors.into_iter().next().unwrap()
}

#[test]
fn a_wrong_path_is_refused_with_its_line_and_both_types() {
    assert_eq!(
        refused(r#"lines = "$.lines""#, r#"lines = "$.express""#),
        "wasmbay.toml:10:42: pipeline \"checkout\": step \"reserve\": `with.lines`: `$.express` is bool; expected \
         list<record { sku: string, quantity: u32, gift-note: option<string> }>"
    );
    for (from, to, why) in [
        (
            "\"$.orderId\"",
            "\"$.ordrId\"",
            "`$.ordrId`: `$` is record { order-id: string",
        ),
        (
            "\"$.orderId\"",
            "\"$.ordrId\"",
            "which has no `ordrId`; did you mean `order-id`?",
        ),
        (
            "\"$.orderId\"",
            "\"$.customer.name\"",
            "`$.customer` is option<record { name: string }>, which may be none",
        ),
        (
            "\"$.orderId\"",
            "\"$.lines[0].sku\"",
            "which may be shorter",
        ),
        (
            "\"$.orderId\"",
            "\"$charge\"",
            "no step before this one has the name `charge`; accepted: `$` for the arguments",
        ),
        (
            "\"$.orderId\"",
            "\"$error\"",
            "`$error` is accepted in `error` only",
        ),
        (
            "\"$.orderId\"",
            "7",
            "expected string: $: expected string, found 7",
        ),
        (
            "\"$.pair[0]\"",
            "\"$.pair[1]\"",
            "`$.pair[1]` is string; expected u64",
        ),
        ("\"$.pair[0]\"", "\"$.pair[2]\"", "which has no element 2"),
        (
            "currency = \"EUR\"",
            "curency = \"EUR\"",
            "`currency` is missing",
        ),
        (
            "'$reserve.id'",
            "'$reserve.hint'",
            "`$reserve.hint` is option<string>; expected string",
        ),
        (
            "'$reserve.id'",
            "'$reserv.id'",
            "the name `reserv`; did you mean `reserve`?; accepted",
        ),
        (
            "id = '$reserve.id'\n",
            "",
            "`id` is missing; expected record { id: string, receipt: string }",
        ),
        ("receipt =", "reciept =", "`receipt` is missing"),
        (
            "order-id = \"$.orderId\", lines",
            "lines",
            "`with.order-id` is missing; shop:stock/stock.reserve@1.2.0 takes",
        ),
        (
            "lines = \"$.lines\"",
            "lines = \"$.lines\", extra = 1",
            "`with.extra`: shop:stock/stock.reserve@1.2.0 has no such parameter; it takes",
        ),
        (
            "stock.reserve\"",
            "stock.reserv\"",
            "did you mean `reserve`?",
        ),
        (
            "error = { tag = \"declined\", val = \"$error\" }\n",
            "",
            "its `err` value is string, which is no value of the pipeline's own error variant",
        ),
        (
            "val = \"$error\"",
            "val = \"$error.x\"",
            "`$error` is string, which has no `x`",
        ),
        (
            RESULT,
            "",
            "`result` is missing; shop:checkout/checkout.place@1.0.0 returns record",
        ),
        (
            "name = \"charge\"",
            "name = \"charge\"\nwhen = \"$.pair\"",
            "expected a boolean or an option",
        ),
        (
            "implements = \"shop:checkout/checkout.place\"",
            "implements = \"shop:checkout/checkout.buy\"",
            "add `type = \"func(…) -> …\"`",
        ),
        (
            "stock.release\"",
            "stock.count\"",
            "has no such parameter; it takes ()",
        ),
        (
            "call = \"shop:bank/bank.charge\"",
            "call = \"shop:checkout/checkout.place\"",
            "the pipeline is shop:checkout/checkout.place itself",
        ),
    ] {
        if matches!(
            from,
            "implements = \"shop:checkout/checkout.place\"" | "name = \"charge\""
        ) || to.contains("checkout.place\"")
        {
            let text = format!("{RESERVE}{CHARGE}{RESULT}").replacen(from, to, 1);
            let errors = planned(&text).unwrap_err();
            assert!(
                errors.iter().any(|error| error.contains(why)),
                "{to}: {errors:#?}"
            );
            continue;
        }
        let error = refused(from, to);
        assert!(
            error.contains(why) && error.starts_with("wasmbay.toml:"),
            "{to}: {error}"
        );
    }
}

#[test]
fn what_may_be_absent_is_an_option() {
    let when = CHARGE.replace(
        "name = \"charge\"",
        "name = \"charge\"\nwhen = \"$.customer\"",
    );
    let errors = checkout(RESERVE, &when, RESULT).unwrap_err();
    assert!(
        errors[0].contains("`$charge` is option<string>; expected string"),
        "{errors:?}"
    );
    let last = "[[pipeline.checkout.step]]\nname = \"again\"\ncall = \"shop:stock/stock.reserve\"\n\
                with = { order-id = \"o\", lines = [{ sku = \"x\", quantity = 1, gift-note = \"$charge\" }] }\n\
                on-error = \"continue\"\n";
    let result = RESULT.replace("'$charge'", "'$.orderId'");
    checkout(RESERVE, &format!("{when}{last}"), &result).unwrap();
}

#[test]
fn a_type_can_be_stated_and_has_to_agree() {
    let text = format!("{RESERVE}{CHARGE}{RESULT}");
    let stated = |signature: &str| {
        text.replace(
            "[[pipeline.checkout.step]]\nname = \"reserve\"",
            &format!("type = '{signature}'\n[[pipeline.checkout.step]]\nname = \"reserve\""),
        )
    };
    planned(&stated(&format!("func({ORDER}) -> {PLACE}"))).unwrap();
    let errors = planned(&stated("func(order-id: string)")).unwrap_err();
    assert!(
        errors
            .iter()
            .any(|error| error.contains("but service \"shop\" imports")),
        "{errors:?}"
    );
    // Of an interface that no service imports, also to a route.
    let other =
        stated(&format!("func({ORDER}) -> {PLACE}")).replace("checkout.place", "other.place");
    let route = "[[route]]\nmethod = 'POST'\npath = '/orders'\ncall = 'shop:checkout/other.place'\nerrors = { declined = 402 }\n";
    let errors = planned(&format!("{other}{route}")).unwrap_err();
    // The interface that the shop imports has no answer now.
    assert!(
        errors
            .iter()
            .all(|error| error.contains("imports shop:checkout/checkout@1.0.0")),
        "{errors:?}"
    );
    let exported = text.replace("shop:checkout/checkout.place", "shop:stock/stock.count");
    let errors = planned(&exported).unwrap_err();
    assert!(
        errors
            .iter()
            .any(|error| error.contains("is exported by service \"shop\"")),
        "{errors:?}"
    );
}

#[test]
fn an_app_with_pipelines_is_written_and_read_again() {
    let text = format!("{RESERVE}{CHARGE}{RESULT}").replace("\"EUR\"", "\"$$EUR\"");
    let app = app(&text);
    let written = serde_json::to_string(&app).unwrap();
    let read: App = serde_json::from_str(&written).unwrap();
    assert_eq!(read, app);
}

#[test]
fn integers_become_wider_and_values_optional() {
    use Shape::{Bool, S16, S64, String, U8, U64};
    let option = |shape: &Shape| Shape::Option(Box::new(shape.clone()));
    for (found, expected, fits) in [
        (U8, U64, true),
        (U8, S16, true),
        (U64, U8, false),
        (U64, S64, false),
        (S16, U64, false),
        (Bool, option(&Bool), true),
        (U8, option(&S64), true),
        (option(&Bool), Bool, false),
        (option(&Bool), option(&Bool), true),
        (option(&Bool), option(&option(&Bool)), false),
        (String, Bool, false),
    ] {
        assert_eq!(roots::fits(&found, &expected), fits, "{found} {expected}");
    }
}

/// What the other kinds of steps need: an event, an enum and a variant among the arguments.
const KINDS: &str = r#"
[wire."shop:orders/events"]
mode = "event"
durable = true
[pipeline.kinds]
implements = "shop:kinds/kinds.run"
type = "func(lines: list<record { sku: string, note: option<string> }>, payment: variant { card(record { number: string }), cash }, kind: enum { new, old }, customer: option<record { name: string }>, express: bool) -> result<list<u32>, string>"
result = "$count"
[[pipeline.kinds.step]]
name = "count"
each = "$.lines"
at-most = 7
call = "shop:stock/stock.weigh"
with = { sku = "$item.sku" }
undo = { call = "shop:stock/stock.drop", with = { sku = "$item.sku", weight = "$count" } }
[[pipeline.kinds.step]]
name = "pay"
parallel = "both"
when = { value = "$.payment", is = "card" }
call = "shop:stock/stock.weigh"
with = { sku = "$.payment.card.number" }
[[pipeline.kinds.step]]
name = "tell"
parallel = "both"
when = "$.customer"
event = "shop:orders/events.placed"
with = { order-id = "$.customer.name", weights = "$count" }
undo = { event = "shop:orders/events.placed", with = { order-id = "gone", weights = [] } }
"#;

fn kinds(lines: &str) -> Result<Plan, Vec<String>> {
    let mut shop = shop();
    shop.exports[0].functions.insert(
        "weigh".to_owned(),
        "func(sku: string) -> result<u32, string>".parse().unwrap(),
    );
    shop.exports[0].functions.insert(
        "drop".to_owned(),
        "func(sku: string, weight: u32)".parse().unwrap(),
    );
    shop.imports = vec![interface(
        "shop:orders/events@1.0.0",
        &[(
            "placed",
            "func(order-id: string, weights: list<u32>) -> result<_, string>",
        )],
    )];
    let components = BTreeMap::from([("shop".to_owned(), shop)]);
    let plan = plan(&app(lines), &components);
    plan.map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

#[test]
fn events_groups_lists_and_cases_are_planned_with_their_types() {
    let plan = kinds(KINDS).unwrap();
    let [count, pay, tell] = &plan.pipelines[0].steps[..] else {
        panic!()
    };
    assert_eq!(count.each.as_ref().unwrap().at_most, 7);
    assert_eq!(
        (pay.group.as_deref(), tell.group.as_deref()),
        (Some("both"), Some("both"))
    );
    let event = tell.call().unwrap().event.as_ref().unwrap();
    assert_eq!(event.stream(), Some("bay_app_shop_orders_events_v1"));
    let required: Vec<_> = plan.required.iter().map(ToString::to_string).collect();
    assert!(
        !required.iter().any(|one| one.contains("placed")),
        "{required:?}"
    );
    let text = serde_json::to_string(&plan.pipelines[0]).unwrap();
    assert_eq!(
        serde_json::from_str::<Pipeline>(&text).unwrap(),
        plan.pipelines[0]
    );
    let app = app(KINDS);
    assert_eq!(
        serde_json::from_str::<App>(&serde_json::to_string(&app).unwrap()).unwrap(),
        app
    );
    let holds = |step: &Step, value: &str| {
        let value: Box<RawValue> = serde_json::from_str(value).unwrap();
        step.when.as_ref().unwrap().holds(&value)
    };
    assert!(
        holds(pay, r#"{"tag":"card","val":{"number":"4"}}"#) && !holds(pay, r#"{"tag":"cash"}"#)
    );
    assert!(holds(tell, r#"{"name":"x"}"#) && !holds(tell, "null"));
}

#[test]
fn what_does_not_fit_in_the_other_kinds_is_refused_with_its_line() {
    for (from, to, why) in [
        (
            "each = \"$.lines\"",
            "each = \"$.express\"",
            "wasmbay.toml:14:8: pipeline \"kinds\": step \"count\": `each`: `$.express` is bool; expected a list",
        ),
        (
            "sku = \"$item.sku\" }\nundo",
            "sku = \"$item.note\" }\nundo",
            "`with.sku`: `$item.note` is option<string>; expected string",
        ),
        (
            "sku = \"$item.sku\" }\nundo",
            "sku = \"$item.size\" }\nundo",
            "`$item` is record { sku: string, note: option<string> }, which has no `size`",
        ),
        (
            "weight = \"$count\"",
            "weight = \"$item\"",
            "`undo.with.weight`: `$item` is record { sku: string, note: option<string> }; expected u32",
        ),
        (
            "sku = \"$.payment.card.number\"",
            "sku = \"$item.sku\"",
            "`$item` is accepted in a step with `each` only",
        ),
        (
            "sku = \"$.payment.card.number\"",
            "sku = \"$.payment.cash\"",
            "which may be another case",
        ),
        (
            "is = \"card\" }",
            "is = \"cash\" }",
            "`$.payment` is variant { card(record { number: string }), cash }, which may be another case",
        ),
        (
            "is = \"card\" }",
            "is = \"carf\" }",
            "which is never `carf`; did you mean `card`?; accepted: card, cash",
        ),
        (
            "is = \"card\" }",
            "is = true }",
            "which is never `true`; accepted: card, cash",
        ),
        (
            "value = \"$.payment\"",
            "value = \"$.lines\"",
            "expected a boolean or an option",
        ),
        (
            "when = \"$.customer\"\n",
            "",
            "`$.customer` is option<record { name: string }>, which may be none",
        ),
        (
            "weights = \"$count\"",
            "weights = \"$pay\"",
            "`$pay`: step \"pay\" is done at the same time; accepted: steps before the group",
        ),
        (
            "weights = \"$count\"",
            "weights = \"$count[0]\"",
            "`$count` is list<u32>, which may be shorter",
        ),
        (
            "event = \"shop:orders/events.placed\"\nwith",
            "call = \"shop:orders/events.placed\"\nwith",
            "is wired as events, which have no result; accepted: `event` in place of `call`",
        ),
        (
            "call = \"shop:stock/stock.weigh\"\nwith = { sku = \"$.pay",
            "event = \"shop:stock/stock.weigh\"\nwith = { sku = \"$.pay",
            "is not wired as events; accepted: `call` in place of `event`",
        ),
        (
            "weights = \"$count\"",
            "weights = 7",
            "expected list<u32>: $: expected list (an array), found 7",
        ),
        (
            "event = \"shop:orders/events.placed\"\nwith",
            "event = \"shop:orders/events.placed\"\non-error = \"retry\"\nwith",
            "returns no `err` value to the pipeline; leave it out",
        ),
    ] {
        assert!(KINDS.contains(from), "{from}");
        let errors = kinds(&KINDS.replacen(from, to, 1)).unwrap_err();
        assert!(
            errors
                .iter()
                .any(|error| error.contains(why) && error.starts_with("wasmbay.toml:")),
            "{to}: {errors:#?}"
        );
    }
}
