//! Who is compared, and how each of them is started and called.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use crate::drive::{Body, Process, Report, Run, Target, run};
use crate::native::Shape;
use crate::process::Server;
use crate::{Options, guests};

/// What a NATS contestant is asked, and what it answers.
pub(crate) const ARGUMENTS: &str = r#"{"item":{"id":7,"text":"{pad}"}}"#;
pub(crate) const ITEM: &str = r#"{"id":7,"text":"{pad}"}"#;

/// By which way a contestant is called; those of one way are compared with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Nats,
    Gateway,
}

/// One row of the tables.
pub(crate) struct Contestant {
    pub(crate) name: String,
    pub(crate) way: Way,
    /// Whether the best of these is what the others are measured against.
    pub(crate) native: bool,
    target: Target,
    body: &'static str,
    expect: &'static str,
    /// The servers that it needs, by their place in [`Contest::servers`].
    servers: Vec<usize>,
}

/// Everything that runs.
pub(crate) struct Contest {
    pub(crate) contestants: Vec<Contestant>,
    servers: Vec<Server>,
    nats_pid: u32,
}

/// Starts the contestants that are wanted, each of them stopped until its turn.
pub(crate) struct Starter<'a> {
    options: &'a Options,
    nats: &'a str,
    /// For manifests.
    folder: &'a Path,
    contest: Contest,
}

/// A service of a manifest.
pub(crate) struct Service {
    name: &'static str,
    component: PathBuf,
    fresh: bool,
}

/// Services that call each other in a row, the first of them first.
struct ByWay {
    app: &'static str,
    /// How the way is called.
    of: &'static str,
    /// Names and guests.
    services: &'static [(&'static str, &'static str)],
}

const RELAY: ByWay = ByWay {
    app: "relay",
    of: "another",
    services: &[("relay", "rust/bench-relay"), ("bench", "rust/bench")],
};

const CHAIN: ByWay = ByWay {
    app: "chain",
    of: "two others",
    services: &[
        ("chain", "rust/bench-chain"),
        ("relay", "rust/bench-relay"),
        ("bench", "rust/bench"),
    ],
};

/// A tool of this checkout; without it what needs it is left out.
fn tool(name: &str) -> Option<PathBuf> {
    let program = guests::root().join(".tools/bin").join(name);
    if !program.exists() {
        eprintln!("{name} is left out; `guests/tools.sh {name}` installs it");
        return None;
    }
    Some(program)
}

impl<'a> Starter<'a> {
    pub(crate) fn start(
        options: &'a Options,
        nats: &'a str,
        nats_pid: u32,
        folder: &'a Path,
    ) -> anyhow::Result<Contest> {
        let mut starter = Self {
            options,
            nats,
            folder,
            contest: Contest {
                contestants: Vec::new(),
                servers: Vec::new(),
                nats_pid,
            },
        };
        starter.native()?;
        starter.rust()?;
        for way in [&RELAY, &CHAIN] {
            starter.by_way(way)?;
        }
        for (name, guest) in [
            ("wasmbay TypeScript", "typescript/bench"),
            ("wasmbay Go", "go/bench"),
            ("wasmbay Python", "python/bench"),
        ] {
            starter.guest(name, guest, false)?;
        }
        starter.http_component()?;
        starter.nestjs()?;
        for server in &starter.contest.servers {
            server.pause()?;
        }
        Ok(starter.contest)
    }

    /// The service in every shape, and the gateway in the two that are any good.
    fn native(&mut self) -> anyhow::Result<()> {
        let mut first = None;
        for shape in Shape::ALL {
            let name = format!("native {}", shape.as_str());
            let gateway = self.options.wants("native gateway") && shape == Shape::Current;
            if !self.options.wants(&name) && !gateway {
                continue;
            }
            let subject = name.replace(' ', ".");
            let role = ["native", shape.as_str(), self.nats, &subject];
            let server = self.server(Server::role(&name, role, shape.threads()?)?);
            first.get_or_insert((server, subject.clone()));
            self.over_nats(name, subject, true, vec![server]);
        }
        let Some((service, subject)) = first else {
            return Ok(());
        };
        for shape in [Shape::Cores, Shape::Multi] {
            let name = format!("native gateway {}", shape.as_str());
            if self.options.wants(&name) {
                let role = ["gateway", shape.as_str(), self.nats, &subject];
                let server = self.server(Server::role(&name, role, shape.threads()?)?);
                self.over_http(name, true, ARGUMENTS, "/", vec![server, service])?;
            }
        }
        Ok(())
    }

