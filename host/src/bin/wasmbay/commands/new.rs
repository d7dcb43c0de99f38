//! `wasmbay new`.

use std::path::PathBuf;

use clap::ValueHint;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use serde_json::json;
use wasmbay::build::{Language, scaffold};
use wasmbay::manifest::FILE_NAME;

use super::shown;
use crate::report::{Exit, STRONG, Terminal};

/// Write a new service
///
/// The service greets, builds, runs and passes its tests as it is. In the folder of an app it is added to the app,
/// anywhere else it gets an app of its own.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay new --lang rust hello
  wasmbay new --lang python forecast --path examples/shop")]
pub(crate) struct New {
    /// The service's name: words of lowercase letters and digits joined by `-`
    name: String,
    /// The language: rust, go, typescript, javascript, python or c
    #[arg(long, value_name = "LANG", value_parser = language())]
    lang: Language,
    /// The folder to write to
    #[arg(long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    path: PathBuf,
}

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
    let folder = match shown(&app).as_str() {
        "." | "" => String::new(),
        app => format!(" {app}"),
    };
    terminal.say(format_args!(
        "\n{STRONG}Next:{STRONG:#}\n  wasmbay test{folder}\n  wasmbay up{folder}\n  curl http://127.0.0.1:8080/{name}/you"
    ));
    Ok(Exit::Done)
}

fn language() -> impl TypedValueParser<Value = Language> {
    let value = |name: &'static str, aliases: &'static [&'static str]| {
        PossibleValue::new(name).aliases(aliases)
    };
    let values = [
        value("rust", &["rs"]),
        value("go", &["golang"]),
        value("typescript", &["ts"]),
        value("javascript", &["js"]),
        value("python", &["py"]),
        value("c", &["c++", "cpp"]),
    ];
    PossibleValuesParser::new(values).try_map(|text| text.parse::<Language>())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Args, Verb};

    #[test]
    fn every_language_can_be_named() {
        for language in Language::ALL {
            let args = ["wasmbay", "new", "--lang", &language.to_string(), "x"];
            let Some(Verb::New(new)) = Args::parse_from(args).verb else {
                panic!("{language}")
            };
            assert_eq!(new.lang, language);
        }
    }
}
