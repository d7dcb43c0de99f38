//! Hosts that run only what someone they trust has signed.

use wasmbay::fleet::Store;
use wasmbay::manifest::Digest;
use wasmbay::nats::ConnectOptions;

use super::{Fleet, ONCE, Ran, echo, pays};
use crate::support::registry::Registry;
use crate::support::{PATIENCE, until_ok_within};

const TWO: &str = "name = \"app\"\n[service.guest]\ncomponent = \"guest.wasm\"\nreplicas = 1\n[service.pay]\ncomponent = \"pay.wasm\"\nreplicas = 1\n";

impl Fleet {
    /// Makes a key in this file; returns its public part.
    async fn key(&self, file: &str) -> String {
        let made = self.run(&["sign", "--generate", file]).await.done();
        made.stdout.trim().to_owned()
    }
}

#[track_caller]
fn assert_told(ran: &Ran, all: &[&str]) {
    for text in all {
        assert!(ran.stderr.contains(text), "{text}: {ran:?}");
    }
}

#[tokio::test]
async fn only_what_a_trusted_key_has_signed_runs() {
    let fleet = Fleet::start(TWO).await;
    fleet.cli.write("pay.wasm", pays(&["amount"]));
    let [ours, other] = [fleet.key("ours.nk").await, fleet.key("other.nk").await];
    let seed = std::fs::metadata(fleet.cli.path("ours.nk")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&seed) & 0o777, 0o600);
    let twice = fleet.run(&["sign", "--generate", "ours.nk"]).await.failed();
    assert_told(&twice, &["cannot create ours.nk"]);

    fleet
        .cli
        .write("trusted", format!("# of the release\n{ours}\n"));
    let host = fleet.host("a", &["--trust", "trusted"]);
    // One is signed, the other is not: the first one runs.
    fleet.run(&["sign", "ours.nk", "guest.wasm"]).await.done();
    let deployed = fleet.run(&["deploy"]).await.failed();
    let digest = Digest::of(&pays(&["amount"]));
    let begin = format!("component {}", digest.short());
    let unsigned = format!("{begin} is not signed; this host runs what {ours} signed");
    assert_told(&deployed, &["pay", &unsigned]);
    let client = fleet.connect().await;
    echo(&client).await.unwrap();
    let ps = fleet.run(&["ps"]).await;
    assert!(ps.stdout.contains(&unsigned), "{ps:?}");

    let others = fleet
        .run(&["deploy", "--sign-key", "other.nk"])
        .await
        .failed();
    assert_told(
        &others,
        &[&format!(
            "{begin} is signed by {other}; this host runs what {ours} signed"
        )],
    );

    // A signature of something else is found before it is stored, and by hosts if it is there.
    fleet.run(&["sign", "ours.nk", "pay.wasm"]).await.done();
    let signature = std::fs::read_to_string(fleet.cli.path("pay.wasm.sig")).unwrap();
    fleet.cli.write("pay.wasm", pays(&["amount", "currency"]));
    let stale = fleet.run(&["deploy", "--force"]).await.failed();
    assert_told(
        &stale,
        &[
            "pay.wasm.sig",
            &format!("the signature by {ours} is not of this component"),
        ],
    );
    let nats = ConnectOptions::to(&*fleet.url);
    let store = Store::open(nats.jetstream(client.clone())).await.unwrap();
    let forged = Digest::of(&pays(&["amount", "currency"]));
    let (key, text) = signature.trim().split_once(' ').unwrap();
    let wrong = [(key.to_owned(), text.to_owned())].into_iter().collect();
    store.add_signatures(&forged, &wrong).await.unwrap();
    std::fs::remove_file(fleet.cli.path("pay.wasm.sig")).unwrap();
    let deployed = fleet.run(&["deploy", "--force"]).await.failed();
    let wrong = format!(
        "component {} has a wrong signature by {ours}",
        forged.short()
    );
    assert_told(&deployed, &[&wrong]);

    // The same bytes, signed: nothing else has changed, and it serves.
    let signed = fleet.run(&["deploy", "--sign-key", "ours.nk"]).await.done();
    assert!(signed.stdout.contains("signed 1 component\n"), "{signed:?}");
    until_ok_within(PATIENCE, "both run", async || {
        let ps = fleet.run(&["ps"]).await;
        let failed = ps.stdout.contains("failed");
        if failed { Err(ps) } else { Ok(()) }
    })
    .await;
    // A host that is started anew looks again.
    host.stop();
    let host = fleet.host("a", &["--trust", &other, "--trust", &ours]);
    fleet.hosts_of("pay", |hosts| hosts == ["a"]).await;
    host.stop();
    fleet.stop().await;
}

