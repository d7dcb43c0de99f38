//! Durable functions, checked by their types: each is a pipeline without steps of its own. Its steps are the
//! calls that the function makes.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::filled::find;
use super::roots::{Known, KnownStep, Scope};
use super::{Check, Filled, Pipeline, PipelineProblem, Root, StepCall, millis, sides};
use crate::interface::{FunctionId, InterfaceId};
use crate::manifest::{
    ActSpec, CallSpec, DurableFunction, DurableSpec, OnError, PipelineSpec, Place, ServiceSpec,
    StepSpec,
};
use crate::plan::{Described, PlanError, Publication, Wiring, events};
use crate::shape::{InterfaceDescription, Shape, Signature};
use crate::subject;
use crate::text::did_you_mean;

/// The roots of paths in an undo: the arguments of the call and its result.
const ROOTS: [&str; 2] = ["args", "result"];

/// The root of a call's arguments, before the call is made; see [`Filled::of_call`].
const ARGUMENTS: usize = 0;

/// A function whose calls of others are steps of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Durable {
    /// The service that exports it.
    pub service: String,
    /// What it may call. A run keeps of these what it has called.
    #[serde(skip)]
    pub imports: Vec<Import>,
}

/// A function that durable ones may call.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Import {
    /// The subject of its calls, or the first part of those of its events.
    pub subject: String,
    /// How it is called; without arguments.
    pub call: StepCall,
    /// What undoes it, with paths into the call's arguments and result.
    pub undo: Option<StepCall>,
}

/// Why a function cannot be durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurableProblem {
    /// The service does not export it.
    #[error("`durable`: it does not export {function}{suggestion}")]
    NotExported {
        /// The function.
        function: Box<FunctionId>,
        /// The nearest of its functions, as the end of a sentence.
        suggestion: String,
    },
    /// Another service answers it.
    #[error("`durable`: a wire has {0} answered elsewhere; leave one of the two out")]
    NotServed(Box<FunctionId>),
    /// It is an event.
    #[error(
        "`durable`: {0} is wired as events, which are tried again by their stream; accepted: a function that is called"
    )]
    Event(Box<InterfaceId>),
    /// Some importer calls it past its runs.
    #[error(
        "`durable`: a service has chosen this one for {0} in its `wire`, and would call it past its runs; remove that wire"
    )]
    Chosen(Box<InterfaceId>),
    /// Something else has runs of the same name.
    #[error(
        "`durable`: the runs of {function} would have the name \"{name}\", as those of another have; rename one"
    )]
    Name {
        /// The function.
        function: Box<FunctionId>,
        /// The name.
        name: String,
    },
    /// An undo of what is not called.
    #[error("`undo`: it does not import {function}{suggestion}")]
    NotImported {
        /// The function.
        function: Box<FunctionId>,
        /// The nearest imported function, as the end of a sentence.
        suggestion: String,
    },
    /// An undo that does not fit.
    #[error("`undo` of {function}: {problem}")]
    Undo {
        /// The function.
        function: Box<FunctionId>,
        /// Why.
        problem: Box<PipelineProblem>,
    },
}

