//! `wasmbay logs`.

use std::time::Duration;

use serde_json::Value;
use wasmbay::logs::{self, LogsError, Record, Wanted};

use super::call::reach;
use crate::args::{Nats, WhichApp, duration};
use crate::report::{Exit, STRONG, Terminal, WEAK, failure, plain};

/// Show what hosts and their guests have logged, of all hosts together
///
/// Hosts keep their records in the NATS system: 64 MiB of them and for a day, unless the stream `bay-logs` was
/// created or changed otherwise.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay logs
  wasmbay logs shop/orders -f
  wasmbay logs --since 2h --host a --output json | jq -r 'select(.level == \"ERROR\").message'

Exit codes: 0 done, 1 records cannot be read, 2 wrong usage.")]
pub(crate) struct Logs {
    /// The app, or one service of it; otherwise that of this folder, or everything
    #[arg(value_name = "APP[/SERVICE]", value_parser = of)]
    of: Option<Of>,
    /// Go on with what is logged from now on
    #[arg(short, long)]
    follow: bool,
    /// Records that are no older than this
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    since: Duration,
    /// Records of this host
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    #[command(flatten)]
    nats: Nats,
}

/// An app, and a service of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Of {
    app: String,
    service: Option<String>,
}

fn of(text: &str) -> Result<Of, String> {
    let is_name = |name: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !name.is_empty() && name.chars().all(plain)
    };
    let (app, service) = match text.split_once('/') {
        Some((app, service)) => (app, Some(service)),
        None => (text, None),
    };
    if is_name(app) && service.is_none_or(is_name) {
        return Ok(Of {
            app: app.to_owned(),
            service: service.map(str::to_owned),
        });
    }
    Err("accepted: the name of an app, or APP/SERVICE".to_owned())
}

pub(super) async fn run(args: Logs, terminal: &Terminal) -> anyhow::Result<Exit> {
    let Logs {
        of,
        follow,
        since,
        host,
        nats,
    } = args;
    let (nats, running) = reach(&WhichApp { app: None, nats })?;
    let (app, service) = match of {
        Some(Of { app, service }) => (Some(app), service),
        None => (running, None),
    };
    let nats = nats.named("wasmbay logs");
    let context = nats.jetstream(nats.connect().await?);
    let wanted = Wanted {
        app,
        service,
        host,
        since,
        follow,
    };
    let mut broken = None;
    let read = logs::read(&context, &wanted, |record| {
        let line = if terminal.json() {
            record.to_json()
        } else {
            text(&record)
        };
        let printed = terminal.result(line);
        let goes_on = printed.is_ok();
        broken = printed.err();
        goes_on
    });
    let read = tokio::select! {
        read = read => read,
        // Ctrl-C is how following ends.
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    match (read, broken) {
        (_, Some(error)) => Err(error.into()),
        (Ok(()), None) => Ok(Exit::Done),
        (Err(error @ LogsError::None), None) => Err(failure(
            error.to_string(),
            "`wasmbay host` and `wasmbay up` keep their records where there is JetStream; the host's own log says \
             why one does not",
        )),
        (Err(error), None) => Err(error.into()),
    }
}

/// A record as a line: when, how bad, where, whose, what, and everything else.
fn text(record: &Record) -> String {
    let Record {
        timestamp,
        level,
        host,
        target,
        app,
        service,
        trace_id,
        message,
        fields,
        ..
    } = record;
    let whose = match (app, service) {
        (Some(app), Some(service)) => format!("{app}/{service}"),
        (Some(one), None) | (None, Some(one)) => one.clone(),
        (None, None) => target.clone(),
    };
    let (host, whose, level) = (plain(host), plain(&whose), plain(level));
    let mut line = format!(
        "{WEAK}{} {host}{WEAK:#} {level:<5} {STRONG}{whose}{STRONG:#} {}",
        plain(timestamp),
        plain(message),
    );
    let mut more = |name: &str, value: &str| {
        line += &format!(" {WEAK}{}={}{WEAK:#}", plain(name), plain(value));
    };
    for (name, value) in fields {
        match value {
            Value::String(text) => more(name, text),
            other => more(name, &other.to_string()),
        }
    }
    if let Some(trace) = trace_id {
        more("trace", trace);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_or_one_service_of_it_is_meant() {
        let meant = |text: &str| of(text).map(|of| (of.app, of.service));
        assert_eq!(meant("shop"), Ok(("shop".into(), None)));
        assert_eq!(
            meant("shop/orders"),
            Ok(("shop".into(), Some("orders".into())))
        );
        for wrong in [
            "", "/", "shop/", "/orders", "shop/a/b", "shop.>", "Shop", "*",
        ] {
            assert!(meant(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_record_is_a_line() {
        let record = r#"{"timestamp":"2026-11-30T20:00:00Z","level":"INFO","host":"a","target":"guest","app":"shop",
            "service":"orders","trace_id":"00ff","message":"placed\u001b[2J","stream":"stdout","n":3}"#;
        let record: Record = serde_json::from_str(record).unwrap();
        let line = anstream::adapter::strip_str(&text(&record)).to_string();
        assert!(!line.contains('\u{1b}'));
        assert!(
            line.starts_with("2026-11-30T20:00:00Z a INFO  shop/orders placed"),
            "{line}"
        );
        assert!(line.ends_with("n=3 stream=stdout trace=00ff"), "{line}");
    }
}
