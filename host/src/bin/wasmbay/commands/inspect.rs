//! `wasmbay inspect`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::ValueHint;
use serde_json::json;
use wasmbay::interfaces::grant_of;
use wasmbay::manifest::{FILE_NAME, Manifest, Reference};
use wasmbay::runtime::{Component, ComponentError};
use wasmbay::shape::InterfaceDescription;
use wasmparser::{KnownCustom, Parser, Payload};
use wit_component::{DecodedWasm, WitPrinter};

use crate::args::Cache;
use crate::progress::Progress;
use crate::project::{Job, Source, build, manifest_in};
use crate::registries::{Pulling, Pulls, file_of};
use crate::report::{self, Exit, Failures, STRONG, Terminal, failure, plain, table};

/// Bytes of one page of linear memory.
const PAGE: u64 = 64 << 10;

/// Show what a component offers and needs
///
/// Prints the component's world as WIT, its functions, what it expects of the host, its size,
/// digest and memory, and what made it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay inspect payment.wasm
  wasmbay inspect guests/go/payment  a guest's folder, built first
  wasmbay inspect payment            a service of this folder's app
  wasmbay inspect payment --output json | jq -r .digest")]
pub(crate) struct Inspect {
    /// A component's file, a guest's folder, a service of the manifest, or oci://REGISTRY/NAME:TAG
    #[arg(value_name = "FILE|FOLDER|SERVICE|REFERENCE", value_hint = ValueHint::AnyPath)]
    target: PathBuf,
    /// The manifest that has the service
    #[arg(long, value_name = "FILE", default_value = "wasmbay.toml", value_hint = ValueHint::FilePath)]
    manifest: PathBuf,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    pulling: Pulling,
}

pub(super) async fn run(args: Inspect, terminal: &Terminal) -> anyhow::Result<Exit> {
    let pulls = args.pulling.with(&args.cache, &Progress::new(*terminal));
    let file = component_file(&args.target, &args.manifest, &pulls, terminal).await?;
    let bytes = std::fs::read(&file).map_err(|source| ComponentError::Read {
        path: file.clone(),
        source,
    })?;
    let engine = args.cache.looking_engine()?;
    let in_file = || file.display().to_string();
    let component = Component::new(&engine, &bytes).with_context(in_file)?;
    // The text format is for what people write by hand; it is read as its binary form.
    let binary = wat::parse_bytes(&bytes).with_context(in_file)?;
    let about = About {
        file: &file,
        wit: wit(&binary).unwrap_or_else(|| written(&component)),
        producers: producers(&binary),
        component: &component,
    };
    if terminal.json() {
        terminal.result_json(&about.json())?;
    } else {
        terminal.result(about.text())?;
    }
    Ok(Exit::Done)
}

/// The file of what was named: a file, a folder, which is built, a service, or something in a registry.
pub(super) async fn component_file(
    target: &Path,
    manifest: &Path,
    pulls: &Pulls,
    terminal: &Terminal,
) -> anyhow::Result<PathBuf> {
    if target.is_file() {
        return Ok(target.to_owned());
    }
    let name = target.to_string_lossy();
    if Reference::is_meant(&name) {
        return file_of(&name, pulls).await;
    }
    if target.is_dir() && !target.join(FILE_NAME).is_file() {
        return source(&name, target, terminal);
    }
    let manifest = manifest_in(manifest);
    if !manifest.is_file() {
        return Err(failure(
            format!("there is no file, folder or service `{name}` here"),
            format!("`--manifest FILE` names an app's {FILE_NAME}"),
        ));
    }
    let read = Manifest::load(&manifest)?;
    if let Some(component) = read.components.get(&*name) {
        return source(&name, component, terminal);
    }
    if let Some(reference) = read.references.get(&*name) {
        let wanted = BTreeMap::from([(name.into_owned(), reference.clone())]);
        let (mut files, errors) = pulls.resolve(&manifest, &read.references, &wanted).await?;
        let file = files.pop_first().map(|(_, file)| file);
        return file.ok_or_else(|| Failures(errors).into());
    }
    let services: Vec<_> = read.app.services.keys().map(String::as_str).collect();
    Err(failure(
        format!("there is no file, folder or service `{name}`"),
        format!(
            "the services of {} are {}",
            read.app.name,
            services.join(", ")
        ),
    ))
}