#[tokio::test]
async fn a_signature_comes_along_from_a_registry() {
    let registry = Registry::open();
    let reference = registry.at("acme/guest:1");
    let manifest = ONCE.replace("guest.wasm", &format!("oci://{reference}"));
    let fleet = Fleet::start(&manifest).await;
    let [ours, other] = [fleet.key("ours.nk").await, fleet.key("other.nk").await];
    fleet.run(&["push", "guest.wasm", &reference]).await.done();
    let host = fleet.host("a", &["--trust", &ours]);
    let unsigned = fleet.run(&["deploy"]).await.failed();
    assert_told(&unsigned, &["is not signed; this host runs what"]);

    // By two, one after the other: the second is added to the first.
    for key in ["other.nk", "ours.nk"] {
        let args = ["push", "guest.wasm", &reference, "--sign-key", key];
        fleet.run(&args).await.done();
    }
    let pulled = fleet.run(&["pull", &reference, "-o", "pulled.wasm"]).await;
    assert!(pulled.done().stderr.contains("2 signatures"));
    let text = std::fs::read_to_string(fleet.cli.path("pulled.wasm.sig")).unwrap();
    assert!(text.contains(&ours) && text.contains(&other), "{text}");
    let signed = fleet.run(&["deploy"]).await.done();
    assert_told(&signed, &[]);
    fleet.hosts_of("guest", |hosts| hosts == ["a"]).await;

    // On another machine, which has fetched nothing before.
    let fresh = ["deploy", "--cache", "fresh", "--locked", "--dry-run"];
    fleet.run(&fresh).await.done();
    let kept = std::fs::read_dir(fleet.cli.path("fresh/registry")).unwrap();
    let is_signature = |name: &str| name.ends_with(".wasm.sig");
    let names = kept.map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| is_signature(name)).count(), 1);
    host.stop();
    fleet.stop().await;
}

#[tokio::test]
async fn what_is_no_key_is_no_trust() {
    let fleet = Fleet::start(TWO).await;
    let key = fleet.key("a.nk").await;
    fleet.cli.write("empty", "# nobody\n");
    fleet.cli.write("wrong", "x\n");
    let typo = key.replacen('A', "B", 1);
    for (trust, told) in [
        ("empty", "--trust: empty has no public key".to_owned()),
        ("gone", "--trust: cannot read gone".to_owned()),
        ("wrong", "--trust: wrong: \"x\" is no public key".to_owned()),
        (&*typo, "is no public key; one has 56 letters".to_owned()),
    ] {
        let ran = fleet.run(&["host", "--trust", trust]).await;
        assert_eq!(ran.code, Some(78), "{ran:?}");
        assert_told(&ran, &[&told]);
    }
    let none = fleet.run(&["sign", "wrong", "guest.wasm"]).await;
    assert_eq!(none.code, Some(78), "{none:?}");
    assert_told(&none, &["wrong: it is no seed of an nkey"]);
    let gone = fleet.run(&["sign", "a.nk", "gone.wasm"]).await.failed();
    assert_told(&gone, &["cannot read gone.wasm"]);
    fleet.stop().await;
}
