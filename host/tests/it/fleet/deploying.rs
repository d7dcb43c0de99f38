//! Deploying, looking, scaling, going back, undeploying.

use rustix::process::Signal;
use wasmbay::fleet::{Store, StoreError};
use wasmbay::manifest::Replicas;

use super::{EVERYWHERE, Fleet, ONCE, Ran, echo, pays};
use crate::support::cli::{Cli, Up};

#[tokio::test]
async fn an_app_serves_on_all_hosts_when_deploy_says_so() {
    let fleet = Fleet::start(EVERYWHERE).await;
    let none = fleet.run(&["deploy"]).await.failed();
    assert!(
        none.stderr
            .contains("there is no fleet on this NATS system"),
        "{none:?}"
    );
    let (a, b) = (
        fleet.host("a", &[]),
        fleet.host("b", &["--label", "zone=west"]),
    );
    let dry = fleet.run(&["deploy", "--dry-run"]).await.done();
    assert!(dry.stdout.contains("revision 1 would"), "{dry:?}");
    assert!(dry.stdout.contains("start guest"), "{dry:?}");
    let deployed = fleet
        .run(&["deploy", "--message", "the first", "--output", "json"])
        .await
        .done();
    let deployed = deployed.json();
    assert_eq!(
        (&deployed["revision"], &deployed["serves"]),
        (&1.into(), &true.into())
    );
    assert_eq!(deployed["replicas"].as_array().unwrap().len(), 2);
    let client = fleet.connect().await;
    echo(&client).await.unwrap();

    let again = fleet.run(&["deploy"]).await.done();
    assert!(
        again
            .stdout
            .contains("nothing has changed since revision 1"),
        "{again:?}"
    );
    let hosts = fleet
        .run(&["hosts", "--output", "json"])
        .await
        .done()
        .json();
    let names: Vec<_> = hosts["hosts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|host| host["name"].clone())
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(hosts["hosts"][1]["labels"]["zone"], "west");
    assert_eq!(hosts["hosts"][0]["services"], 1);

    // A host that comes late runs its part without being told.
    let c = fleet.host("c", &[]);
    fleet.hosts_of("guest", |hosts| hosts.len() == 3).await;
    let ps = fleet.run(&["ps"]).await.done();
    assert!(ps.stdout.contains("3/3"), "{ps:?}");
    assert_eq!(
        fleet.ps().await["replicas"][0]["calls"]
            .as_u64()
            .map(|calls| calls <= 1),
        Some(true)
    );

    let scaled = fleet
        .run(&["scale", "app/guest", "1", "--output", "json"])
        .await
        .done()
        .json();
    assert_eq!(scaled["changes"][0], "scale guest all → 1");
    fleet.hosts_of("guest", |hosts| hosts.len() == 1).await;
    let unknown = fleet.run(&["scale", "app/gest", "1"]).await.failed();
    assert!(
        unknown.stderr.contains("did you mean `guest`?"),
        "{unknown:?}"
    );

    let history = fleet
        .run(&["history", "app", "--output", "json"])
        .await
        .done()
        .json();
    let [first, second] = [0, 1].map(|at| history["revisions"][at].clone());
    assert_eq!(
        (&first["verb"], &first["message"]),
        (&"deploy".into(), &"the first".into())
    );
    assert!(first["author"].as_str().unwrap().starts_with("ada@"));
    assert_eq!(second["verb"], "scale guest to 1");

    fleet.run(&["undeploy", "app"]).await.done();
    assert!(echo(&client).await.is_err());
    assert!(
        fleet
            .run(&["ps"])
            .await
            .done()
            .stdout
            .contains("nothing is deployed")
    );
    let gone = fleet.run(&["scale", "app/guest", "2"]).await.failed();
    assert!(gone.stderr.contains("was undeployed by ada@"), "{gone:?}");
    fleet.run(&["rollback", "app"]).await.done();
    echo(&client).await.unwrap();

    for host in [a, b, c] {
        assert!(host.stop().ends_with("[exit 0]"));
    }
    fleet.stop().await;
}

#[tokio::test]
async fn going_back_is_the_next_revision() {
    let fleet = Fleet::start(EVERYWHERE).await;
    let host = fleet.host("a", &[]);
    fleet.run(&["deploy"]).await.done();
    let none = fleet.run(&["rollback", "app"]).await.failed();
    assert!(none.stderr.contains("no earlier revision"), "{none:?}");
    fleet.cli.write(
        "wasmbay.toml",
        format!("{EVERYWHERE}config = {{ a = 1 }}\n"),
    );
    fleet.run(&["deploy"]).await.done();
    let back = fleet
        .run(&["rollback", "app", "--output", "json"])
        .await
        .done()
        .json();
    assert_eq!(
        (&back["revision"], &back["changes"][0]),
        (&3.into(), &"reconfigure guest".into())
    );
    let history = fleet.run(&["history", "app"]).await.done();
    assert!(history.stdout.contains("rollback to 1"), "{history:?}");
    let unkept = fleet.run(&["rollback", "app", "--to", "9"]).await.failed();
    assert!(
        unkept.stderr.contains("revision 9 is not kept"),
        "{unkept:?}"
    );
    let unknown = fleet.run(&["history", "shop"]).await.failed();
    assert!(
        unknown.stderr.contains("there is no app \"shop\""),
        "{unknown:?}"
    );
    host.stop();
    fleet.stop().await;
}

#[tokio::test]
async fn what_breaks_clients_is_refused_and_can_be_forced() {
    let manifest = "name = \"app\"\n[service.pay]\ncomponent = \"pay.wasm\"\n[[route]]\nmethod = \"POST\"\npath = \"/pay\"\ncall = \"test:pay/api.charge\"\n";
    let fleet = Fleet::start(manifest).await;
    fleet.cli.write("pay.wasm", pays(&["amount"]));
    let host = fleet.host("a", &[]);
    fleet.run(&["deploy"]).await.done();
    fleet.cli.write("pay.wasm", pays(&["amount", "currency"]));
    let breaks = "breaks clients of route \"POST /pay\": `test:pay/api.charge@1.0.0` has another type in service \"pay\": currency: it is required and does not come";
    let refused = fleet.run(&["deploy"]).await.failed();
    assert!(
        refused.stderr.contains(breaks) && refused.stderr.contains("`--force`"),
        "{refused:?}"
    );
    let dry = fleet.run(&["deploy", "--dry-run"]).await.failed();
    assert!(
        dry.stdout
            .contains(&format!("refused without --force: {breaks}")),
        "{dry:?}"
    );
    fleet.run(&["deploy", "--force"]).await.done();
    let history = fleet.run(&["history", "app"]).await.done();
    assert!(
        history.stdout.contains(&format!("forced: {breaks}")),
        "{history:?}"
    );
    host.stop();
    fleet.stop().await;
}

#[tokio::test]
async fn a_diff_says_what_a_deploy_would_change() {
    let pay = "[service.pay]\ncomponent = \"pay.wasm\"\n";
    let fleet = Fleet::start(&format!("{EVERYWHERE}{pay}")).await;
    fleet.cli.write("pay.wasm", pays(&["amount"]));
    let none = fleet.run(&["diff"]).await;
    assert_eq!(none.code, Some(2), "{none:?}");
    assert!(none.stderr.contains("there is no fleet"), "{none:?}");
    let host = fleet.host("a", &[]);
    let new = fleet.run(&["diff"]).await.failed();
    assert!(
        new.stdout.contains("app, which is not deployed:")
            && new.stdout.contains("+ service pay")
            && new.stdout.contains("    + export test:pay/api@1.0.0"),
        "{new:?}"
    );
    fleet.run(&["deploy"]).await.done();
    let same = fleet.run(&["diff"]).await.done();
    assert_eq!(same.stdout, "");
    fleet.cli.write("pay.wasm", pays(&["amount", "currency"]));
    let secret = "config = { token = \"secret\" }\ngrants = { http = [\"a.example\"] }\n";
    let route = "[[route]]\nmethod = \"POST\"\npath = \"/pay\"\ncall = \"test:pay/api.charge\"\n";
    fleet
        .cli
        .write("wasmbay.toml", format!("{EVERYWHERE}{pay}{secret}{route}"));
    let differs = fleet.run(&["diff"]).await.failed();
    for line in [
        "app, since revision 1:",
        "~ service pay",
        "    ~ component ",
        "    + config.token (not shown)",
        "    + grants.http a.example",
        "+ route POST /pay",
        "refused without --force: breaks clients of the revision that runs: `test:pay/api.charge@1.0.0`",
    ] {
        assert!(differs.stdout.contains(line), "{line}: {differs:?}");
    }
    assert!(!differs.stdout.contains("secret"), "{differs:?}");
    let json = fleet
        .run(&["diff", "--service", "pay", "--output", "json"])
        .await
        .failed()
        .json();
    assert_eq!(json["revision"], 1);
    let all = json["differences"].as_array().unwrap();
    let http: Vec<_> = all
        .iter()
        .filter(|one| one["setting"] == "grants.http")
        .collect();
    assert_eq!(
        http,
        [
            &serde_json::json!({ "part": "service pay", "setting": "grants.http", "to": "a.example" })
        ]
    );
    assert!(!all.iter().any(|one| one["part"] == "route POST /pay"));
    assert_eq!(json["breaks"].as_array().unwrap().len(), 1);
    // The same by the deploy that is only told.
    let dry = fleet
        .run(&["deploy", "--dry-run", "--service", "pay"])
        .await
        .failed();
    assert!(
        dry.stdout.contains("    + grants.http a.example") && dry.stdout.contains("swap pay "),
        "{dry:?}"
    );
    fleet.cli.write("wasmbay.toml", "name = ");
    assert_eq!(fleet.run(&["diff"]).await.code, Some(78));
    host.stop();
    fleet.stop().await;
}

#[tokio::test]
async fn one_service_is_deployed_without_the_others() {
    let pay = "[service.pay]\ncomponent = \"pay.wasm\"\n";
    let fleet = Fleet::start(&format!("{EVERYWHERE}{pay}")).await;
    fleet.cli.write("pay.wasm", pays(&["amount"]));
    let host = fleet.host("a", &[]);
    let first = fleet.run(&["deploy", "--service", "pay"]).await.failed();
    assert!(
        first.stderr.contains("app \"app\" is not deployed"),
        "{first:?}"
    );
    fleet.run(&["deploy"]).await.done();
    // What of the others is changed, and even broken, does not count.
    fleet.cli.write("guest.wasm", "broken");
    fleet.cli.write(
        "wasmbay.toml",
        format!("{EVERYWHERE}config = {{ a = 1 }}\n{pay}config = {{ b = 2 }}\n"),
    );
    let deployed = fleet
        .run(&["deploy", "--service", "pay", "--output", "json"])
        .await
        .done()
        .json();
    let changes = deployed["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 1, "{deployed}");
    assert_eq!(changes[0], "reconfigure pay");
    echo(&fleet.connect().await).await.unwrap();
    // What does not fit into what runs is refused.
    let wire = "wire = { \"test:guest/api\" = \"none\" }\n";
    fleet.cli.write(
        "wasmbay.toml",
        format!("{EVERYWHERE}{pay}{wire}[service.none]\ncomponent = \"pay.wasm\"\n"),
    );
    let misfit = fleet.run(&["deploy", "--service", "pay"]).await;
    assert_eq!(misfit.code, Some(78), "{misfit:?}");
    assert!(
        misfit.stderr.contains("does not fit into what is deployed"),
        "{misfit:?}"
    );
    let unknown = fleet.run(&["deploy", "--service", "mail"]).await.failed();
    assert!(
        unknown.stderr.contains("it has guest, none, pay"),
        "{unknown:?}"
    );
    host.stop();
    fleet.stop().await;
}

#[tokio::test]
async fn one_component_goes_to_a_service_that_is_deployed() {
    let pay = "[service.pay]\ncomponent = \"pay.wasm\"\nconfig = { a = 1 }\n";
    let fleet = Fleet::start(&format!("{EVERYWHERE}{pay}")).await;
    fleet.cli.write("pay.wasm", pays(&["amount"]));
    let host = fleet.host("a", &[]);
    fleet.run(&["deploy"]).await.done();
    fleet.cli.write("other.wasm", pays(&["amount", "currency"]));
    let deploy = async |args: &[&str]| {
        let args = [&["deploy", "other.wasm"], args].concat();
        fleet.run(&args).await
    };
    let refused = deploy(&["--service", "app/pay"]).await.failed();
    assert!(refused.stderr.contains("breaks clients"), "{refused:?}");
    let forced = deploy(&["--service", "app/pay", "--force", "--output", "json"])
        .await
        .done()
        .json();
    assert!(
        forced["changes"][0]
            .as_str()
            .unwrap()
            .starts_with("swap pay ")
            && forced["changes"].as_array().unwrap().len() == 1,
        "{forced}"
    );
    for (args, said) in [
        (&[][..], "`--service APP/SERVICE`"),
        (&["--service", "pay"], "`--service APP/SERVICE`"),
        (&["--service", "app/pax"], "did you mean `pay`?"),
        (&["--service", "shop/pay"], "there is no app \"shop\""),
    ] {
        let wrong = deploy(args).await.failed();
        assert!(wrong.stderr.contains(said), "{said}: {wrong:?}");
    }
    host.stop();
    fleet.stop().await;
}

#[tokio::test]
async fn of_two_deploys_at_once_one_wins_and_the_other_is_told() {
    let fleet = Fleet::start(EVERYWHERE).await;
    let host = fleet.host("a", &[]);
    fleet.run(&["deploy"]).await.done();
    // Between reading and writing another revision comes.
    let client = fleet.connect().await;
    let store = Store::open(async_nats::jetstream::new(client))
        .await
        .unwrap();
    let kept = store.app("app").await.unwrap().unwrap();
    let mut mine = kept.revision.clone();
    mine.number += 1;
    fleet.run(&["scale", "app/guest", "2"]).await.done();
    let late = store.write("app", &mine, Some(kept.sequence)).await;
    assert!(
        matches!(late, Err(StoreError::Conflict { ref app }) if app == "app"),
        "{late:?}"
    );
    let now = store.app("app").await.unwrap().unwrap().revision;
    assert_eq!(
        now.specification.unwrap().app.services["guest"].replicas,
        Replicas::Count(2)
    );

    // The real thing: whoever does not win says so, and none of them does nothing.
    let (one, other) = tokio::join!(
        fleet.run(&["scale", "app/guest", "3"]),
        fleet.run(&["scale", "app/guest", "4"]),
    );
    let told = |ran: &Ran| {
        ran.code == Some(0)
            || ran.stderr.contains("was changed by someone else meanwhile")
                && ran.stderr.contains("`wasmbay history app`")
            || ran.stderr.contains("was replaced by revision")
    };
    assert!(told(&one) && told(&other), "{one:?} {other:?}");
    assert!(
        one.code == Some(0) || other.code == Some(0),
        "{one:?} {other:?}"
    );
    host.stop();
    fleet.stop().await;
}

#[tokio::test]
async fn one_machine_needs_no_options() {
    let cli = Cli::new().with(&[("wasmbay.toml", ONCE)]);
    let component = wat::parse_str(crate::support::components::GUEST).unwrap();
    cli.write("guest.wasm", component);
    let none = cli.run(&["ps"]);
    let hint = "hint: `wasmbay host` or `wasmbay up` starts one";
    assert!(none.contains(hint), "{none}");
    let start = |name: &str| {
        let host = Up::start(cli.command(&["host", "--name", name, "--workers", "1"]));
        host.until_built("leaves the fleet");
        host
    };
    let first = start("a");
    // It joins the first one's server.
    let second = start("b");
    assert!(
        second.stdout().contains("that of another host"),
        "{}",
        second.stdout()
    );
    let taken = cli.run(&["host", "--name", "a"]);
    assert!(
        taken.contains("another host of the fleet is called \"a\"") && taken.ends_with("[exit 78]"),
        "{taken}"
    );
    assert!(cli.run(&["deploy"]).ends_with("[exit 0]"));
    assert!(
        cli.run(&["call", "api.count"])
            .ends_with("[stdout]\n1\n[exit 0]")
    );
    second.signal(Signal::TERM);
    assert!(second.end().ends_with("[exit 0]"));
    assert!(first.stop().ends_with("[exit 0]"));
}
