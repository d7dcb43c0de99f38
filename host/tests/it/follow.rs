//! Clients of the gateway that follow events of a real nats-server.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use wasmbay::host::{Host, HostOptions};
use wasmbay::nats::ConnectOptions;

use crate::support::apps::{Services, start_with};
use crate::support::components::PUBLISHES;
use crate::support::http::send;
use crate::support::nats::Nats;
use crate::support::{DEADLINE, until_ok};

const ROUTES: &str = r#"
[[route]]
method = "POST"
path = "/events"
call = "test:publisher/api.publish"
[[route]]
method = "GET"
path = "/events/{key}"
events = "test:events/sink.happened"
filter = { key = "key" }
[gateway]
rate = { requests = 1000 }
[wire."test:events/sink"]
mode = "event"
"#;

struct Bench {
    nats: Nats,
    host: Host,
    address: SocketAddr,
}

async fn bench(lines: &str) -> Bench {
    let nats = Nats::start().await;
    let options = HostOptions {
        gateway: Some("127.0.0.1:0".parse().unwrap()),
        ..HostOptions::new(ConnectOptions::to(nats.url()))
    };
    let lines = format!("{ROUTES}{lines}");
    let services = Services(&[("publisher", PUBLISHES, "")], &lines);
    let host = start_with(options, &services).await;
    let address = host.gateway().unwrap();
    Bench {
        nats,
        host,
        address,
    }
}

/// A client that follows, as a browser does: what it gets, what of that was not read yet, and the id that it began
/// with.
struct Client(Incoming, String, Option<u64>);

impl Client {
    async fn follow(bench: &Bench, key: u32, last: Option<u64>) -> Self {
        let stream = TokioIo::new(TcpStream::connect(bench.address).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::get(format!("/events/{key}")).header(HOST, "test");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut client = Self(response.into_body(), String::new(), None);
        let first = client.until("retry: 2000\n\n").await;
        client.2 = ids(&first).first().copied();
        client
    }

    /// Reads until this has come; returns all since the last time.
    async fn until(&mut self, end: &str) -> String {
        let reading = async {
            while !self.1.contains(end) {
                let frame = self.0.frame().await.unwrap().unwrap();
                self.1 += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
            }
        };
        timeout(DEADLINE, reading).await.unwrap();
        std::mem::take(&mut self.1)
    }
}

impl Bench {
    async fn publish(&self, key: u32, n: u32) {
        let address = self.address.to_string();
        let body = format!("{{\"key\":{key},\"n\":{n}}}");
        let sent = tokio::task::spawn_blocking(move || {
            send(&address, "POST", "/events", &[], &body).unwrap()
        });
        let response = sent.await.unwrap();
        assert_eq!(response.status, 204, "{response:?}");
    }

    async fn end(self) {
        self.host.stop(DEADLINE).await;
        self.nats.stop().await;
    }
}

/// The ids of frames.
fn ids(text: &str) -> Vec<u64> {
    let ids = text.lines().filter_map(|line| line.strip_prefix("id: "));
    ids.map(|id| id.parse().unwrap()).collect()
}

fn data(key: u32, n: u32) -> String {
    format!("data: {{\"key\":{key},\"n\":{n}}}\n\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_goes_on_where_it_was() {
    for order in ["", "order-by = \"key\"\n"] {
        let bench = bench(&format!("durable = true\n{order}")).await;
        bench.publish(7, 0).await;
        let mut client = Client::follow(&bench, 7, None).await;
        bench.publish(8, 1).await;
        bench.publish(7, 2).await;
        // What was before is not for who begins now.
        let text = client.until(&data(7, 2)).await;
        assert_eq!(text.matches("data: ").count(), 1, "{text}");
        let last = ids(&text)[0];
        drop(client);
        for n in 3..40 {
            bench.publish(7 + n % 2, n).await;
        }
        let mut client = Client::follow(&bench, 7, Some(last)).await;
        let text = client.until(&data(7, 38)).await;
        let even: String = (4..40).step_by(2).map(|n| data(7, n)).collect();
        let shown = text.split_inclusive('\n');
        let shown: String = shown.filter(|line| !line.starts_with("id: ")).collect();
        assert_eq!(shown, even);
        let numbers = ids(&text);
        assert!(numbers.is_sorted() && numbers[0] > last);
        bench.publish(7, 41).await;
        client.until(&data(7, 41)).await;
        // From the beginning of what is stored.
        let mut all = Client::follow(&bench, 7, Some(0)).await;
        assert!(all.until(&data(7, 2)).await.contains(&data(7, 0)));
        let stopping = tokio::spawn(bench.end());
        assert!(client.until("\n\n").await.starts_with("event: end\ndata: "));
        stopping.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_got_nothing_goes_on_where_it_began() {
    let bench = bench("durable = true\n").await;
    bench.publish(8, 0).await;
    let client = Client::follow(&bench, 7, None).await;
    let began = client.2;
    drop(client);
    bench.publish(7, 1).await;
    let mut client = Client::follow(&bench, 7, began).await;
    assert_eq!(client.2, began);
    client.until(&data(7, 1)).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_not_stored_are_followed_as_they_come() {
    let bench = bench("").await;
    let mut client = Client::follow(&bench, 7, Some(1)).await;
    bench.publish(8, 1).await;
    bench.publish(7, 2).await;
    let text = client.until(&data(7, 2)).await;
    assert_eq!(text, data(7, 2));
    drop(client);
    // Its subscription goes with it.
    let client = bench.nats.connect().await;
    until_ok("nothing is subscribed any more", async || {
        let subject = "bay.app.test.events.sink.v1.happened";
        let request = client.request(subject, "{}".into()).await;
        request.map_or(Ok(()), |reply| Err(format!("{reply:?}")))
    })
    .await;
    bench.end().await;
}
