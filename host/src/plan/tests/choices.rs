use super::*;

const PLAIN: &str = "shop:catalog/products@1.2.0: get(sku: string) -> u32; list()";
const USED: &str = "shop:catalog/products@1.0.0: get(sku: string) -> u32";
const AUDITED: &str = "[wire.'shop:catalog/products']\nservice = 'audit'\n";

const BETWEEN: &[Service<'_>] = &[
    ("shop", &[], &[USED]),
    ("audit", &[PLAIN], &[USED]),
    ("plain", &[PLAIN], &[]),
];

fn choice(service: &str, interface: &str, exporter: &str) -> String {
    format!("{AUDITED}[service.{service}.wire]\n'{interface}' = '{exporter}'\n")
}

#[test]
fn a_service_between_two_answers_all_and_calls_the_one_that_it_chose() {
    for interface in ["shop:catalog/products", "shop:catalog/products@1.0.0"] {
        let plan = try_plan(BETWEEN, &choice("audit", interface, "plain")).unwrap();
        let id: InterfaceId = "shop:catalog/products@1.2.0".parse().unwrap();
        let functions = vec!["get".to_owned(), "list".to_owned()];
        let answered = BTreeMap::from([(id, functions)]);
        assert_eq!(plan.serves["audit"], answered);
        assert!(plan.serves["plain"].is_empty());
        assert_eq!(
            plan.chosen,
            BTreeMap::from([("plain".to_owned(), answered)])
        );
        // What `shop` imports, of whoever answers it.
        assert_eq!(plan.required.len(), 1);
    }
}

#[test]
fn what_was_chosen_needs_nothing_outside_of_the_app() {
    let services: &[Service<'_>] = &[("shop", &[], &[USED]), ("plain", &[PLAIN], &[])];
    let lines = "[wire.'shop:catalog/products']\nexternal = true\n[service.shop.wire]\n\
                 'shop:catalog/products' = 'plain'\n";
    let plan = try_plan(services, lines).unwrap();
    assert!(plan.required.is_empty() && plan.serves["plain"].is_empty());
    assert_eq!(plan.chosen.len(), 1);
}

#[test]
fn a_service_that_would_call_itself_is_found() {
    let alone: &[Service<'_>] = &[("audit", &[PLAIN], &[USED])];
    assert_eq!(
        problem(alone, ""),
        "service \"audit\": imports shop:catalog/products@1.0.0, which it exports itself, so it would call itself; \
         add another service that exports it"
    );
    assert_eq!(
        problem(BETWEEN, AUDITED),
        "service \"audit\": imports shop:catalog/products@1.0.0, which it exports itself, so it would call itself; \
         choose who answers it: `[service.audit.wire]` with `\"shop:catalog/products@1.0.0\" = \"plain\"`"
    );
    // Both parts of the fix at once, whatever the services' names.
    for services in [
        BETWEEN,
        &[("plain", &[PLAIN], &[]), ("z", &[PLAIN], &[USED])],
    ] {
        let both = problem(services, "");
        assert!(both.contains("choose one: `[wire."), "{both}");
        assert!(both.contains("it would call itself"), "{both}");
    }
    // The app's wire leads away from the service.
    let plan = try_plan(
        BETWEEN,
        "[wire.'shop:catalog/products']\nservice = 'plain'\n",
    );
    assert!(plan.unwrap().chosen.is_empty());
}

#[test]
fn a_choice_must_lead_somewhere() {
    assert_eq!(
        problem(
            BETWEEN,
            &format!(
                "{}'shop:catalog/product' = 'plain'",
                choice("audit", "shop:catalog/products", "plain")
            )
        ),
        "service \"audit\": `wire.\"shop:catalog/product\"`: the service does not import it; remove the entry; \
         did you mean `shop:catalog/products@1.0.0`?"
    );
    let services: &[Service<'_>] = &[
        ("shop", &["a:b/c: f()"], &[USED]),
        ("audit", &[PLAIN], &[USED]),
    ];
    let lost = problem(services, &choice("audit", "shop:catalog/products", "shop"));
    assert_eq!(
        lost,
        "service \"audit\": `wire.\"shop:catalog/products\"`: service \"shop\" does not export it (it exports: a:b/c)"
    );
}

#[test]
fn the_chosen_exporter_has_to_fit() {
    let misfit = |exported: &str| {
        let services: &[Service<'_>] = &[("audit", &[PLAIN], &[USED]), ("plain", &[exported], &[])];
        problem(services, &choice("audit", "shop:catalog/products", "plain"))
    };
    assert_eq!(
        misfit("shop:catalog/products@2.0.0: get(sku: string) -> u32"),
        "service \"audit\": imports shop:catalog/products@1.0.0, but \"plain\" exports 2.0.0, which is not compatible; \
         build both against one version"
    );
    let missing = misfit("shop:catalog/products@1.0.0: got(sku: string) -> u32");
    assert!(
        missing.contains("which \"plain\" does not export; did you mean `got`?"),
        "{missing}"
    );
}

#[test]
fn events_cannot_be_sent_to_one_service_by_a_choice() {
    let events = "shop:orders/events: placed()";
    let services: &[Service<'_>] = &[("orders", &[], &[events]), ("mail", &[events], &[])];
    let lines = "[wire.'shop:orders/events']\nmode = 'event'\n[service.orders.wire]\n'shop:orders/events' = 'mail'\n";
    assert_eq!(
        problem(services, lines),
        "service \"orders\": `wire.\"shop:orders/events\"`: the interface is wired as events, which every service that \
         exports it gets; remove the entry"
    );
}