impl Wiring<'_> {
    /// Plans the durable functions of the app; reports what is wrong with them.
    pub(in crate::plan) fn plan_durable(&self, errors: &mut Vec<PlanError>) -> Vec<Pipeline> {
        let mut planned = Vec::new();
        for spec in self.app.services.values() {
            let service = self
                .services
                .iter()
                .find(|service| service.name == spec.name);
            let (Some(durable), Some(service)) = (&spec.durable, service) else {
                continue;
            };
            let unknown = self.check_undos(spec, service);
            if !unknown.is_empty() {
                errors.extend(unknown);
                continue;
            }
            for function in &durable.functions {
                match self.plan_function(spec, durable, function, service) {
                    Ok(pipeline) => planned.push(pipeline),
                    Err(found) => errors.extend(found),
                }
            }
        }
        planned
    }

    /// Reports undos of what the service does not import.
    fn check_undos(&self, spec: &ServiceSpec, service: &Described<'_>) -> Vec<PlanError> {
        let imported = || functions(service.imports);
        let unknown = spec
            .undo
            .iter()
            .filter(|(wanted, _)| !imported().any(|(function, _)| is(&function, wanted)));
        let problem = |(wanted, call): (&FunctionId, &CallSpec)| {
            let names: Vec<_> = imported()
                .map(|(function, _)| function.to_string())
                .collect();
            let suggestion = did_you_mean(&wanted.to_string(), names.iter().map(String::as_str));
            let function = Box::new(wanted.clone());
            let problem = DurableProblem::NotImported {
                function,
                suggestion,
            };
            error(spec, &call.place, problem)
        };
        unknown.map(problem).collect()
    }

    fn plan_function(
        &self,
        spec: &ServiceSpec,
        durable: &DurableSpec,
        wanted: &DurableFunction,
        service: &Described<'_>,
    ) -> Result<Pipeline, Vec<PlanError>> {
        let refuse = |problem| vec![error(spec, &wanted.place, problem)];
        let (function, signature) = self.exported(wanted, service).map_err(refuse)?;
        let name = wanted.runs(&spec.name);
        if self.app.runs().filter(|(other, _)| *other == name).count() > 1 {
            let function = Box::new(function);
            return Err(refuse(DurableProblem::Name { function, name }));
        }
        let stand_in = PipelineSpec {
            name: name.clone(),
            place: wanted.place.clone(),
            implements: function.clone(),
            signature: None,
            steps: Vec::new(),
            result: None,
            bounds: durable.bounds.clone(),
        };
        let mut imports = Vec::new();
        let mut errors = Vec::new();
        for (imported, imported_type) in functions(service.imports) {
            let undo = spec.undo.iter().find(|(undone, _)| is(&imported, undone));
            let undo = match undo {
                None => None,
                Some((_, call)) => {
                    let types = (signature, imported_type);
                    match self.plan_undo(&stand_in, spec, &imported, types, call) {
                        Ok(undo) => Some(undo),
                        Err(found) => {
                            errors.extend(found);
                            continue;
                        }
                    }
                }
            };
            imports.push(self.import(spec, durable, imported, imported_type, undo));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Pipeline {
            name,
            function,
            signature: signature.clone(),
            steps: Vec::new(),
            result: None,
            deadline: millis(durable.bounds.deadline),
            keep: durable.bounds.keep.as_secs(),
            journal: durable.bounds.journal,
            durable: Some(Durable {
                service: spec.name.clone(),
                imports,
            }),
        })
    }

    /// The exported function that is meant, if calls of it can be runs.
    fn exported<'s>(
        &self,
        wanted: &DurableFunction,
        service: &Described<'s>,
    ) -> Result<(FunctionId, &'s Signature), DurableProblem> {
        let exported = || functions(service.exports);
        let found = exported().find(|(function, _)| is(function, &wanted.function));
        let Some((function, signature)) = found else {
            let names: Vec<_> = exported()
                .map(|(function, _)| function.to_string())
                .collect();
            let function = Box::new(wanted.function.clone());
            let wanted = wanted.function.to_string();
            let suggestion = did_you_mean(&wanted, names.iter().map(String::as_str));
            return Err(DurableProblem::NotExported {
                function,
                suggestion,
            });
        };
        let interface = &function.interface;
        if events(self.app, interface).is_some() {
            return Err(DurableProblem::Event(Box::new(interface.clone())));
        }
        let mut exporters = self.exporters.iter();
        if !exporters.any(|(name, export)| *name == service.name && export.id == *interface) {
            return Err(DurableProblem::NotServed(Box::new(function)));
        }
        let mut choices = self.app.services.values().flat_map(|spec| &spec.wires);
        if choices.any(|(wired, chosen)| chosen == service.name && interface.answers_to(wired)) {
            return Err(DurableProblem::Chosen(Box::new(interface.clone())));
        }
        Ok((function, signature))
    }

    fn import(
        &self,
        spec: &ServiceSpec,
        durable: &DurableSpec,
        function: FunctionId,
        signature: &Signature,
        undo: Option<StepCall>,
    ) -> Import {
        let app = &self.app.name;
        let subject = match spec.exporter_of(&function.interface) {
            Some(exporter) => subject::of_service_function(app, exporter, &function),
            None => subject::of_function(app, &function),
        };
        let wire = events(self.app, &function.interface);
        Import {
            subject,
            call: StepCall {
                event: wire.map(|wire| Publication::of(app, wire, &function, signature)),
                function,
                signature: signature.clone(),
                with: Filled::Object(Vec::new()),
                timeout: millis(durable.timeout),
                attempts: durable.retry.attempts,
                backoff: durable.retry.backoff.iter().copied().map(millis).collect(),
            },
            undo,
        }
    }

    /// Checks what undoes the calls of an imported function, which has the second of the two types.
    fn plan_undo(
        &self,
        stand_in: &PipelineSpec,
        spec: &ServiceSpec,
        imported: &FunctionId,
        (own, signature): (&Signature, &Signature),
        call: &CallSpec,
    ) -> Result<StepCall, Vec<PlanError>> {
        let (value, _) = sides(signature);
        let arguments = Known::new(Shape::Record(signature.params.clone()), false);
        let result = value.map(|shape| Known::new(shape.clone(), false));
        let known = [Some(arguments), result];
        let step = |(name, value): (&str, _)| KnownStep {
            name: name.to_owned(),
            group: None,
            value,
        };
        let mut check = Check {
            wiring: self,
            spec: stand_in,
            input: Shape::Record(own.params.clone()),
            steps: ROOTS.into_iter().zip(known).map(step).collect(),
            scope: Scope::default(),
            errors: Vec::new(),
        };
        let step = StepSpec {
            name: imported.to_string(),
            place: call.place.clone(),
            act: ActSpec::Call(call.clone()),
            when: None,
            group: None,
            each: None,
            on_error: OnError::Fail,
            error: None,
            undo: None,
        };
        let planned = check.call(&step, call, "");
        let explain = |found| match found {
            PlanError::Pipeline { place, problem, .. } => {
                let function = Box::new(imported.clone());
                error(spec, &place, DurableProblem::Undo { function, problem })
            }
            other => other,
        };
        planned.ok_or_else(|| check.errors.into_iter().map(explain).collect())
    }
}

