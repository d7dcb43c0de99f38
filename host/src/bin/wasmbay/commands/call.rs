//! `wasmbay call`.

use std::io::{IsTerminal as _, Read as _};

use anyhow::Context as _;
use bytes::Bytes;
use wasmbay::call::{Call as Message, CallError, Code};
use wasmbay::interface::FunctionId;
use wasmbay::json::{self, Limits};
use wasmbay::nats::ConnectOptions;
use wasmbay::shape::{Shape, Signature};
use wasmbay::transport::Client;
use wasmbay::value::Value;
use wasmbay::wire::ErrorBody;

use super::discover::{self, Wanted};
use super::fleet;
use super::pretty::pretty;
use crate::args::{Outgoing, WhichApp};
use crate::report::{Exit, Terminal, failure, plain};
use crate::running::Running;

/// Call a function
///
/// Finds out over NATS where the function is and what it takes, checks the arguments before
/// anything is sent, and prints the result as JSON.
///
/// The interface may be shortened as long as only one function is meant: `orders.place` for
/// `shop:orders/orders.place@1.0.0`. Without --nats, the app of this folder, or of one above it,
/// has to run, or a fleet on this machine.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay call greetings.greet '{\"who\":\"you\"}'
  wasmbay call shop:orders/orders.place @order.json
  echo '[\"mouse\"]' | wasmbay call stock.on-hand -
  wasmbay call stock.on-hand '{\"sku\":\"mouse\"}' --nats nats://127.0.0.1:4222 --app shop

Exit codes: 0 a result, 1 an error or an `err` value, 2 wrong usage. With --output json an `err`
value is a result, and an error is printed as {\"error\":{\"code\":…,\"message\":…,\"blame\":…}}.")]
pub(crate) struct Call {
    #[command(flatten)]
    outgoing: Outgoing,
}

pub(super) async fn run(args: Call, terminal: &Terminal) -> anyhow::Result<Exit> {
    let args = args.outgoing;
    let wanted: Wanted = args.function.parse()?;
    let body = arguments(args.arguments.as_deref())?;
    let (nats, app) = reach(&args.app)?;
    let link = nats.named("wasmbay call").link().await?;

    let all = discover::ask(&link, args.timeout).await?;
    let all: Vec<_> = all
        .into_iter()
        .filter(|one| app.as_ref().is_none_or(|app| one.app == *app))
        .collect();
    let found = discover::choose(&wanted, all)?;
    if let Some(signature) = &found.signature {
        check(&body, &found.function, signature)?;
    }
    let client = Client::new(link)?;
    let call = Message::new(body, args.timeout);
    match client.call(&found.subject, call).await {
        Ok(body) => result(&body, found.signature.as_ref(), terminal),
        Err(error) => failed(&error, terminal),
    }
}

/// Where NATS is, and the app if that is known.
pub(super) fn reach(args: &WhichApp) -> anyhow::Result<(ConnectOptions, Option<String>)> {
    if let Some(nats) = args.nats.options()? {
        return Ok((nats, args.app.clone()));
    }
    let here = std::env::current_dir().context("the working directory")?;
    let Some(running) = Running::find(&here) else {
        if let Some(nats) = fleet::on_this_machine() {
            return Ok((nats, args.app.clone()));
        }
        return Err(failure(
            "no app of this folder, or of one above it, is running",
            "`wasmbay up` runs it; `--nats nats://HOST:4222` reaches one that runs elsewhere",
        ));
    };
    let Some(url) = running.nats_url()? else {
        return Err(failure(
            format!(
                "{} runs with a NATS password, which is kept in no file",
                running.app
            ),
            "name the NATS system: `--nats URL` or NATS_URL, `--nats-context NAME` or NATS_CONTEXT",
        ));
    };
    Ok((
        ConnectOptions::to(url),
        args.app.clone().or(Some(running.app)),
    ))
}

/// The arguments as they were given, from a file, or from stdin.
pub(super) fn arguments(given: Option<&str>) -> anyhow::Result<Bytes> {
    let Some(given) = given else {
        return Ok(Bytes::new());
    };
    let limit = json::DEFAULT_BYTES as u64 + 1;
    let mut text = Vec::new();
    if given == "-" {
        std::io::stdin()
            .lock()
            .take(limit)
            .read_to_end(&mut text)
            .context("cannot read stdin")?;
    } else if let Some(path) = given.strip_prefix('@') {
        let read =
            std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut text));
        read.with_context(|| format!("cannot read {path}"))?;
    } else {
        text.extend_from_slice(given.as_bytes());
    }
    Ok(text.into())
}

/// Finds what is wrong with the arguments before they are sent.
pub(super) fn check(
    body: &[u8],
    function: &FunctionId,
    signature: &Signature,
) -> anyhow::Result<Vec<Value>> {
    match json::decode_arguments(body, signature, &Limits::default()) {
        Ok(values) => Ok(values),
        Err(error) => {
            let takes = signature.parameters();
            Err(misfit(&error.to_string(), &function.to_string(), &takes))
        }
    }
}

/// The arguments are not those that the function takes.
pub(super) fn misfit(why: &str, function: &str, takes: &str) -> anyhow::Error {
    failure(
        format!("the arguments do not fit: {why}"),
        format!("{function} takes {takes}"),
    )
}

/// Prints a result. An `err` value is one of the function's results, but not what the call was
/// made for.
fn result(body: &[u8], signature: Option<&Signature>, terminal: &Terminal) -> anyhow::Result<Exit> {
    let text = String::from_utf8_lossy(body);
    if std::io::stdout().is_terminal() && !terminal.json() {
        terminal.result(plain(&pretty(&text)))?;
    } else {
        terminal.result(&text)?;
    }
    let may_fail = matches!(
        signature,
        Some(Signature {
            result: Some(Shape::Result { .. }),
            ..
        })
    );
    let is_err = may_fail && text.trim_start().starts_with("{\"err\"");
    Ok(if is_err && !terminal.json() {
        Exit::Failed
    } else {
        Exit::Done
    })
}

/// Prints why there is no result.
fn failed(error: &CallError, terminal: &Terminal) -> anyhow::Result<Exit> {
    if terminal.json() {
        terminal.result(serde_json::to_string(&ErrorBody::from(error))?)?;
        return Ok(Exit::Failed);
    }
    let CallError {
        code,
        blame,
        message,
        ..
    } = error;
    anyhow::bail!(
        "{} {} (blame: {blame}): {message}",
        code.status(),
        name(*code)
    )
}

fn name(code: Code) -> &'static str {
    match code {
        Code::Accepted => "goes on",
        Code::BadArguments => "bad arguments",
        Code::NotFound => "no such function",
        Code::TooLarge => "too large",
        Code::Overloaded => "overloaded",
        Code::Trap => "trap",
        Code::Dependency => "a service it needs failed",
        Code::Unavailable => "unavailable",
        Code::Deadline => "deadline",
        Code::TooManyHops => "too many hops",
    }
}
