//! The app as a whole: its parts by name, read from one document and written as one.

use std::collections::BTreeMap;

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::file::{self, At, Section};
use super::keys::{self, app};
use super::{
    GatewaySpec, Grants, JobSpec, MAX_NAME, NestHandler, PipelineBounds, PipelineSpec, Problem,
    ProtoLock, Provider, Route, ServiceSpec, StreamSpec, Wire, gateway, jobs, nest, pipelines,
    routes, services, streams, wires,
};
use crate::interface::{InterfaceId, is_label};

/// A named set of services, wires and routes, as a manifest describes it.
///
/// It is written as a manifest is, without components, and read with the checks of one, so that one
/// from a store is worth as much as one from a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct App {
    /// The app's name: one token of a NATS subject.
    pub name: String,
    /// The services and jobs by name; never empty.
    #[serde(flatten, serialize_with = "by_kind")]
    pub services: BTreeMap<String, ServiceSpec>,
    /// Who answers which interface, where that was stated.
    #[serde(rename = "wire", serialize_with = "by_interface")]
    pub wires: Vec<Wire>,
    /// Subjects whose messages are stored.
    #[serde(rename = "stream", serialize_with = "by_name")]
    pub streams: Vec<StreamSpec>,
    /// Functions that are made of steps.
    #[serde(rename = "pipeline", serialize_with = "by_own_name")]
    pub pipelines: Vec<PipelineSpec>,
    /// What the gateway serves.
    #[serde(rename = "route")]
    pub routes: Vec<Route>,
    /// What clients of NestJS call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nest: Vec<NestHandler>,
    /// Where and how the gateway listens.
    pub gateway: GatewaySpec,
    /// The numbers of fields in gRPC, from the file beside the manifest.
    #[serde(rename = "proto-lock", skip_serializing_if = "ProtoLock::is_empty")]
    pub proto_lock: ProtoLock,
}

impl App {
    pub(super) fn read(top: &Section<'_>) -> Option<Self> {
        let is_name = |text: &str| {
            (1..=MAX_NAME).contains(&text.len())
                && text
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        };
        top.require(&app::NAME);
        let name = top.text_that(&app::NAME, is_name);

        let sections = top.named(&app::SERVICE, &keys::service::TABLE);
        // Names of services count as declared even if the service itself is refused, so that one
        // mistake is one message.
        let declared: Vec<&str> = sections.iter().map(|(name, _)| name.value).collect();
        let jobs = top.named(&app::JOB, &keys::job::TABLE);
        if top.is_empty(&app::SERVICE) && top.is_empty(&app::JOB) {
            let at = top.place(app::SERVICE.name).unwrap_or_default();
            top.report(
                at,
                "there is no service; add one: `[service.NAME]` with `component = \"…\"`",
            );
        }
        let app_name = name.as_ref().map_or("", |name| name.value);
        let streams = streams::read(top, app_name, &declared);
        let check_name = |name: &At<&str>, section: &Section<'_>, kind: &str| {
            if !is_label(name.value) || name.value.len() > MAX_NAME {
                section.report(name.at, format!(
                    "this is no name of a {kind}; accepted: words of letters and digits joined by `-`, starting with \
                     a letter, at most {MAX_NAME} characters"
                ));
            }
        };
        let mut services = BTreeMap::new();
        for (name, section) in &sections {
            check_name(name, section, "service");
            let read = services::read(name.value, section, &streams, &declared);
            services.insert(name.value.to_owned(), read);
        }
        for (name, section) in &jobs {
            check_name(name, section, "job");
            if services.contains_key(name.value) {
                section.report(name.at, "a service has this name; accepted: another name");
                continue;
            }
            let read = services::read_job(name.value, section, &streams, &declared);
            services.insert(name.value.to_owned(), read);
        }
        let wires = wires::read(top, &declared);
        let gateway = gateway::read(top);
        let routes = routes::read(top, &declared, gateway.auth.as_ref());
        let nest = nest::read(top);
        let pipelines = pipelines::read(top, &declared);
        let mut app = Self {
            name: name?.value.to_owned(),
            services,
            wires,
            streams,
            pipelines,
            routes,
            nest,
            gateway,
            proto_lock: ProtoLock::default(),
        };
        let replicas = app.replicas();
        for Grants {
            keyvalue,
            blobstore,
            ..
        } in app.services.values_mut().map(|spec| &mut spec.grants)
        {
            let keyvalue = keyvalue.iter_mut().map(|data| &mut data.replicas);
            let blobstore = blobstore.iter_mut().map(|data| &mut data.replicas);
            for copies in keyvalue.chain(blobstore) {
                if *copies == services::AS_WIRES {
                    *copies = replicas;
                }
            }
        }
        Some(app)
    }

    /// The jobs by name.
    pub fn jobs(&self) -> impl Iterator<Item = (&String, &ServiceSpec, &JobSpec)> {
        let services = self.services.iter();
        services.filter_map(|(name, spec)| Some((name, spec, spec.job.as_ref()?)))
    }

    /// What has runs, by the name of those: the pipelines and the durable functions, with the bounds of each.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (String, &PipelineBounds)> {
        let pipelines = self.pipelines.iter();
        let pipelines = pipelines.map(|pipeline| (pipeline.name.clone(), &pipeline.bounds));
        let functions = self.services.values().flat_map(|service| {
            let durable = service.durable.iter();
            durable.flat_map(|spec| {
                let functions = spec.functions.iter();
                functions.map(|durable| (durable.runs(&service.name), &spec.bounds))
            })
        });
        pipelines.chain(functions)
    }

    /// The wire that chooses for an interface; there is at most one.
    #[must_use]
    pub fn wire(&self, id: &InterfaceId) -> Option<&Wire> {
        let mut wires = self.wires.iter();
        wires.find(|wire| id.answers_to(&wire.interface))
    }

    /// Servers that keep a copy of what the whole app shares: as many as of its wire or stream with
    /// the most.
    #[must_use]
    pub fn replicas(&self) -> u8 {
        let of_wire = |wire: &Wire| match &wire.provider {
            Provider::Events(spec) => spec.durable.as_ref().map(|durable| durable.replicas),
            Provider::Exporter
            | Provider::Service(_)
            | Provider::External
            | Provider::Nest(_)
            | Provider::Grpc(_) => None,
        };
        let of_streams = self.streams.iter().map(|spec| spec.durable.replicas);
        let of_wires = self.wires.iter().filter_map(of_wire);
        let most = of_wires.chain(of_streams).max();
        most.unwrap_or(keys::wire::REPLICAS.values.default)
    }
}

