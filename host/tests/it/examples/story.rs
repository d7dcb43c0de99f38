//! The README's story of an order that survives its host, as it is written: its commands in a shell.

use std::time::Duration;

use rustix::process::Signal;

use super::*;
use crate::support::nats::Nats;

/// Orders instead of the README's 200.
const ORDERS: usize = 40;

/// What follows these words in the README, up to the end of the block of code.
fn block<'r>(readme: &'r str, after: &str, language: &str) -> &'r str {
    let (_, rest) = readme.split_once(after).unwrap();
    let (_, code) = rest.split_once(&format!("```{language}\n")).unwrap();
    code.split_once("```").unwrap().0
}

fn shell(script: &str, folder: &Path) -> Command {
    let binary = Path::new(env!("CARGO_BIN_EXE_wasmbay")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    // An order that never gets an outcome would be placed forever.
    let mut shell = Command::new("timeout");
    shell
        .args(["120", "bash", "-euo", "pipefail", "-c", script])
        .env("PATH", format!("{}:{path}", binary.display()))
        .current_dir(folder);
    shell
}

fn printed(script: &str, folder: &Path) -> String {
    let output = shell(script, folder).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn shop_charges_once_for_each_order_when_a_host_is_killed() {
    let readme = read("examples/shop/README.md");
    let nats = Nats::start().await;
    let cli = Cli::new().with(&[("wasmbay.toml", &manifest("shop"))]);
    let folder = cli.path("");
    tokio::task::block_in_place(|| build(&cli, &["check", "--cache", CACHE]));
    let start = |options: &[&str]| {
        let options = [&["--cache", CACHE, "--nats", nats.url()], options].concat();
        tokio::task::block_in_place(|| cli.up(&options))
    };
    // The one with the gateway is the one that is announced.
    let second = start(&[]);
    let first = start(&["--no-gateway"]);
    let announced = std::fs::read(cli.path(".wasmbay/host.json")).unwrap();
    let announced: Value = serde_json::from_slice(&announced).unwrap();
    let gateway = announced["gateway"].as_str().unwrap();

    let script = block(&readme, "Place orders in a loop", "sh");
    assert!(script.contains("$(seq 200)") && script.contains("http://127.0.0.1:8081"));
    let script = script.replace("$(seq 200)", &format!("$(seq {ORDERS})"));
    let script = script.replace("http://127.0.0.1:8081", gateway);
    let mut placing = shell(&script, &folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut confirmed = BufReader::new(placing.stdout.take().unwrap()).lines();
    for _ in 0..ORDERS / 4 {
        confirmed.next().unwrap().unwrap();
    }
    // Between the charge of an order and what comes after it, as far as a log can tell.
    let before = charges(&first);
    until_ok_blocking("the first host charges for an order", || {
        let charged = charges(&first);
        (charged > before).then_some(()).ok_or(charged)
    });
    first.signal(Signal::KILL);
    let rest: Vec<_> = confirmed.map(Result::unwrap).collect();
    assert!(placing.wait().unwrap().success());
    assert_eq!(ORDERS / 4 + rest.len(), ORDERS);

    let url = nats.url();
    let list = "wasmbay runs ls --all --pipeline orders-place --limit 200 --nats ";
    assert!(readme.contains(&format!("`{list}nats://127.0.0.1:4222`")));
    let list = format!("{list}{url}");
    until_ok_blocking_within(Duration::from_secs(15), "all are completed", || {
        let listed = printed(&list, &folder);
        let runs: Vec<_> = listed.lines().skip(1).collect();
        let all = runs.iter().all(|run| run.contains(" completed "));
        (all && runs.len() == ORDERS).then_some(()).ok_or(listed)
    });
    let listed = printed(&list, &folder);
    let id = listed.lines().nth(1).unwrap();
    let id = id.split_whitespace().next().unwrap();
    let shown = printed(&format!("wasmbay runs show {id} --nats {url}"), &folder);
    for step in [
        "1-get",
        "2-order-placed",
        "3-reserve",
        "4-charge",
        "5-order-paid",
    ] {
        assert!(shown.contains(&format!("\n{step} ")), "{step}: {shown}");
    }

    cli.write("first.log", format!("{}{}", first.stdout(), first.stderr()));
    cli.write(
        "second.log",
        format!("{}{}", second.stdout(), second.stderr()),
    );
    let counting = block(&readme, "Payment writes every charge to the log", "console");
    let mut counts = 0;
    for command in counting.lines().filter_map(|line| line.strip_prefix("$ ")) {
        assert_eq!(
            printed(command, &folder).trim(),
            ORDERS.to_string(),
            "{command}"
        );
        counts += 1;
    }
    assert_eq!(counts, 2);
    second.stop();
    nats.stop().await;
}

fn charges(host: &Up) -> usize {
    let printed = [host.stdout(), host.stderr()];
    printed
        .iter()
        .map(|text| text.matches(" charged, ").count())
        .sum()
}