    /// The service in Rust, reused and fresh, by NATS and by the gateway.
    fn rust(&mut self) -> anyhow::Result<()> {
        let (reused, gateway) = ("wasmbay Rust", "wasmbay gateway, Rust");
        if self.options.wants(reused) || self.options.wants(gateway) {
            let bench = guests::component("rust/bench")?;
            let server = self.host("rust", &[Service::new("bench", bench)], "prefer")?;
            let subject = subject("rust", "echo");
            self.over_nats(reused.to_owned(), subject, false, vec![server]);
            self.over_http(gateway.to_owned(), false, ITEM, "/echo", vec![server])?;
        }
        let gateway = "wasmbay gateway, Rust, all over NATS";
        if self.options.wants(gateway) {
            let bench = guests::component("rust/bench")?;
            let server = self.host("remote", &[Service::new("bench", bench)], "never")?;
            self.over_http(gateway.to_owned(), false, ITEM, "/echo", vec![server])?;
        }
        self.guest("wasmbay Rust, fresh", "rust/bench", true)
    }

    /// A service whose every call calls others, in the process and over NATS.
    fn by_way(&mut self, way: &ByWay) -> anyhow::Result<()> {
        let ByWay { app, of, services } = way;
        for (local, after) in [("prefer", ""), ("never", ", all over NATS")] {
            let app = &format!("{app}-{local}");
            let names = ["wasmbay Rust", "wasmbay gateway, Rust"];
            let names = names.map(|name| format!("{name} by way of {of}{after}"));
            if !names.iter().any(|name| self.options.wants(name)) {
                continue;
            }
            let [by_nats, by_gateway] = names;
            let built = services.iter().map(|(name, guest)| {
                let component = guests::component(guest)?;
                Ok(Service::new(name, component))
            });
            let built = built.collect::<anyhow::Result<Vec<_>>>()?;
            let server = self.host(app, &built, local)?;
            let Some(first) = built.first().map(Service::function) else {
                continue;
            };
            self.over_nats(by_nats, subject(app, first), false, vec![server]);
            self.over_http(by_gateway, false, ITEM, &format!("/{first}"), vec![server])?;
        }
        Ok(())
    }

    /// The service in one language, by NATS.
    fn guest(&mut self, name: &str, folder: &str, fresh: bool) -> anyhow::Result<()> {
        if !self.options.wants(name) {
            return Ok(());
        }
        let component = guests::component(folder)?;
        let app = name.to_lowercase().replace([' ', ','], "-");
        let service = Service {
            fresh,
            ..Service::new("bench", component)
        };
        let server = self.host(&app, &[service], "prefer")?;
        self.over_nats(name.to_owned(), subject(&app, "echo"), false, vec![server]);
        Ok(())
    }

    /// A component that takes HTTP itself, behind the gateway and in wasmtime's own server. Neither has
    /// NATS in the way.
    fn http_component(&mut self) -> anyhow::Result<()> {
        let own = "wasmbay gateway, HTTP component";
        if self.options.wants(own) {
            let service = Service::new("http", guests::component("rust/bench-http")?);
            let server = self.host("http", &[service], "prefer")?;
            self.over_http(own.to_owned(), false, ARGUMENTS, "/", vec![server])?;
        }
        let other = "wasmtime serve, HTTP component";
        if self.options.wants(other)
            && let Some(program) = tool("wasmtime")
        {
            let component = guests::component("rust/bench-http")?;
            let mut command = Command::new(program);
            command
                .args(["serve", "-Scli", "--addr", "127.0.0.1:0"])
                .arg(component);
            let server = self.server(Server::serve(other, &mut command)?);
            self.over_http(other.to_owned(), false, ARGUMENTS, "/", vec![server])?;
        }
        Ok(())
    }

    /// What many people run today.
    fn nestjs(&mut self) -> anyhow::Result<()> {
        let (name, gateway) = ("NestJS", "NestJS gateway, NestJS");
        if !self.options.wants(name) {
            return Ok(());
        }
        let Some(node) = tool("nestjs") else {
            return Ok(());
        };
        let script = guests::root().join("host/benches/compare/nestjs.mjs");
        let start = |name: &str, role: &str| {
            let mut command = Command::new(&node);
            command.arg(&script).args([role, self.nats, "nestjs.echo"]);
            Server::start(name, &mut command, 1)
        };
        let (service, front) = (start(name, "service")?, start(gateway, "gateway")?);
        let service = self.server(service);
        self.add(Contestant {
            name: name.to_owned(),
            way: Way::Nats,
            native: false,
            target: self.subject("nestjs.echo"),
            body: r#"{"pattern":"nestjs.echo","data":{"item":{"id":7,"text":"{pad}"}},"id":"1"}"#,
            expect: r#"{"response":{"id":7,"text":"{pad}"},"isDisposed":true,"id":"1"}"#,
            servers: vec![service],
        });
        let front = self.server(front);
        self.over_http(
            gateway.to_owned(),
            false,
            ARGUMENTS,
            "/",
            vec![front, service],
        )
    }

