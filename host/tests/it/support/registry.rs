//! Debian's registry on a free port, and one that answers whatever a test has it answer.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use tempfile::TempDir;

use super::DEADLINE;

/// Users and passwords of a registry that has some: `shop` and `secret`.
const HTPASSWD: &str = "shop:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A real registry, which ends with its test.
pub(crate) struct Registry {
    child: Child,
    address: String,
    _folder: TempDir,
}

fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../.tools/bin")
        .join(name);
    assert!(
        path.exists(),
        "there is no {name}: `guests/tools.sh registry` installs it"
    );
    path
}

impl Registry {
    /// One that anybody may use.
    pub(crate) fn open() -> Self {
        Self::start(&[])
    }

    /// One that wants a login.
    pub(crate) fn with_login() -> Self {
        Self::start(&[("auth", "htpasswd")])
    }

    /// One with TLS.
    pub(crate) fn with_tls() -> Self {
        Self::start(&[("tls", "")])
    }

    fn start(with: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/gateway/tls");
        let mut http = "{addr: '127.0.0.1:0'}".to_owned();
        let mut auth = String::new();
        for (what, _) in with {
            match *what {
                "tls" => {
                    let file = |name: &str| tls.join(name).display().to_string();
                    let (certificate, key) = (file("server.pem"), file("server.key"));
                    http = format!(
                        "{{addr: '127.0.0.1:0', tls: {{certificate: '{certificate}', key: '{key}'}}}}"
                    );
                }
                _ => {
                    std::fs::write(at("htpasswd"), HTPASSWD).unwrap();
                    auth = format!(
                        "auth: {{htpasswd: {{realm: test, path: '{}'}}}}\n",
                        at("htpasswd")
                    );
                }
            }
        }
        let store = at("store");
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: '{store}'}}}}\nhttp: {http}\n{auth}"
        );
        std::fs::write(at("config.yml"), config).unwrap();
        let mut child = Command::new(tool("docker-registry"))
            .args(["serve", &at("config.yml")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, said) = mpsc::channel();
        // Reads on, so that it does not wait for a reader.
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("listening on ") {
                    let end = address.find([',', '"', ' ']).unwrap_or(address.len());
                    let _ = sender.send(address[..end].to_owned());
                }
            }
        });
        let address = said.recv_timeout(DEADLINE).unwrap();
        Self {
            child,
            address,
            _folder: folder,
        }
    }

    /// Its host and port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The name of something in it.
    pub(crate) fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `oras`; returns what it prints.
pub(crate) fn oras(folder: &Path, args: &[&str]) -> String {
    let output = Command::new(tool("oras"))
        .args(args)
        .current_dir(folder)
        .env("HOME", folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A request as it arrived.
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    /// In lower case, as they were sent.
    headers: Vec<String>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// An answer: status, headers and a body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// The body comes again and again, without an end.
    pub(crate) endless: bool,
}

impl Answer {
    pub(crate) fn of(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            endless: false,
        }
    }

    pub(crate) fn with(mut self, header: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((header, value.into()));
        self
    }

    pub(crate) fn endless(mut self) -> Self {
        self.endless = true;
        self
    }
}

/// Answers requests without TLS for as long as the test runs; returns host and port.
pub(crate) fn answering(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        thread::scope(|scope| {
            for stream in listener.incoming().map_while(Result::ok) {
                scope.spawn(|| serve(stream, &answer));
            }
        });
    });
    address
}

/// One request of a connection; a client that goes is no error.
fn serve(stream: TcpStream, answer: &dyn Fn(&Asked) -> Answer) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    if reader.read_line(&mut line).is_err() {
        // What is no text is TLS, which other servers without it answer in the same way.
        let mut stream = stream;
        let refused = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
        return stream.write_all(refused).ok();
    }
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push(format!("{}: {value}", name.to_lowercase())),
            None => break,
        }
    }
    let mut asked = Asked {
        method,
        path,
        headers,
        body: Vec::new(),
    };
    let length = asked
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    reader.take(length).read_to_end(&mut asked.body).ok()?;
    let answer = answer(&asked);
    let mut stream = stream;
    let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !answer.endless && !head.contains("Content-Length") {
        head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    if asked.method == "HEAD" {
        return Some(());
    }
    loop {
        stream.write_all(&answer.body).ok()?;
        if !answer.endless {
            return Some(());
        }
    }
}
