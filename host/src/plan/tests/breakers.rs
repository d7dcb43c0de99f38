use super::*;
use crate::plan::Instead;

const PRICES: &str = "shop:prices/prices@1.0.0: get(sku: string) -> u32; list() -> list; warm()";
const USED: &str = "shop:prices/prices@1.0.0: get(sku: string) -> u32";
const SHOP: &[Service<'_>] = &[
    ("shop", &[], &[USED]),
    ("prices", &[PRICES], &[]),
    ("old", &[PRICES], &[]),
];

fn wire(lines: &str) -> String {
    format!("[wire.'shop:prices/prices']\nbreaker = {{}}\n{lines}")
}

#[test]
fn a_breaker_has_every_function_of_its_wire_and_values_instead() {
    let services = &SHOP[..2];
    let lines = wire("fallback = { values = { get = 7, list = ['a'] } }");
    let plan = try_plan(services, &lines).unwrap();
    let breaker = &plan.breakers[0];
    let instead: Vec<_> = breaker
        .functions
        .iter()
        .map(|(function, instead)| (&*function.name, instead.clone()))
        .collect();
    let json = |text: &str| Some(Instead::Json(text.to_owned()));
    assert_eq!(
        instead,
        [
            ("get", json("7")),
            ("list", json("[\"a\"]")),
            ("warm", None)
        ]
    );
}

#[test]
fn a_fallback_service_answers_beside_the_one_that_is_called() {
    // The wire chooses, or the fallback leaves one exporter.
    for service in ["", "service = 'prices'\n"] {
        let lines = wire(&format!("{service}fallback = {{ service = 'old' }}"));
        let plan = try_plan(SHOP, &lines).unwrap();
        assert!(plan.serves["old"].is_empty() && !plan.serves["prices"].is_empty());
        assert_eq!(plan.chosen.keys().collect::<Vec<_>>(), ["old"]);
        let mut functions = plan.breakers[0].functions.values();
        let old = Some(Instead::Service("old".to_owned()));
        assert!(functions.all(|instead| *instead == old));
    }
}

#[test]
fn what_does_not_fit_is_told() {
    let values = |values: &str| wire(&format!("fallback = {{ values = {values} }}"));
    let head = "wire \"shop:prices/prices\": `fallback`: ";
    for (services, lines, expected) in [
        (
            &SHOP[..2],
            wire("fallback = { service = 'shop' }"),
            "service \"shop\" does not export it (it exports: nothing)",
        ),
        (
            SHOP,
            wire("service = 'old'\nfallback = { service = 'old' }"),
            "service \"old\" is the one that answers the wire; name another that exports it",
        ),
        (
            &SHOP[..2],
            values("{ gt = 1 }"),
            "there is no function `gt`; did you mean `get`? (called are: get, list, warm)",
        ),
        (
            &SHOP[..2],
            values("{ warm = 1 }"),
            "`warm` returns nothing, so there is no value to return instead; remove it",
        ),
    ] {
        let found = problem(services, &lines);
        assert!(found.ends_with(&format!("{head}{expected}")), "{found}");
    }
    let found = problem(&SHOP[..2], &values("{ get = 'x' }"));
    assert!(
        found.contains("`fallback`: `get`: expected u32:"),
        "{found}"
    );
    assert!(found.contains("wasmbay.toml:"), "{found}");
    let between: &[Service<'_>] = &[
        ("shop", &[], &[USED]),
        ("prices", &[PRICES], &[]),
        ("old", &[PRICES], &[USED]),
    ];
    let lines = wire("fallback = { service = 'old' }");
    let found = problem(between, &lines);
    assert!(
        found.contains("service \"old\" imports it, and would call itself"),
        "{found}"
    );
    let chosen = format!("{lines}\n[service.old.wire]\n'shop:prices/prices' = 'prices'");
    try_plan(between, &chosen).unwrap();
    let other = "shop:prices/prices@1.0.0: get(sku: string) -> string";
    let misfit: &[Service<'_>] = &[
        ("shop", &[], &[USED]),
        ("prices", &[PRICES], &[]),
        ("old", &[other], &[]),
    ];
    let found = problem(misfit, &lines);
    assert!(found.contains("but \"old\" exports it as"), "{found}");
}