    /// A wasmbay host for these services, with a gateway; `local` as a wire has it.
    fn host(&mut self, app: &str, services: &[Service], local: &str) -> anyhow::Result<usize> {
        let path = self.folder.join(format!("{app}.toml"));
        fs::write(&path, manifest(app, services, local)?)?;
        let path = path.display().to_string();
        let role = [
            "serve",
            "--manifest",
            &path,
            "--nats",
            self.nats,
            "--gateway",
        ];
        let server = Server::role(&format!("wasmbay host of {app}"), role, 1)?;
        Ok(self.server(server))
    }

    fn server(&mut self, server: Server) -> usize {
        self.contest.servers.push(server);
        self.contest.servers.len() - 1
    }

    fn subject(&self, subject: &str) -> Target {
        Target::Nats {
            address: self.nats.trim_start_matches("nats://").to_owned(),
            subject: subject.to_owned(),
        }
    }

    fn over_nats(&mut self, name: String, subject: String, native: bool, servers: Vec<usize>) {
        if !self.options.wants(&name) {
            return;
        }
        self.add(Contestant {
            name,
            way: Way::Nats,
            native,
            target: self.subject(&subject),
            body: ARGUMENTS,
            expect: ITEM,
            servers,
        });
    }

    fn over_http(
        &mut self,
        name: String,
        native: bool,
        body: &'static str,
        path: &str,
        servers: Vec<usize>,
    ) -> anyhow::Result<()> {
        if !self.options.wants(&name) {
            return Ok(());
        }
        let server = servers.first().and_then(|at| self.contest.servers.get(*at));
        let address = server
            .and_then(|server| server.address)
            .context("no gateway")?;
        self.add(Contestant {
            name,
            way: Way::Gateway,
            native,
            target: Target::Http {
                address: address.to_string(),
                path: path.to_owned(),
            },
            body,
            expect: ITEM,
            servers,
        });
        Ok(())
    }

    fn add(&mut self, contestant: Contestant) {
        eprintln!("  {} is ready", contestant.name);
        self.contest.contestants.push(contestant);
    }
}

impl Service {
    pub(crate) fn new(name: &'static str, component: PathBuf) -> Self {
        Self {
            name,
            component,
            fresh: false,
        }
    }

    /// Its function, which has the name of its interface.
    fn function(&self) -> &'static str {
        match self.name {
            "bench" => "echo",
            name => name,
        }
    }
}

/// The subject of a function that has the name of its interface.
pub(crate) fn subject(app: &str, function: &str) -> String {
    format!("bay.{app}.bay.bench.{function}.v1.{function}")
}

pub(crate) fn manifest(app: &str, services: &[Service], local: &str) -> anyhow::Result<String> {
    let mut text = format!("name = \"{app}\"\n");
    for service in services {
        let Service {
            name,
            component,
            fresh,
        } = service;
        let component = component.display();
        // Every one of the load's calls is let in at once, as it is by the others.
        writeln!(
            text,
            "[service.{name}]\ncomponent = \"{component}\"\nlimits = {{ concurrency = 256 }}"
        )?;
        if *fresh {
            writeln!(text, "reuse = 1")?;
        }
        if *name == "http" {
            writeln!(text, "[[route]]\npath = \"/*\"\nservice = \"http\"")?;
            continue;
        }
        let function = service.function();
        writeln!(
            text,
            "[[route]]\nmethod = \"POST\"\npath = \"/{function}\"\ncall = \"bay:bench/{function}.{function}\"\n\
             [wire.\"bay:bench/{function}\"]\nlocal = \"{local}\""
        )?;
    }
    Ok(text)
}

impl Contest {
    /// Measures one contestant while all others are stopped.
    pub(crate) fn measure(
        &self,
        contestant: &Contestant,
        payload: usize,
        concurrency: usize,
        duration: Duration,
    ) -> anyhow::Result<Report> {
        let servers = || {
            contestant
                .servers
                .iter()
                .filter_map(|at| self.servers.get(*at))
        };
        let mut processes = vec![Process {
            name: "nats-server".to_owned(),
            pid: self.nats_pid,
        }];
        processes.extend(servers().map(|server| Process {
            name: "contestant".to_owned(),
            pid: server.pid(),
        }));
        let body = Body::new(contestant.body, payload)?;
        servers().try_for_each(Server::resume)?;
        let report = run(&Run {
            target: contestant.target.clone(),
            method: "POST".to_owned(),
            expect: Some(body.padded(contestant.expect)),
            body: body.bytes,
            concurrency,
            duration,
            warm_up: duration / 4,
            processes,
        });
        servers().try_for_each(Server::pause)?;
        report.with_context(|| format!("measuring {}", contestant.name))
    }
}
