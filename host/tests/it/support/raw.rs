//! A connection to a `nats-server` that sends bytes as they are given: what no client library lets
//! through, and any program can send.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::DEADLINE;

pub(crate) struct Raw {
    stream: TcpStream,
    received: Vec<u8>,
}

/// `PUB`, or `HPUB` with headers.
pub(crate) fn publication(subject: &[u8], reply: &str, headers: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = match headers {
        [] => b"PUB ".to_vec(),
        _ => b"HPUB ".to_vec(),
    };
    bytes.extend_from_slice(subject);
    bytes.extend_from_slice(format!(" {reply}").as_bytes());
    if !headers.is_empty() {
        bytes.extend_from_slice(format!(" {}", headers.len()).as_bytes());
    }
    bytes.extend_from_slice(format!(" {}\r\n", headers.len() + body.len()).as_bytes());
    bytes.extend_from_slice(headers);
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

impl Raw {
    /// Logs in with the login of the URL, if it has one.
    pub(crate) async fn connect(url: &str) -> Self {
        let url = url.strip_prefix("nats://").unwrap();
        let (login, address) = url.rsplit_once('@').unwrap_or(("", url));
        let login = match login.split_once(':') {
            Some((user, pass)) => format!(r#""user":"{user}","pass":"{pass}","#),
            None => String::new(),
        };
        let mut raw = Self {
            stream: TcpStream::connect(address).await.unwrap(),
            received: Vec::new(),
        };
        let connect = format!(
            "CONNECT {{{login}\"verbose\":false,\"headers\":true,\"no_responders\":true,\"protocol\":1}}\r\n"
        );
        raw.send(connect.as_bytes()).await;
        raw.settled().await;
        raw
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Waits until the server has processed what was sent; returns all that came until then.
    pub(crate) async fn settled(&mut self) -> String {
        self.send(b"PING\r\n").await;
        let arrived = async {
            // The server asks for a sign of life too, at any time.
            while !self.received.windows(6).any(|bytes| bytes == b"PONG\r\n") {
                assert_ne!(self.stream.read_buf(&mut self.received).await.unwrap(), 0);
            }
        };
        tokio::time::timeout(DEADLINE, arrived).await.unwrap();
        String::from_utf8_lossy(&std::mem::take(&mut self.received)).into_owned()
    }
}

/// Lets a client in as a server would, and says nothing more.
pub(crate) async fn let_in(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let info = b"INFO {\"server_id\":\"x\",\"max_payload\":1000}\r\n";
    stream.write_all(info).await.unwrap();
    let mut received = Vec::new();
    while !received.ends_with(b"PING\r\n") {
        assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0);
    }
    stream.write_all(b"PONG\r\n").await.unwrap();
    stream
}