/// The component's file, built first if it is a folder.
fn source(name: &str, component: &Path, terminal: &Terminal) -> anyhow::Result<PathBuf> {
    let source = Source::of(component)?;
    if let Source::Guest(guest) = &source {
        let job = Job {
            name: name.to_owned(),
            root: guest.folder.clone(),
            guest: guest.clone(),
        };
        let (_, errors) = build(vec![job], &Progress::new(*terminal));
        report::all_of((), errors).map_err(|error| match error.downcast::<Failures>() {
            Ok(Failures(mut errors)) if errors.len() == 1 => errors.remove(0),
            Ok(failures) => failures.into(),
            Err(error) => error,
        })?;
    }
    Ok(source.file())
}

/// The component's world and the packages it refers to, without those of WASI, which are
/// published.
fn wit(binary: &[u8]) -> Option<String> {
    // A component that was not made by the usual tools may not name its types; it runs all the
    // same.
    let Ok(DecodedWasm::Component(resolve, world)) = wit_component::decode(binary) else {
        return None;
    };
    let main = resolve.worlds.get(world)?.package?;
    let others = resolve
        .packages
        .iter()
        .filter(|(id, package)| *id != main && package.name.namespace != "wasi");
    let others: Vec<_> = others.map(|(id, _)| id).collect();
    let mut printer = WitPrinter::default();
    printer.print(&resolve, main, &others).ok()?;
    let text = printer.output.to_string();
    // The printer sets the packages apart by no empty line, or by two.
    let text = text.trim_end().replace("\n}\npackage", "\n}\n\npackage");
    Some(text.replace("\n\n\npackage", "\n\npackage"))
}

/// The world as far as wiring knows it.
fn written(component: &Component) -> String {
    let mut lines = vec!["world root {".to_owned()];
    lines.extend(
        component
            .host_imports
            .iter()
            .map(|name| format!("  import {name};")),
    );
    for (direction, interfaces) in [
        ("import", &component.imports),
        ("export", &component.exports),
    ] {
        for InterfaceDescription { id, functions, .. } in interfaces {
            lines.push(format!("  {direction} {id}: interface {{"));
            lines.extend(
                functions
                    .iter()
                    .map(|(name, ty)| format!("    {name}: {ty};")),
            );
            lines.push("  }".to_owned());
        }
    }
    lines.extend(
        component
            .http
            .iter()
            .map(|name| format!("  export {name};")),
    );
    lines.extend(
        component
            .messages
            .iter()
            .map(|handler| format!("  export {};", handler.interface.id)),
    );
    lines.push("}".to_owned());
    lines.join("\n")
}

/// Interfaces as `wasi:io@0.2.6: error, poll`, so that a runtime's thirty are a few lines.
fn by_package(names: &[String]) -> Vec<String> {
    let mut packages: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for name in names {
        let (path, version) = name.split_once('@').unwrap_or((name, ""));
        let (package, interface) = path.split_once('/').unwrap_or((path, ""));
        let at = if version.is_empty() { "" } else { "@" };
        packages
            .entry(format!("{package}{at}{version}"))
            .or_default()
            .push(interface);
    }
    let line = |(package, interfaces): (String, Vec<&str>)| {
        let grants = granted_by(names.iter().filter(|name| {
            let (path, version) = name.split_once('@').unwrap_or((name, ""));
            let of = path.split_once('/').map_or(path, |(package, _)| package);
            package == format!("{of}{}{version}", if version.is_empty() { "" } else { "@" })
        }));
        match &grants[..] {
            [] => format!("{package}: {}", interfaces.join(", ")),
            grants => format!(
                "{package}: {} (granted by {})",
                interfaces.join(", "),
                grants.join(", ")
            ),
        }
    };
    packages.into_iter().map(line).collect()
}

/// The keys of `grants` that these imports need.
fn granted_by<'a>(names: impl Iterator<Item = &'a String>) -> Vec<&'static str> {
    let grants = names.filter_map(|name| grant_of(name));
    let grants: BTreeSet<_> = grants.flat_map(|grant| grant.split(", ")).collect();
    grants.into_iter().collect()
}

/// Tools, libraries and languages with their versions, by field.
type Producers = BTreeMap<String, BTreeMap<String, String>>;

/// What made the component and the modules in it.
fn producers(binary: &[u8]) -> Producers {
    let mut all = Producers::new();
    // Broken sections say nothing about the component; whole ones before them do.
    for payload in Parser::new(0).parse_all(binary).map_while(Result::ok) {
        if let Payload::CustomSection(section) = payload
            && let KnownCustom::Producers(fields) = section.as_known()
        {
            for field in fields.into_iter().map_while(Result::ok) {
                let values = field.values.into_iter().map_while(Result::ok);
                let values = values.map(|value| (value.name.to_owned(), value.version.to_owned()));
                all.entry(field.name.to_owned()).or_default().extend(values);
            }
        }
    }
    all
}

