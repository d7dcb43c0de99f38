//! Uses sockets as the standard library has them, for tests of what is granted.

wit_bindgen::generate!({
    path: "../../../wit",
    world: "sockets",
    generate_all,
});

use std::io::{BufRead as _, BufReader, Error, Write as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};

use exports::bay::sockets::client::Guest;

struct Client;

export!(Client);

fn words(error: Error) -> String {
    format!("{:?}: {error}", error.kind())
}

impl Guest for Client {
    fn tcp(endpoint: String, line: String) -> Result<String, String> {
        let mut stream = TcpStream::connect(&endpoint).map_err(words)?;
        writeln!(stream, "{line}").map_err(words)?;
        let mut answer = String::new();
        BufReader::new(stream)
            .read_line(&mut answer)
            .map_err(words)?;
        Ok(answer.trim_end().to_owned())
    }

    fn udp(endpoint: String, text: String) -> Result<String, String> {
        let socket = UdpSocket::bind("0.0.0.0:0").map_err(words)?;
        socket.send_to(text.as_bytes(), &endpoint).map_err(words)?;
        let mut answer = [0; 1024];
        let (length, _) = socket.recv_from(&mut answer).map_err(words)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    }

    fn listen() -> Result<(), String> {
        TcpListener::bind("127.0.0.1:0").map(drop).map_err(words)
    }

    fn look_up(name: String) -> Result<Vec<String>, String> {
        let found = (name.as_str(), 0).to_socket_addrs().map_err(words)?;
        Ok(found.map(|one| one.ip().to_string()).collect())
    }
}