impl Filled {
    /// The same for one call of a run: of the two roots that it was checked with, the first is the call's
    /// arguments, which are known, and the second its result, which is that of the step `index`.
    pub(crate) fn of_call(&self, arguments: &RawValue, index: usize) -> Option<Self> {
        Some(match self {
            Self::Path {
                of: Root::Step(ARGUMENTS),
                path,
                ..
            } => Self::constant(RawValue::from_string(find(arguments, path)?.to_owned()).ok()?),
            Self::Path {
                of: Root::Step(_),
                path,
                optional,
                some,
            } => Self::Path {
                of: Root::Step(index),
                path: path.clone(),
                optional: *optional,
                some: *some,
            },
            Self::Object(entries) => {
                let entries = entries.iter();
                let entries = entries
                    .map(|(key, value)| Some((key.clone(), value.of_call(arguments, index)?)));
                Self::Object(entries.collect::<Option<_>>()?)
            }
            Self::Array(items) => {
                let items = items.iter().map(|item| item.of_call(arguments, index));
                Self::Array(items.collect::<Option<_>>()?)
            }
            other => other.clone(),
        })
    }
}

fn error(spec: &ServiceSpec, place: &Place, problem: DurableProblem) -> PlanError {
    PlanError::Durable {
        place: place.clone(),
        service: spec.name.clone(),
        problem: Box::new(problem),
    }
}

fn functions(
    interfaces: &[InterfaceDescription],
) -> impl Iterator<Item = (FunctionId, &Signature)> {
    interfaces.iter().flat_map(|interface| {
        let functions = interface.functions.iter();
        functions.map(|(name, signature)| (interface.id.function(name), signature))
    })
}

