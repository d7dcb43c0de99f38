//! Devices that speak MQTT with the listener of nats-server: they get the events of a wire and publish them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use async_nats::jetstream;
use tokio::task::spawn_blocking;

use crate::support::apps::{Services, start};
use crate::support::components::{PUBLISHES, RETURNS_ERROR};
use crate::support::nats::Configured;
use crate::support::until_ok;

/// A client of others.
struct Device {
    process: Child,
    said: BufReader<ChildStdout>,
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Device {
    fn start(url: &str, topic: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let node = root.join("../.tools/bin/node-mqtt");
        assert!(node.exists(), "no MQTT: run `guests/tools.sh mqtt`");
        let mut process = Command::new(node)
            .arg(root.join("tests/it/mqtt.mjs"))
            .args([url, topic])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        let mut device = Self { process, said };
        device.until("subscribed");
        device
    }

    fn until(&mut self, expected: &str) {
        loop {
            let mut line = String::new();
            self.said.read_line(&mut line).unwrap();
            assert!(!line.is_empty(), "the client ended before {expected:?}");
            if line.trim_end() == expected {
                return;
            }
        }
    }

    fn publish(&mut self, quality: u8, body: &str) {
        let input = self.process.stdin.as_mut().unwrap();
        writeln!(input, "{quality} {body}").unwrap();
        self.until(&format!("published {body}"));
    }
}

const TOPIC: &str = "bay/app/test/events/sink/v1/happened";

#[tokio::test]
async fn a_device_gets_events_of_a_wire_and_publishes_them() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let lines = format!("server_name: devices\nmqtt {{ listen: \"127.0.0.1:{port}\" }}");
    let nats = Configured::start(&lines).await;
    let wire = "[wire.\"test:events/sink\"]\nmode = \"event\"\n";
    let durable = format!("{wire}durable = true\n");
    for wire in [wire, &durable] {
        let components = [("publisher", PUBLISHES, ""), ("sink", RETURNS_ERROR, "")];
        let host = start(nats.url(), &Services(&components, wire)).await;
        let client = async_nats::connect(nats.url()).await.unwrap();
        let handled = async || {
            let info = client.request("$SRV.STATS.sink", "".into()).await.unwrap();
            let info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
            info["endpoints"][0]["num_requests"].as_u64().unwrap()
        };
        let url = format!("mqtt://127.0.0.1:{port}");
        let mut device = spawn_blocking(move || Device::start(&url, TOPIC))
            .await
            .unwrap();

        // What a component publishes reaches the device.
        let published = client.request(
            "bay.app.test.publisher.api.v1.publish",
            r#"{"key":1,"n":2}"#.into(),
        );
        assert_eq!(published.await.unwrap().payload, r#"{"ok":null}"#);
        let mut device = spawn_blocking(move || {
            device.until(&format!("got {{\"key\":1,\"n\":2}} on {TOPIC}"));
            // And what the device publishes reaches the component.
            device.publish(0, r#"{"key":2,"n":3}"#);
            device.publish(1, r#"{"key":3,"n":4}"#);
            device
        })
        .await
        .unwrap();
        until_ok("the component has handled all three", async || {
            let count = handled().await;
            if count == 3 { Ok(()) } else { Err(count) }
        })
        .await;
        // What is no event of the type harms nobody.
        let mut device = spawn_blocking(move || {
            device.publish(1, "no JSON");
            device.publish(1, r#"{"key":4,"n":5}"#);
            device
        })
        .await
        .unwrap();
        until_ok("the last one is handled", async || {
            let count = handled().await;
            if count >= 4 { Ok(()) } else { Err(count) }
        })
        .await;
        if wire == durable {
            let context = jetstream::new(client.clone());
            let mut stream = context
                .get_stream("bay_app_test_events_sink_v1")
                .await
                .unwrap();
            assert_eq!(stream.info().await.unwrap().state.messages, 5);
        }
        let _ = &mut device;
        host.stop(crate::support::DEADLINE).await;
    }
}
