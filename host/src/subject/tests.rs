use super::*;
use proptest::prelude::*;

#[test]
fn a_question_is_read_as_it_was_written() {
    let id = "0af7651916cd43dd8448eb211c80319c";
    for question in [
        Question::Services,
        Question::Service("orders"),
        Question::Traces,
        Question::Trace(id),
    ] {
        let subject = question.subject("shop");
        assert_eq!(Question::parse("shop", &subject), Some(question));
        assert!(is_reserved(&subject) && subject.starts_with("bay-ops.shop."));
        assert_eq!(Question::parse("sho", &subject), None);
    }
    for other in [
        "bay-ops.shop",
        "bay-ops.shop.x",
        "bay-ops.shop.traces.a.b",
        "bay.shop.traces",
    ] {
        assert_eq!(Question::parse("shop", other), None, "{other}");
    }
}

#[test]
fn a_subject_has_the_seven_tokens_of_the_wire() {
    let function: FunctionId = "acme:stock/reserve.hold@1.4.2".parse().unwrap();
    assert_eq!(
        of_function("shop", &function),
        "bay.shop.acme.stock.reserve.v1.hold"
    );
}

#[test]
fn a_function_of_one_service_has_a_subject_beside_the_packages() {
    let function: FunctionId = "acme:stock/reserve.hold@1.4.2".parse().unwrap();
    let subject = of_service_function("shop", "lager", &function);
    assert_eq!(subject, "bay.shop._.lager.acme.stock.reserve.v1.hold");
    assert!(is_of_service(&subject));
    assert!(!is_of_service(&of_function("shop", &function)));
    assert!(!is_of_service("orders._.x"));
    assert_eq!(function_name(&subject), Some("hold"));
}

#[test]
fn the_subjects_of_stored_events_are_made_of_the_original_one() {
    let id: InterfaceId = "shop:orders/events@0.1.0".parse().unwrap();
    let original = of_function("shop", &id.function("placed"));
    assert_eq!(stream("shop", &id), "bay_shop_shop_orders_events_v0_1");
    assert_eq!(
        stored("shop", &id),
        [
            "bay.shop.shop.orders.events.v0_1.*",
            "bay.shop.shop.orders.events.v0_1.*.*",
            "bay-replay.shop.*.shop.orders.events.v0_1.>",
        ]
    );
    assert_eq!(
        consumed("shop", "mail", &id, Some(0)),
        [
            "bay.shop.shop.orders.events.v0_1.*.0",
            "bay-replay.shop.mail.shop.orders.events.v0_1.*.0",
            "bay.shop.shop.orders.events.v0_1.*",
            "bay-replay.shop.mail.shop.orders.events.v0_1.*",
        ]
    );
    let replayed = replay("shop", "mail", &of_partition(&original, 3));
    assert_eq!(
        replayed,
        "bay-replay.shop.mail.shop.orders.events.v0_1.placed.3"
    );
    assert_eq!(of_stored(&replayed), Some(("placed", true)));
    assert_eq!(super::original(&replayed), of_partition(&original, 3));
    assert_eq!(super::original(&original), original);
    assert_eq!(of_stored(&original), Some(("placed", false)));
    assert_eq!(
        dead_letter("shop", "mail", &of_partition(&original, 3), "1f"),
        "bay-dlq.shop.mail.shop.orders.events.v0_1.placed.1f"
    );
    let hostile = original.replace("placed", "*");
    assert!(dead_letter("shop", "mail", &hostile, "1f").ends_with(".v0_1._.1f"));
    let of = |function: &str| dead_letters("shop", None, Some(&function.parse().unwrap()), None);
    assert_eq!(
        of("shop:orders/events.placed"),
        "bay-dlq.shop.*.shop.orders.events.*.placed.*"
    );
    assert_eq!(
        of("shop:orders/events.placed@0.1.4"),
        "bay-dlq.shop.*.shop.orders.events.v0_1.placed.*"
    );
    assert_eq!(of("events.placed"), "bay-dlq.shop.*.*.*.events.*.placed.*");
    assert_eq!(
        dead_letters("shop", Some("mail"), None, Some("1f")),
        "bay-dlq.shop.mail.*.*.*.*.*.1f"
    );
    assert_eq!(dead_letters("shop", None, None, None), "bay-dlq.shop.>");
}

#[test]
fn a_message_is_replayed_on_a_subject_beside_the_events() {
    let replays = replayed_messages("shop", "mail", "orders.>");
    assert_eq!(replays, "bay-replay.shop.mail._.orders.>");
    let stored = stored_messages("shop", "orders.>");
    assert_eq!(stored, ["orders.>", "bay-replay.shop.*._.orders.>"]);
    let replayed = replay("shop", "mail", "orders.new.7");
    assert_eq!(replayed, "bay-replay.shop.mail._.orders.new.7");
    assert_eq!(original(&replayed), "orders.new.7");
    assert!(is_replay(&replayed) && !is_replay("orders.new.7"));
}

proptest! {
    #[test]
    fn no_name_can_widen_a_subject(
        part in "[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,4})?",
        version in proptest::option::of("[0-9]\\.(0|[1-9][0-9]?)\\.[0-9](-[a-z]{1,3}\\.[1-9])?"),
    ) {
        let at = version.map(|v| format!("@{v}")).unwrap_or_default();
        let function: FunctionId = format!("{part}:{part}/{part}.{part}{at}").parse().unwrap();
        let subject = of_function("app", &function);
        prop_assert_eq!(subject.split('.').count(), 7);
        prop_assert!(!subject.contains(['*', '>', ' ']));
        prop_assert_eq!(function_name(&subject), Some(part.as_str()));
    }
}