/// Whether a function is the one that was typed, perhaps without a version.
fn is(function: &FunctionId, typed: &FunctionId) -> bool {
    function.name == typed.name && function.interface.answers_to(&typed.interface)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use crate::manifest::{App, Manifest};
    use crate::plan::{Description, Plan, plan};
    use crate::shape::InterfaceDescription;

    fn interface(id: &str, functions: &[(&str, &str)]) -> InterfaceDescription {
        let functions = functions.iter();
        InterfaceDescription {
            id: id.parse().unwrap(),
            functions: functions
                .map(|(name, signature)| ((*name).to_owned(), signature.parse().unwrap()))
                .collect(),
        }
    }

    fn components() -> BTreeMap<String, Description> {
        let stock = || {
            interface(
                "shop:stock/stock@1.2.0",
                &[
                    (
                        "reserve",
                        "func(order: string, count: u32) -> result<record { id: string }, string>",
                    ),
                    ("release", "func(id: string) -> result<_, string>"),
                ],
            )
        };
        let desk = Description {
            exports: vec![interface(
                "shop:desk/desk@1.0.0",
                &[
                    ("place", "func(id: string) -> result<string, string>"),
                    ("quote", "func() -> u32"),
                ],
            )],
            imports: vec![
                stock(),
                interface("shop:desk/events@1.0.0", &[("placed", "func(id: string)")]),
            ],
            ..Description::default()
        };
        let other = Description {
            exports: vec![stock()],
            ..Description::default()
        };
        [("desk", desk), ("stock", other)]
            .map(|(name, component)| (name.to_owned(), component))
            .into()
    }

    const EVENTS: &str = "[wire.'shop:desk/events']\nmode = 'event'\n";

    fn app(lines: &str, more: &str) -> App {
        let text = format!(
            "name = 'app'\n[service.stock]\ncomponent = 'stock'\n{more}[service.desk]\ncomponent = 'desk'\n{lines}\n{EVENTS}"
        );
        let read = Manifest::parse(Path::new("wasmbay.toml"), &text);
        read.unwrap_or_else(|error| panic!("{error}")).app
    }

    fn planned(lines: &str, more: &str) -> Result<Plan, String> {
        let plan = plan(&app(lines, more), &components());
        plan.map_err(|errors| {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            errors.join("\n")
        })
    }

    const PLACE: &str = "durable = ['shop:desk/desk.place']\n";

    #[test]
    fn a_durable_function_is_planned_with_what_it_calls() {
        let undo = "[service.desk.undo.'shop:stock/stock.reserve']\ncall = 'shop:stock/stock.release'\nwith = { id = '$result.id' }";
        let plan = planned(&format!("{PLACE}{undo}"), "").unwrap();
        let [pipeline] = &plan.pipelines[..] else {
            panic!()
        };
        assert_eq!(pipeline.name, "desk-place");
        let imports = &pipeline.durable.as_ref().unwrap().imports;
        let known: Vec<_> = imports
            .iter()
            .map(|import| {
                (
                    &*import.subject,
                    import.call.event.is_some(),
                    import.undo.is_some(),
                )
            })
            .collect();
        let expected = [
            ("bay.app.shop.stock.stock.v1.release", false, false),
            ("bay.app.shop.stock.stock.v1.reserve", false, true),
            ("bay.app.shop.desk.events.v1.placed", true, false),
        ];
        assert_eq!(known, expected);
    }

    #[test]
    fn it_is_written_and_read_as_part_of_an_app() {
        for lines in [
            PLACE,
            "durable = { functions = ['shop:desk/desk.place'], deadline = '5m', timeout = '2s', retry = { attempts = 2 } }\n\
             [service.desk.undo.'shop:stock/stock.reserve']\ncall = 'shop:stock/stock.release'\nwith = { id = '$args.order' }",
        ] {
            let app = app(lines, "");
            let written = serde_json::to_value(&app).unwrap();
            assert_eq!(serde_json::from_value::<App>(written).unwrap(), app);
        }
    }

    #[test]
    fn what_cannot_be_durable_is_refused_by_name() {
        let undo = |of: &str, call: &str, with: &str| {
            format!("{PLACE}[service.desk.undo.'{of}']\ncall = '{call}'\nwith = {with}")
        };
        let reserve = "shop:stock/stock.reserve";
        let release = "shop:stock/stock.release";
        for (lines, more, why) in [
            (
                "durable = ['shop:desk/desk.plac']".to_owned(),
                "",
                "wasmbay.toml:6:12: service \"desk\": `durable`: it does not export shop:desk/desk.plac; did you mean `shop:desk/desk.place@1.0.0`?",
            ),
            (
                PLACE.to_owned(),
                "[service.third]\ncomponent = 'third'\nwire = { 'shop:desk/desk' = 'desk' }\n",
                "would call it past its runs",
            ),
            (
                undo("shop:stock/stock.reserv", release, "{ id = '$result.id' }"),
                "",
                "service \"desk\": `undo`: it does not import shop:stock/stock.reserv",
            ),
            (
                undo(reserve, release, "{ id = '$args.count' }"),
                "",
                "wasmbay.toml:9:15: service \"desk\": `undo` of shop:stock/stock.reserve@1.2.0: `with.id`: `$args.count` is u32; expected string",
            ),
            (
                undo(reserve, release, "{ id = '$result.name' }"),
                "",
                "`$result` is record { id: string }, which has no `name`",
            ),
            (
                undo(reserve, release, "{ id = '$reserve.id' }"),
                "",
                "no step before this one has the name `reserve`",
            ),
        ] {
            let refused = planned(&lines, more).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn names_of_runs_are_told_apart() {
        let pipeline = "[pipeline.desk-place]\nimplements = 'shop:more/more.run'\ntype = 'func()'\n[[pipeline.desk-place.step]]\n\
                        name = 'a'\ncall = 'shop:stock/stock.release'\nwith = { id = 'x' }\n";
        let refused = planned(&format!("{PLACE}{pipeline}"), "").unwrap_err();
        assert!(
            refused.contains("would have the name \"desk-place\""),
            "{refused}"
        );
    }
}
