//! Every difference between two specifications of an app, setting by setting: what a person has to know
//! before a deploy. Pure.
//!
//! An app is written as its manifest is, with every default, so the two texts are compared and no
//! setting can be forgotten here. What an app does not say itself, its components and what they import,
//! comes from their descriptions. [`changes`](super::changes) has the same in a few lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::manifest::{App, Specification};
use crate::plan::Description;
use crate::text::one_line;

/// Bytes of a value in a text for people.
const MAX_SHOWN: usize = 100;

/// Tables of a service whose values are not shown: they may be secrets.
const HIDDEN: [&str; 2] = ["config", "env"];

/// Stands for a value that is not shown.
const NOT_SHOWN: &str = "(not shown)";

/// A specification and the descriptions of its components.
#[derive(Clone, Copy, Debug)]
pub struct Specified<'a> {
    /// The specification.
    pub specification: &'a Specification,
    /// The component of each service.
    pub components: &'a BTreeMap<String, Description>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// What it is a difference of: `service payment`, `route GET /products`, `gateway`.
    pub part: String,
    /// The setting, such as `limits.memory`, `grants.http` or `import`; nothing for all of the part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setting: Option<String>,
    /// The value before; nothing for what is added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// The value now; nothing for what is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match (&self.from, &self.to) {
            (None, _) => '+',
            (_, None) => '-',
            (Some(_), Some(_)) => '~',
        };
        match &self.setting {
            Some(setting) => write!(f, "    {sign} {setting}")?,
            None => write!(f, "{sign} {}", self.part)?,
        }
        match (&self.from, &self.to) {
            (Some(from), Some(to)) if from == to => write!(f, " {}", shown(to)),
            (Some(from), Some(to)) => write!(f, " {} → {}", shown(from), shown(to)),
            (Some(value), None) | (None, Some(value)) if !value.is_null() => {
                write!(f, " {}", shown(value))
            }
            _ => Ok(()),
        }
    }
}

/// Differences as lines, those of a part below it.
#[must_use]
pub fn lines(differences: &[Difference]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut part = "";
    for difference in differences {
        if difference.part != part && difference.setting.is_some() {
            lines.push(format!("~ {}", difference.part));
        }
        part = &difference.part;
        lines.push(difference.to_string());
    }
    lines
}

/// The differences between what is deployed and what is to be, part by part.
#[must_use]
pub fn differences(from: Option<Specified<'_>>, to: Option<Specified<'_>>) -> Vec<Difference> {
    let (before, now) = (parts(from), parts(to));
    let mut found = Vec::new();
    for part in before.keys().chain(now.keys()).collect::<BTreeSet<_>>() {
        let mut compared = Compared {
            part: part.to_string(),
            found: Vec::new(),
        };
        let (before, now) = (before.get(part), now.get(part));
        match (before, now) {
            // Every app has one, so it neither comes nor goes.
            _ if *part == Part::Gateway => {
                let usual = part.usual();
                compared.values("", before.unwrap_or(&usual), now.unwrap_or(&usual));
            }
            (Some(_), None) => compared.note(None, Some(Value::Null), None),
            (None, Some(now)) => {
                compared.note(None, None, Some(Value::Null));
                compared.values("", &part.usual(), now);
            }
            (Some(before), Some(now)) => compared.values("", before, now),
            (None, None) => {}
        }
        found.extend(compared.found);
    }
    found
}

/// A part of an app that is there or not; in the order in which they are shown.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Service(String),
    Wire(String),
    Stream(String),
    Pipeline(String),
    Route(String),
    Gateway,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service {name}"),
            Self::Wire(interface) => write!(f, "wire {interface}"),
            Self::Stream(name) => write!(f, "stream {name}"),
            Self::Pipeline(name) => write!(f, "pipeline {name}"),
            Self::Route(label) => write!(f, "route {label}"),
            Self::Gateway => f.write_str("gateway"),
        }
    }
}

impl Part {
    /// What a new one is compared with, so that only what was chosen is shown of it.
    fn usual(&self) -> Value {
        let usual = r#"{ "name": "usual", "service": { "usual": {} } }"#;
        let app = serde_json::from_str::<App>(usual).ok();
        let app = app.and_then(|app| serde_json::to_value(app).ok());
        let usual = |path| app.as_ref().and_then(|app| app.pointer(path)).cloned();
        let usual = match self {
            Self::Service(_) => usual("/service/usual"),
            Self::Gateway => usual("/gateway"),
            Self::Wire(_) | Self::Stream(_) | Self::Pipeline(_) | Self::Route(_) => None,
        };
        usual.unwrap_or_default()
    }
}

