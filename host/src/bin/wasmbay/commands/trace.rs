//! `wasmbay trace`: the last traces of an app, and one of them as a tree.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use wasmbay::fleet;
use wasmbay::insight::{self, TracePart, TraceSummary};
use wasmbay::nats::Link;
use wasmbay::spans::SpanRecord;
use wasmbay::text::shown;

use super::call::reach;
use crate::args::WhichApp;
use crate::report::{Exit, STRONG, Terminal, WEAK, count, failure, plain, table, time};

/// Characters of a timeline.
const WIDTH: u64 = 30;

/// Show the last traces of an app, or one of them as a tree
///
/// A host with an admin address keeps its last spans: of up to ten new requests a second, or of what
/// OTEL_TRACES_SAMPLER says where spans are exported; and of all that fails or takes a second.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay trace
  wasmbay trace --errors --service payment
  wasmbay trace 0af7651916cd43dd8448eb211c80319c

Exit codes: 0 done, 1 there is no such trace or no host answers, 2 wrong usage.")]
pub(crate) struct Trace {
    /// The trace's id; without one the last traces are listed
    #[arg(value_parser = id, conflicts_with_all = ["errors", "service", "limit"])]
    id: Option<String>,
    /// List those only in which something failed
    #[arg(long)]
    errors: bool,
    /// List those only that went through this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// List no more than these
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    app: WhichApp,
}

/// A connection to the NATS system that is meant, and the app if that is known.
pub(super) async fn reached(args: &WhichApp, name: &str) -> anyhow::Result<(Link, Option<String>)> {
    let (nats, app) = reach(args)?;
    Ok((nats.named(name).link().await?, app))
}

/// The app, or all that run.
pub(super) async fn apps_of(link: &Link, app: Option<String>) -> anyhow::Result<BTreeSet<String>> {
    if let Some(app) = app {
        return Ok(BTreeSet::from([app]));
    }
    let apps = fleet::running_apps(link).await?;
    if apps.is_empty() {
        return Err(failure(
            "no host on this NATS system runs an app",
            "`wasmbay up` runs one, `wasmbay deploy` has a fleet run one",
        ));
    }
    Ok(apps)
}

/// An id, of which a `traceparent` may be given as a whole.
fn id(text: &str) -> Result<String, &'static str> {
    let id = match text.split('-').collect::<Vec<_>>()[..] {
        [id] | [_, id, _, _] => id,
        _ => "",
    };
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id {
        Ok(id.to_ascii_lowercase())
    } else {
        Err("accepted: 32 hexadecimal digits, or a traceparent")
    }
}

pub(super) async fn run(args: Trace, terminal: &Terminal) -> anyhow::Result<Exit> {
    let (link, app) = reached(&args.app, "wasmbay trace").await?;
    let apps = apps_of(&link, app).await?;
    if let Some(id) = &args.id {
        let mut parts = Vec::new();
        for app in &apps {
            parts.extend(insight::trace(&link, app, id).await?);
        }
        return show(id, &parts, terminal);
    }
    let mut traces = Vec::new();
    for app in &apps {
        traces.extend(insight::traces(&link, app).await?);
    }
    traces.retain(|trace| {
        let of_service = |name: &String| trace.services.contains(name);
        args.service.as_ref().is_none_or(of_service) && (!args.errors || trace.error.is_some())
    });
    traces.sort_by_key(|trace| std::cmp::Reverse(trace.start_us));
    traces.truncate(usize::try_from(args.limit).unwrap_or(usize::MAX));
    list(&traces, terminal)
}

