//! Wires with `mode = "event"`.

use super::*;
use crate::value::Value;

const EVENT: &str = "[wire.'shop:orders/events']\nmode = 'event'\n";
const PLACED: &str = "shop:orders/events@1.0.0: placed(order: record); paid(order: record) -> done";

#[test]
fn an_event_wire_has_any_number_of_subscribers_and_publishers() {
    let services: &[Service<'_>] = &[
        ("orders", &[], &[PLACED]),
        ("more", &[], &[PLACED]),
        ("mail", &[PLACED], &[]),
        ("stats", &[PLACED], &[]),
    ];
    let plan = try_plan(services, EVENT).unwrap();
    let [wire] = plan.events.as_slice() else {
        panic!("{:?}", plan.events);
    };
    assert_eq!(
        wire.subscribers.keys().collect::<Vec<_>>(),
        ["mail", "stats"]
    );
    assert_eq!(wire.functions.len(), 2);
    assert!(plan.required.is_empty());
    assert_eq!(plan.serves["mail"].len(), 1);

    let plan = try_plan(&[("orders", &[], &[PLACED])], EVENT).unwrap();
    assert!(plan.events[0].subscribers.is_empty());
    let route =
        "[[route]]\nmethod = 'POST'\npath = '/placed'\ncall = 'shop:orders/events.placed'\n";
    let plan = try_plan(&[("mail", &[PLACED], &[])], &format!("{EVENT}{route}")).unwrap();
    assert_eq!(plan.routes[0].status, 202);
    assert!(plan.required.is_empty());
}

#[test]
fn a_function_with_a_result_value_is_no_event() {
    let services: &[Service<'_>] = &[("mail", &["shop:orders/events: placed() -> u32"], &[])];
    assert_eq!(
        problem(services, EVENT),
        "wire \"shop:orders/events\": service \"mail\": `placed` is `func() -> u32`, which cannot be an event: an event \
         has no result value; accepted: nothing, or a `result` without a value for ok"
    );
}

#[test]
fn sides_of_an_event_wire_that_differ_are_refused() {
    let other = "shop:orders/events@1.1.0: placed(order: string); paid(order: record) -> done";
    assert!(
        problem(&[("mail", &[PLACED], &[]), ("stats", &[other], &[])], EVENT)
            .contains("\"mail\" and \"stats\" export `placed` as")
    );
    assert!(
        problem(
            &[("mail", &[PLACED], &[]), ("orders", &[], &[other])],
            EVENT
        )
        .contains("service \"orders\": imports shop:orders/events.placed@1.1.0 as")
    );
}

#[test]
fn an_event_wire_names_what_is_there() {
    let mail: &[Service<'_>] = &[("mail", &[PLACED], &[]), ("other", &[], &[])];
    assert_eq!(
        problem(
            mail,
            "[wire.'shop:orders/event']\nmode = 'event'\n[wire.'shop:orders/events']\nmode = 'event'"
        ),
        "wire \"shop:orders/event\": no service exports or imports it and no route calls it; remove the wire; did you \
         mean `shop:orders/events@1.0.0`?"
    );
    let durable = format!("{EVENT}durable = true\n");
    assert_eq!(
        problem(
            mail,
            &format!("{durable}[wire.'shop:orders/events'.subscriber.other]\nin-flight = 1")
        ),
        "wire \"shop:orders/events\": `subscriber.other`: the service does not export the interface (those that do: mail)"
    );
    let order = |path: &str| problem(mail, &format!("{durable}order-by = '{path}'"));
    assert_eq!(
        order("order.skus").lines().next().unwrap(),
        "wire \"shop:orders/events@1.0.0\": `order-by`: `paid` has no field `skus`; did you mean `sku`? (there are: sku)"
    );
    assert!(order("sku").contains("`paid` has no parameter `sku` (there are: order)"));
    assert!(order("order").contains("`order` of `paid` cannot be a key"));
    assert!(order("order.sku.x").contains("`order.sku` of `paid` cannot be a key"));
    let plan = try_plan(mail, &format!("{durable}order-by = 'order.sku'")).unwrap();
    let key = plan.events[0].functions["placed"].key.as_ref().unwrap();
    let order = Value::Record(vec![Value::String("tea".into())]);
    assert_eq!(key.text(&[order]).as_deref(), Some("tea"));
}

#[test]
fn a_key_has_the_text_that_its_json_has() {
    let signature: Signature =
        "func(a: s64, b: record { c: char, d: bool, e: enum { low, very-high } })"
            .parse()
            .unwrap();
    let values = [
        Value::S64(-17),
        Value::Record(vec![Value::Char('é'), Value::Bool(true), Value::Enum(1)]),
    ];
    for (path, text) in [
        (&["a"][..], "-17"),
        (&["b", "c"], "é"),
        (&["b", "d"], "true"),
        (&["b", "e"], "very-high"),
    ] {
        let path: Vec<_> = path.iter().map(|step| (*step).to_owned()).collect();
        let key = KeyPath::resolve("f", &signature, &path).unwrap();
        assert_eq!(key.text(&values).as_deref(), Some(text));
    }
}