struct About<'a> {
    file: &'a Path,
    component: &'a Component,
    wit: String,
    producers: Producers,
}

impl About<'_> {
    fn text(&self) -> String {
        let Self { component, .. } = self;
        let mut rows = vec![
            row("file", plain(&self.file.display().to_string())),
            row("digest", format!("sha256:{}", component.digest)),
            row("size", report::size(component.size as u64)),
        ];
        if let Some(needs) = component.resources_required() {
            let pages = needs.max_initial_memory_size.unwrap_or_default();
            let memories =
                report::count(needs.num_memories as usize, "memory").replace("memorys", "memories");
            rows.push(row(
                "memory",
                format!("{} at the start, in {memories}", kib(pages)),
            ));
        }
        // The language is that of the runtime, so for a script it says little.
        let tools = self
            .producers
            .iter()
            .filter(|(field, _)| *field != "language");
        let tools: Vec<_> = tools
            .flat_map(|(_, values)| values)
            .map(|(name, version)| format!("{name} {version}").trim_end().to_owned())
            .collect();
        if !tools.is_empty() {
            rows.push(row("made by", plain(&tools.join(", "))));
        }
        let mut text = table(&rows);
        let http = component.http.as_ref();
        let sections = [
            ("Answers for", functions(&component.exports)),
            ("Answers HTTP as", http.into_iter().cloned().collect()),
            (
                "Handles raw messages as",
                component
                    .messages
                    .iter()
                    .map(|m| m.interface.id.to_string())
                    .collect(),
            ),
            (
                "Exports what is never called",
                component.uncalled.iter().map(ToString::to_string).collect(),
            ),
            ("Needs from other services", functions(&component.imports)),
            ("Needs from the host", by_package(&component.host_imports)),
            (
                "Needs what this host does not provide",
                component.missing.iter().map(ToString::to_string).collect(),
            ),
        ];
        for (title, lines) in sections {
            if !lines.is_empty() {
                text.push_str(&format!(
                    "\n\n{STRONG}{title}{STRONG:#}\n  {}",
                    plain(&lines.join("\n  "))
                ));
            }
        }
        text.push_str(&format!("\n\n{STRONG}WIT{STRONG:#}\n{}", plain(&self.wit)));
        text
    }

    fn json(&self) -> serde_json::Value {
        let Self { component, .. } = self;
        let needs = component.resources_required();
        json!({
            "file": self.file,
            "digest": component.digest,
            "size": component.size,
            "memory": needs.as_ref().map(|needs| json!({
                "initialBytes": needs.max_initial_memory_size.unwrap_or_default() * PAGE,
                "memories": needs.num_memories,
                "tables": needs.num_tables,
                "initialTableElements": needs.max_initial_table_size,
            })),
            "producers": self.producers,
            "exports": described(&component.exports),
            "imports": described(&component.imports),
            "hostImports": component.host_imports,
            "grants": granted_by(component.host_imports.iter()),
            "missing": component.missing.iter().map(|missing| json!({
                "interface": missing.interface,
                "instead": missing.instead,
            })).collect::<Vec<_>>(),
            "http": component.http,
            "uncalled": component.uncalled.iter().map(|one| &one.export).collect::<Vec<_>>(),
            "messages": component.messages.as_ref().map(|m| m.interface.id.to_string()),
            "wit": self.wit,
        })
    }
}

fn row(name: &str, value: String) -> Vec<String> {
    vec![name.to_owned(), value]
}

fn kib(pages: u64) -> String {
    match pages * 64 {
        kib if kib >= 1024 => format!("{:.1} MiB", pages as f64 / 16.0),
        kib => format!("{kib} KiB"),
    }
}

/// Interfaces with their functions' names; their types are easier to read in the WIT.
fn functions(interfaces: &[InterfaceDescription]) -> Vec<String> {
    let of = |InterfaceDescription { id, functions, .. }: &InterfaceDescription| {
        let names: Vec<_> = functions.keys().map(String::as_str).collect();
        format!("{id}: {}", names.join(", "))
    };
    interfaces.iter().map(of).collect()
}

fn described(interfaces: &[InterfaceDescription]) -> Vec<serde_json::Value> {
    let of = |interface: &InterfaceDescription| {
        let functions = interface.functions.iter();
        let functions: serde_json::Map<_, _> = functions
            .map(|(name, ty)| (name.clone(), ty.to_string().into()))
            .collect();
        json!({ "interface": interface.id.to_string(), "functions": functions })
    };
    interfaces.iter().map(of).collect()
}