/// The parts of a specification, each as its manifest has it.
fn parts(of: Option<Specified<'_>>) -> BTreeMap<Part, Value> {
    let Some(Specified {
        specification,
        components,
    }) = of
    else {
        return BTreeMap::new();
    };
    // Writing an app does not fail: its keys are texts.
    let app = serde_json::to_value(&specification.app).unwrap_or_default();
    let mut parts = BTreeMap::new();
    for (table, part) in [
        ("service", Part::Service as fn(String) -> Part),
        ("wire", Part::Wire),
        ("stream", Part::Stream),
        ("pipeline", Part::Pipeline),
    ] {
        let entries = app.get(table).and_then(Value::as_object);
        let entries = entries.into_iter().flatten();
        parts.extend(entries.map(|(name, value)| (part(name.clone()), value.clone())));
    }
    for route in &specification.app.routes {
        let value = serde_json::to_value(route).unwrap_or_default();
        parts.insert(Part::Route(route.label()), value);
    }
    let gateway = app.get("gateway").cloned();
    parts.insert(Part::Gateway, gateway.unwrap_or_default());
    for (service, digest) in &specification.components {
        let Some(Value::Object(value)) = parts.get_mut(&Part::Service(service.clone())) else {
            continue;
        };
        value.insert("component".to_owned(), digest.short().into());
        if let Some(description) = components.get(service) {
            let ids = |of: &[crate::shape::InterfaceDescription]| -> Value {
                of.iter().map(|one| one.id.to_string()).collect()
            };
            value.insert("import".to_owned(), ids(&description.imports));
            value.insert("export".to_owned(), ids(&description.exports));
        }
    }
    parts
}

/// The differences of one part.
struct Compared {
    part: String,
    found: Vec<Difference>,
}

impl Compared {
    fn note(&mut self, setting: Option<&str>, from: Option<Value>, to: Option<Value>) {
        self.found.push(Difference {
            part: self.part.clone(),
            setting: setting.map(str::to_owned),
            from,
            to,
        });
    }

    fn values(&mut self, path: &str, from: &Value, to: &Value) {
        if from == to {
            return;
        }
        let table = path.split('.').next().unwrap_or_default();
        let is_hidden = HIDDEN.contains(&table) && path != table;
        let there = |value: &Value| match value {
            Value::Null => None,
            _ if is_hidden => Some(NOT_SHOWN.into()),
            value => Some(value.clone()),
        };
        let (before, now) = (by_name(from), by_name(to));
        let (from, to) = match (&before, &now) {
            // The order of steps is a difference of its own.
            (Some(before), Some(now)) if before != now => (before, now),
            _ => (from, to),
        };
        match (from, to) {
            (Value::Object(_) | Value::Null, Value::Object(_))
            | (Value::Object(_), Value::Null) => {
                self.objects(path, from.as_object(), to.as_object());
            }
            (Value::Array(from), Value::Array(to)) if is_set(from) && is_set(to) => {
                let gone = from.iter().filter(|value| !to.contains(value));
                let came = to.iter().filter(|value| !from.contains(value));
                let (gone, came): (Vec<_>, Vec<_>) = (gone.collect(), came.collect());
                if gone.is_empty() && came.is_empty() {
                    // In another order, which may mean something.
                    let (from, to) = (from.clone().into(), to.clone().into());
                    self.note(Some(path), Some(from), Some(to));
                }
                for value in gone {
                    self.note(Some(path), Some(value.clone()), None);
                }
                for value in came {
                    self.note(Some(path), None, Some(value.clone()));
                }
            }
            (Value::Null, Value::Array(values)) if is_set(values) => {
                for value in values {
                    self.note(Some(path), None, Some(value.clone()));
                }
            }
            (Value::Array(values), Value::Null) if is_set(values) => {
                for value in values {
                    self.note(Some(path), Some(value.clone()), None);
                }
            }
            _ => self.note(Some(path), there(from), there(to)),
        }
    }

    fn objects(
        &mut self,
        path: &str,
        from: Option<&Map<String, Value>>,
        to: Option<&Map<String, Value>>,
    ) {
        let both = from.into_iter().chain(to);
        let keys: BTreeSet<String> = both.flat_map(Map::keys).cloned().collect();
        for key in keys {
            let value = |of: Option<&Map<String, Value>>| {
                let value = of.and_then(|of| of.get(&key));
                value.cloned().unwrap_or_default()
            };
            let inner = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            self.values(&inner, &value(from), &value(to));
        }
    }
}

/// An array of tables with names, such as the steps of a pipeline, by these names.
fn by_name(value: &Value) -> Option<Value> {
    let named = |value: &Value| Some((value.get("name")?.as_str()?.to_owned(), value.clone()));
    let tables = value.as_array().filter(|tables| !tables.is_empty())?;
    let tables = tables.iter().map(named).collect::<Option<Map<_, _>>>()?;
    Some(Value::Object(tables))
}

/// Whether an array is one of names, whose elements come and go each by itself.
fn is_set(values: &[Value]) -> bool {
    values.iter().all(Value::is_string)
}

