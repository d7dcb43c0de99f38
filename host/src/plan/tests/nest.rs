use super::*;

const STOCK: &str = "shop:inventory/stock@1.0.0: on-hand(sku: string) -> u32; all() -> list";
const PRICES: &str = "shop:pricing/prices@1.0.0: quote(sku: string) -> u32; watch() -> list";
const SHOP: &[Service<'_>] = &[("shop", &[], &[PRICES]), ("inventory", &[STOCK], &[])];

const PRICED: &str = "[wire.'shop:pricing/prices']\nexternal = 'nest'\n";

#[test]
fn patterns_lead_to_functions_and_functions_to_patterns() {
    let lines = format!(
        "{PRICED}patterns = {{ quote = 'price.quote', watch = {{ cmd = 'watch' }} }}\nstreams = ['watch']\n\
         [[nest]]\npattern = 'x'\ncall = 'shop:inventory/stock.on-hand'"
    );
    let plan = try_plan(SHOP, &lines).unwrap();
    assert_eq!(
        (&*plan.nest[0].service, &*plan.nest[0].function.name),
        ("inventory", "on-hand")
    );
    let streams: Vec<_> = plan
        .nest_wires
        .calls
        .iter()
        .map(|(f, called)| (&*f.name, called.stream))
        .collect();
    assert_eq!(streams, [("quote", false), ("watch", true)]);
}

#[test]
fn what_does_not_fit_is_told() {
    let both = format!("{PRICED}patterns = {{ quote = 'q', watch = 'w' }}\n");
    for (lines, expected) in [
        (
            format!("{PRICED}patterns = {{ quote = 'q' }}"),
            "`patterns`: `watch` is called, and has none; add `watch = \"…\"`",
        ),
        (
            format!("{PRICED}patterns = {{ quote = 'q', watch = 'w', quot = 'x' }}"),
            "`patterns`: nothing calls `quot`; did you mean `quote`? (called are: quote, watch)",
        ),
        (
            format!("{PRICED}patterns = {{ quote = 'q', watch = 'w' }}\nstreams = ['quote']"),
            "`quote` is streamed, and returns no list",
        ),
        (
            format!("{both}[[nest]]\npattern = 'x'\ncall = 'shop:inventory/stock.on-hnd'"),
            "nest \"x\": no service exports `shop:inventory/stock.on-hnd`; did you mean",
        ),
        (
            format!(
                "{both}[[nest]]\npattern = 'x'\ncall = 'shop:inventory/stock.on-hand'\nstream = true"
            ),
            "nest \"x\": `on-hand` is streamed, and returns no list",
        ),
    ] {
        let found = problem(SHOP, &lines);
        assert!(found.contains(expected), "{lines}: {found}");
    }
}
