//! Functions as NATS subjects, and back. The only place that formats or parses one.
//!
//! `bay.<app>.<namespace>.<package>.<interface>.<track>.<function>`, seven tokens. Every token
//! comes from a checked name, so that a subject can hold no wildcard.

use crate::interface::{FunctionId, InterfaceId};

/// The first token of every subject.
const ROOT: &str = "bay";

/// The queue group in which every host subscribes, so that one of them gets each request.
pub const QUEUE_GROUP: &str = "bay";

/// The queue group in which the hosts of one service subscribe to events, so that each service
/// hears of each.
#[must_use]
pub fn queue_group_of(service: &str) -> String {
    format!("{ROOT}.{service}")
}

/// The subject on which a function is called.
#[must_use]
pub fn of_function(app: &str, function: &FunctionId) -> String {
    format!(
        "{}.{}",
        of_interface(app, &function.interface),
        function.name
    )
}

/// The subject that matches every function of an interface.
#[must_use]
pub fn all_functions(app: &str, interface: &InterfaceId) -> String {
    format!("{}.*", of_interface(app, interface))
}

/// The subject of one partition of a function's events.
#[must_use]
pub fn of_partition(function: &str, partition: u32) -> String {
    format!("{function}.{partition}")
}

/// The stream that stores an interface's events. No name has a `_` but the track, which is last,
/// so two interfaces never share one.
#[must_use]
pub fn stream(app: &str, interface: &InterfaceId) -> String {
    let InterfaceId {
        namespace,
        package,
        name,
        ..
    } = interface;
    format!(
        "{ROOT}_{app}_{namespace}_{package}_{name}_{}",
        interface.track()
    )
}

fn of_interface(app: &str, interface: &InterfaceId) -> String {
    let InterfaceId {
        namespace,
        package,
        name,
        ..
    } = interface;
    format!(
        "{ROOT}.{app}.{namespace}.{package}.{name}.{}",
        interface.track()
    )
}

/// The function's name in a subject that [`all_functions`] matched.
#[must_use]
pub fn function_name(subject: &str) -> Option<&str> {
    subject.rsplit_once('.').map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_subject_has_the_seven_tokens_of_the_wire() {
        let function: FunctionId = "acme:stock/reserve.hold@1.4.2".parse().unwrap();
        assert_eq!(
            of_function("shop", &function),
            "bay.shop.acme.stock.reserve.v1.hold"
        );
        assert_eq!(
            all_functions("shop", &function.interface),
            "bay.shop.acme.stock.reserve.v1.*"
        );
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
}
