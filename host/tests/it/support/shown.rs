//! The commands that a document shows, and the output that it shows for them.

use super::http::request;

/// A `curl` command of a document's console block.
#[derive(Debug)]
pub(crate) struct Curl {
    /// The line of the document.
    pub(crate) line: String,
    pub(crate) path: String,
    pub(crate) json: Option<String>,
    /// Whether the headers are part of the output.
    pub(crate) headers: bool,
    /// The output in the document; `…` stands for any text.
    pub(crate) printed: String,
}

/// The `curl` commands of a document's console blocks, in order.
pub(crate) fn curls(document: &str) -> Vec<Curl> {
    let blocks = document.split("```console\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap());
    let commands = blocks.flat_map(|block| block.split("$ ").skip(1));
    commands
        .filter(|command| command.starts_with("curl "))
        .map(curl)
        .collect()
}

fn curl(command: &str) -> Curl {
    // A quoted argument may go over several lines.
    let mut quoted = false;
    let end = command.find(|c| {
        quoted ^= c == '\'';
        c == '\n' && !quoted
    });
    let (line, printed) = command.split_at(end.unwrap_or(command.len()));
    let (_, path) = line.split_once("http://127.0.0.1:8080").unwrap();
    let json = ["--json '", "-d '"]
        .iter()
        .find_map(|option| line.split_once(option))
        .map(|(_, json)| json.split('\'').next().unwrap().to_owned());
    Curl {
        path: path.split(' ').next().unwrap().to_owned(),
        json,
        headers: line.contains(" -i "),
        printed: printed.trim().to_owned(),
        line: line.to_owned(),
    }
}

impl Curl {
    /// Runs the command at another address, and compares the output.
    pub(crate) fn check(&self, address: &str) {
        let response = request(address, &self.path, self.json.as_deref()).unwrap();
        let printed = if self.headers {
            format!(
                "{}\n\n{}",
                response.head.replacen("HTTP/1.0", "HTTP/1.1", 1),
                response.body
            )
        } else {
            response.body
        };
        let mut rest = printed.as_str();
        for (index, part) in self.printed.split('…').enumerate() {
            let found = match index {
                0 => rest.starts_with(part).then_some(0),
                _ => rest.find(part),
            };
            let start = found.unwrap_or_else(|| {
                panic!(
                    "{}\nprints by the document\n{}\nand in fact\n{printed}",
                    self.line, self.printed
                )
            });
            rest = &rest[start + part.len()..];
        }
        assert!(
            rest.is_empty() || self.printed.ends_with('…'),
            "{} also prints {rest}",
            self.line
        );
    }
}
