//! `wasmbay new`.

use serde_json::json;
use wasmbay::build::scaffold;
use wasmbay::manifest::FILE_NAME;

use super::shown;
use crate::args::New;
use crate::report::{Exit, STRONG, Terminal};

pub(super) fn run(args: New, terminal: &Terminal) -> anyhow::Result<Exit> {
    let New { name, lang, path } = args;
    let added = path.join(FILE_NAME).is_file();
    let files = scaffold(lang, &name, &path)?;
    if terminal.json() {
        terminal
            .result_json(&json!({ "name": name, "language": lang.to_string(), "files": files }))?;
        return Ok(Exit::Done);
    }
    for file in &files {
        let verb = if added && file.ends_with(FILE_NAME) {
            "extended"
        } else {
            "wrote"
        };
        terminal.say(format_args!("{verb:8} {}", shown(file)));
    }
    let app = if added { path } else { path.join(&name) };
    let up = match shown(&app).as_str() {
        "." | "" => "wasmbay up".to_owned(),
        app => format!("wasmbay up {app}"),
    };
    terminal.say(format_args!(
        "\n{STRONG}Next:{STRONG:#}\n  {up}\n  curl http://127.0.0.1:8080/{name}/you"
    ));
    Ok(Exit::Done)
}
