//! Other hosts that share subjects with this one: do their types fit.
//!
//! Hosts are deployed one at a time, so two versions of an interface meet. What differs and cannot be
//! read is said when a deployment begins, naming host and digest; a call would only say that
//! something did not decode.

use std::sync::Arc;
use std::time::Duration;

use crate::deployment::Deployment;
use crate::interface::FunctionId;
use crate::micro::{Answer, HOST, Verb};
use crate::nats::{Link, ask_services};
use crate::shape::{Signature, Unreadable};
use crate::subject;
use crate::text::shown;

/// Time that other hosts have to answer.
const LOOKUP: Duration = Duration::from_millis(500);

/// Asks what other hosts serve and warns of functions that cannot be called across versions.
pub(super) async fn compare(link: Link, app: String, host: String, deployment: Arc<Deployment>) {
    let answers = match ask_services(&link, Verb::Info, LOOKUP).await {
        Ok(answers) => answers,
        Err(error) => return tracing::debug!(%error, "other hosts cannot be asked"),
    };
    for answer in answers
        .iter()
        .filter(|answer| answer.metadata.get(HOST) != Some(&host))
    {
        for difference in differences(&app, &deployment, answer) {
            tracing::warn!("{difference}");
        }
    }
}

/// What of another host's service cannot be called as ours is, or ours as its.
fn differences(app: &str, deployment: &Deployment, answer: &Answer) -> Vec<String> {
    let services = deployment.services.values();
    let exported = services.flat_map(|service| service.interfaces());
    let functions = exported.flat_map(|exported| exported.functions.values());
    functions
        .flat_map(|function| {
            let subject = subject::of_function(app, &function.id);
            function_differences(&function.id, &subject, &function.signature, answer)
        })
        .collect()
}

fn function_differences(
    function: &FunctionId,
    subject: &str,
    ours: &Signature,
    answer: &Answer,
) -> Vec<String> {
    let endpoints = answer.endpoints.iter().flatten();
    let same = endpoints.filter(|endpoint| endpoint.subject == subject);
    let theirs = same.filter_map(|endpoint| endpoint.metadata.get("signature")?.parse().ok());
    theirs
        .flat_map(|theirs: Signature| {
            let ways = [
                (ours.can_call(&theirs), "callers built like ours, there"),
                (theirs.can_call(ours), "callers built like theirs, here"),
            ];
            ways.into_iter()
                .filter_map(|(fits, who)| Some((who, fits.err()?)))
                .map(|(who, why)| describe(function, answer, who, &why))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn describe(function: &FunctionId, answer: &Answer, who: &str, why: &Unreadable) -> String {
    let of = |key: &str| answer.metadata.get(key).map_or("unknown", String::as_str);
    let (host, digest) = (shown(of("host")), of("digest"));
    let digest = shown(digest.get(..12).unwrap_or(digest));
    format!(
        "{function} has another type on host {host} (service \"{}\", digest {digest}), which fails for {who}: {why}",
        shown(&answer.name)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of our `func(order: record { id: string })` beside another host's signature.
    fn beside(signature: &str) -> Vec<String> {
        let answer = serde_json::json!({
            "type": "io.nats.micro.v1.info_response",
            "name": "orders",
            "id": "h2-orders",
            "version": "0.0.0",
            "metadata": { "host": "h2", "digest": "0123456789abcdef" },
            "endpoints": [{ "name": "place", "subject": "bay.a.place", "metadata": { "signature": signature } }],
        });
        let answer: Answer = serde_json::from_value(answer).unwrap();
        let ours = "func(order: record { id: string })".parse().unwrap();
        let function = "a:b/orders.place".parse().unwrap();
        function_differences(&function, "bay.a.place", &ours, &answer)
    }

    #[test]
    fn a_type_that_both_can_read_is_no_difference() {
        assert!(beside("func(order: record { id: string })").is_empty());
        assert!(beside("func(order: record { id: string, note: option<string> })").is_empty());
        assert!(beside("no signature").is_empty());
    }

    #[test]
    fn a_difference_names_host_digest_and_direction() {
        let said = beside("func(order: record { id: string, sku: string })");
        assert_eq!(
            said,
            [
                "a:b/orders.place has another type on host h2 (service \"orders\", digest 0123456789ab), which fails for \
              callers built like ours, there: order.sku: it is required and does not come"
            ]
        );
    }
}