/// Writes services and jobs, each under their own key.
fn by_kind<S: Serializer>(
    all: &BTreeMap<String, ServiceSpec>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let services: BTreeMap<_, _> = all.iter().filter(|(_, spec)| spec.job.is_none()).collect();
    let mut written = toml::Table::new();
    for (name, spec) in all {
        if let Some(job) = &spec.job {
            let table = jobs::written(spec, job).map_err(serde::ser::Error::custom)?;
            written.insert(name.clone(), table.into());
        }
    }
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry(app::SERVICE.name, &services)?;
    if !written.is_empty() {
        map.serialize_entry(app::JOB.name, &written)?;
    }
    map.end()
}

fn by_interface<S: Serializer>(wires: &[Wire], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(wires.iter().map(|wire| (&wire.interface, wire)))
}

fn by_name<S: Serializer>(streams: &[StreamSpec], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(streams.iter().map(|stream| (&stream.name, stream)))
}

fn by_own_name<S: Serializer>(
    pipelines: &[PipelineSpec],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pipelines.iter().map(|pipeline| (&pipeline.name, pipeline)))
}

impl<'de> Deserialize<'de> for App {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // By way of a text, since only that has the places which reading a manifest takes.
        let mut table = toml::Table::deserialize(deserializer)?;
        // No key of a manifest, which has it in a file of its own.
        let proto_lock = table.remove("proto-lock").map(ProtoLock::deserialize);
        let proto_lock = proto_lock.transpose().map_err(D::Error::custom)?;
        let text = table.to_string();
        let read = |top: &Section<'_>| {
            services::refuse_components(top);
            Self::read(top)
        };
        let messages = |problems: Vec<Problem>| {
            let messages: Vec<_> = problems
                .into_iter()
                .map(|problem| problem.message)
                .collect();
            D::Error::custom(messages.join("; "))
        };
        let app = file::read("app".as_ref(), &text, read).map_err(messages)?;
        Ok(Self {
            proto_lock: proto_lock.unwrap_or_default(),
            ..app
        })
    }
}