/// A value as one bounded line.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    one_line(&text, MAX_SHOWN).into_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::manifest::{Digest, Manifest};
    use crate::shape::InterfaceDescription;

    type Side = (Specification, BTreeMap<String, Description>);

    fn side(text: &str, component: &[u8], imports: &[&str]) -> Side {
        let text = format!("name = \"a\"\n{text}");
        let manifest = Manifest::parse(Path::new("wasmbay.toml"), &text).unwrap();
        let services = manifest.app.services.keys();
        let digests = services.map(|name| (name.clone(), Digest::of(component)));
        let specification = Specification::new(manifest.app.clone(), digests.collect()).unwrap();
        let imports = imports.iter().map(|id| InterfaceDescription {
            id: id.parse().unwrap(),
            functions: BTreeMap::new(),
            types: BTreeMap::new(),
        });
        let description = Description {
            imports: imports.collect(),
            ..Description::default()
        };
        let services = specification.app.services.keys();
        let described = services.map(|name| (name.clone(), description.clone()));
        let described = described.collect();
        (specification, described)
    }

    fn told(from: Option<&Side>, to: Option<&Side>) -> Vec<String> {
        fn of(side: &Side) -> Specified<'_> {
            Specified {
                specification: &side.0,
                components: &side.1,
            }
        }
        lines(&differences(from.map(of), to.map(of)))
    }

    const X: &str = "[service.x]\ncomponent = \"x.wasm\"\n";

    #[test]
    fn the_same_is_no_difference() {
        let one = side(X, b"1", &["a:b/c@1.0.0"]);
        assert!(told(Some(&one), Some(&one)).is_empty());
    }

    #[test]
    fn every_setting_of_a_service_is_told() {
        let old = side(
            &format!(
                "{X}config = {{ key = \"old secret\", gone = 1 }}\ngrants = {{ http = [\"a.com\", \"b.com\"] }}"
            ),
            b"1",
            &["a:b/c@1.0.0", "a:b/old@1.0.0"],
        );
        let new = side(
            &format!(
                "{X}config = {{ key = \"new secret\" }}\nlimits = {{ memory = \"64MiB\" }}\ngrants = {{ http = [\"b.com\", \"c.com\"], keyvalue = true }}"
            ),
            b"2",
            &["a:b/c@1.0.0", "a:b/new@1.0.0"],
        );
        let (first, second) = (Digest::of(b"1"), Digest::of(b"2"));
        let component = format!("    ~ component {} → {}", first.short(), second.short());
        assert_eq!(
            told(Some(&old), Some(&new)),
            [
                "~ service x",
                &component,
                "    - config.gone (not shown)",
                "    ~ config.key (not shown)",
                "    - grants.http a.com",
                "    + grants.http c.com",
                "    + grants.keyvalue.replicas 1",
                "    + grants.keyvalue.size 64MiB",
                "    - import a:b/old@1.0.0",
                "    + import a:b/new@1.0.0",
                "    ~ limits.memory 128MiB → 64MiB",
            ]
        );
    }

    #[test]
    fn a_new_service_is_told_with_what_it_asks_for() {
        let old = side(X, b"1", &[]);
        let y = "[service.y]\ncomponent = \"y.wasm\"\ngrants = { http = [\"a.com\"] }\nenv = { TOKEN = \"secret\" }\n";
        let new = side(&format!("{X}{y}"), b"1", &[]);
        let component = format!("    + component {}", Digest::of(b"1").short());
        assert_eq!(
            told(Some(&old), Some(&new)),
            [
                "+ service y",
                &component,
                "    + env.TOKEN (not shown)",
                "    + grants.http a.com",
            ]
        );
        assert_eq!(told(Some(&new), Some(&old)), ["- service y"]);
        assert_eq!(told(Some(&old), None), ["- service x"]);
    }

    #[test]
    fn wires_streams_routes_and_the_gateway_are_told() {
        let old = side(
            &format!(
                "{X}[wire.\"a:b/c\"]\nmode = \"event\"\ndurable = true\n[[route]]\nmethod = \"GET\"\npath = \"/p\"\ncall = \"a:b/c.d\"\n"
            ),
            b"1",
            &[],
        );
        let new = side(
            &format!(
                "{X}[wire.\"a:b/c\"]\nmode = \"event\"\ndurable = true\nretry = {{ attempts = 9 }}\n[wire.\"a:b/d\"]\nexternal = true\n[stream.s]\nsubjects = [\"s.>\"]\n[[route]]\nmethod = \"GET\"\npath = \"/p\"\ncall = \"a:b/c.e\"\n[[route]]\nmethod = \"PUT\"\npath = \"/p\"\ncall = \"a:b/c.d\"\n[gateway]\nhosts = [\"a.example\"]\n"
            ),
            b"1",
            &[],
        );
        let told = told(Some(&old), Some(&new));
        for line in [
            "~ wire a:b/c",
            "    ~ retry.attempts 5 → 9",
            "+ wire a:b/d",
            "    + external true",
            "+ stream s",
            "    + subjects s.>",
            "~ route GET /p",
            "    ~ call a:b/c.d → a:b/c.e",
            "+ route PUT /p",
            "~ gateway",
            "    + hosts a.example",
        ] {
            assert!(told.iter().any(|one| one == line), "{line}: {told:#?}");
        }
        let back = self::told(Some(&new), Some(&old));
        for line in ["- wire a:b/d", "- stream s", "- route PUT /p"] {
            assert!(back.iter().any(|one| one == line), "{line}: {back:#?}");
        }
    }
}