fn list(traces: &[TraceSummary], terminal: &Terminal) -> anyhow::Result<Exit> {
    if terminal.json() {
        terminal.result_json(&json!({ "traces": traces }))?;
        return Ok(Exit::Done);
    }
    if traces.is_empty() {
        terminal.say("no traces; hosts with an admin address (`--admin`) keep them");
        return Ok(Exit::Done);
    }
    let head = ["BEGAN", "TRACE", "REQUEST", "SPANS", "TOOK", "OUTCOME"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(traces.iter().map(|trace| {
        let said = trace.error.iter().chain(&trace.refusal);
        let said: Vec<_> = said.map(|text| shown(text).into_owned()).collect();
        vec![
            moment(trace.start_us),
            plain(&trace.trace),
            plain(&trace.name),
            trace.spans.to_string(),
            time(Duration::from_micros(trace.duration_us)),
            if said.is_empty() {
                "ok".to_owned()
            } else {
                said.join(": ")
            },
        ]
    }));
    terminal.result(table(&rows))?;
    Ok(Exit::Done)
}

fn show(id: &str, parts: &[TracePart], terminal: &Terminal) -> anyhow::Result<Exit> {
    if parts.is_empty() {
        return Err(failure(
            format!("no host has spans of trace {id}"),
            "`wasmbay trace` lists those that are kept",
        ));
    }
    if terminal.json() {
        terminal.result_json(&json!({ "trace": id, "hosts": parts }))?;
        return Ok(Exit::Done);
    }
    let spans = tree(parts);
    let begins = spans.iter().map(|(_, span)| span.start_us);
    let ends = spans
        .iter()
        .map(|(_, span)| span.start_us + span.duration_us);
    let start = begins.min().unwrap_or_default();
    let length = ends.max().unwrap_or_default().saturating_sub(start).max(1);
    let (spans_, hosts) = (count(spans.len(), "span"), count(parts.len(), "host"));
    terminal.result(format_args!(
        "trace {id}, {}, {}, {spans_} on {hosts}\n",
        moment(start),
        time(Duration::from_micros(length)),
    ))?;
    let rows: Vec<Vec<String>> = spans
        .iter()
        .map(|(depth, span)| {
            let what = format!(
                "{}{STRONG}{}{STRONG:#} {}",
                "  ".repeat(*depth),
                plain(&span.service),
                plain(&span.name)
            );
            let took = time(Duration::from_micros(span.duration_us));
            vec![what, took, bar(span, start, length), outcome(span)]
        })
        .collect();
    terminal.result(table(&rows))?;
    if parts.iter().any(|part| part.truncated) {
        terminal.note("it has more spans than are shown");
    }
    // In full where it began; what is further out says the same.
    for (_, span) in &spans {
        let within = |other: &SpanRecord| {
            other.error.is_some() && other.parent.as_deref() == Some(&*span.span)
        };
        if let Some(error) = &span.error
            && !spans.iter().any(|(_, other)| within(other))
        {
            terminal.result(format_args!("\n{WEAK}why:{WEAK:#} {}", plain(error)))?;
        }
    }
    for (_, span) in &spans {
        if let Some(stack) = span.attributes.get("exception.stacktrace") {
            let (service, stack) = (plain(&span.service), plain(stack));
            terminal.result(format_args!(
                "\n{WEAK}where {service} was:{WEAK:#}\n{stack}"
            ))?;
        }
    }
    Ok(Exit::Done)
}

/// When a span was, within the trace.
fn bar(span: &SpanRecord, start: u64, length: u64) -> String {
    let place = |at: u64| at.saturating_sub(start) * WIDTH / length;
    let (from, to) = (
        place(span.start_us),
        place(span.start_us + span.duration_us),
    );
    let drawn = (0..WIDTH).map(|at| {
        if (from.min(WIDTH - 1)..=to.max(from)).contains(&at)
            && (at < to || at == from.min(WIDTH - 1))
        {
            '█'
        } else {
            '·'
        }
    });
    drawn.collect()
}

fn outcome(span: &SpanRecord) -> String {
    let error = span
        .error
        .as_deref()
        .map(|error| format!("error: {}", shown(error)));
    let refusal = span.attributes.get("wasmbay.err");
    let refusal = refusal.map(|value| format!("err {}", shown(value)));
    error.or(refusal).unwrap_or_default()
}

/// The spans with their depth: each below the one that it is a part of. One whose parent is on no host
/// stands at the top.
fn tree(parts: &[TracePart]) -> Vec<(usize, &SpanRecord)> {
    let mut spans: Vec<_> = parts.iter().flat_map(|part| &part.spans).collect();
    spans.sort_by_key(|span| (span.start_us, std::cmp::Reverse(span.duration_us)));
    let known: Vec<_> = spans.iter().map(|span| &*span.span).collect();
    let mut below: BTreeMap<&str, Vec<&SpanRecord>> = BTreeMap::new();
    for span in &spans {
        let parent = span
            .parent
            .as_deref()
            .filter(|parent| known.contains(parent));
        below
            .entry(parent.unwrap_or_default())
            .or_default()
            .push(span);
    }
    let mut ordered = Vec::new();
    let mut next: Vec<(usize, &SpanRecord)> = Vec::new();
    let tops = below.remove("").unwrap_or_default();
    next.extend(tops.into_iter().rev().map(|span| (0, span)));
    while let Some((depth, span)) = next.pop() {
        ordered.push((depth, span));
        // Each once, whatever a host says of its parents.
        let children = below.remove(&*span.span).unwrap_or_default();
        next.extend(children.into_iter().rev().map(|child| (depth + 1, child)));
    }
    ordered
}

fn moment(micros: u64) -> String {
    let seconds = i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX);
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: &str, parent: Option<&str>, start_us: u64) -> SpanRecord {
        let record = json!({
            "trace": "t", "span": id, "parent": parent, "app": "shop", "service": id, "kind": "server",
            "name": id, "startUs": start_us, "durationUs": 10, "attributes": {},
        });
        serde_json::from_value(record).unwrap()
    }

    fn part(host: &str, spans: Vec<SpanRecord>) -> TracePart {
        serde_json::from_value(json!({ "host": host, "spans": spans })).unwrap()
    }

    #[test]
    fn spans_of_all_hosts_stand_below_the_one_that_they_are_a_part_of() {
        let parts = [
            part(
                "a",
                vec![span("gateway", None, 0), span("later", Some("gateway"), 9)],
            ),
            part(
                "b",
                vec![
                    span("orders", Some("gateway"), 2),
                    span("lost", Some("gone"), 5),
                ],
            ),
            part("c", vec![span("payment", Some("orders"), 4)]),
        ];
        let found: Vec<_> = tree(&parts)
            .iter()
            .map(|(depth, span)| (*depth, &*span.span))
            .collect();
        let expected = [
            (0, "gateway"),
            (1, "orders"),
            (2, "payment"),
            (1, "later"),
            (0, "lost"),
        ];
        assert_eq!(found, expected);
        // What a host makes up is no endless tree.
        let circle = [part(
            "a",
            vec![span("x", Some("y"), 0), span("y", Some("x"), 1)],
        )];
        assert!(tree(&circle).is_empty());
    }

    #[test]
    fn a_bar_is_where_its_span_was() {
        let mut first = span("a", None, 100);
        first.duration_us = 30;
        assert_eq!(bar(&first, 100, 30), "█".repeat(30));
        first.duration_us = 0;
        assert_eq!(bar(&first, 100, 30), format!("█{}", "·".repeat(29)));
        first.start_us = 130;
        assert_eq!(bar(&first, 100, 30), format!("{}█", "·".repeat(29)));
        first.start_us = 110;
        first.duration_us = 10;
        assert_eq!(
            bar(&first, 100, 30),
            format!("{0}{1}{0}", "·".repeat(10), "█".repeat(10))
        );
    }

    #[test]
    fn an_id_is_given_alone_or_in_a_traceparent() {
        let plain = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(id(plain).as_deref(), Ok(plain));
        assert_eq!(
            id(&format!("00-{plain}-b7ad6b7169203331-01")).as_deref(),
            Ok(plain)
        );
        for text in ["", "x", "0af7", &format!("{plain}-1"), &format!("{plain}0")] {
            assert!(id(text).is_err(), "{text}");
        }
    }
}
