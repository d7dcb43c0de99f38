//! Functions that gRPC services outside answer.

use std::collections::BTreeMap;

use super::{Plan, PlanError, Wiring, list, owned_nearest, suggestion};
use crate::interface::FunctionId;
use crate::manifest::{GrpcAddress, GrpcSpec, Provider, Wire};
use crate::shape::Signature;

/// A function that a method of gRPC answers.
#[derive(Clone, Debug, PartialEq)]
pub struct GrpcCalled {
    /// Where the service listens.
    pub address: GrpcAddress,
    /// The service's full name, where it is not that of the interface.
    pub service: Option<String>,
    /// The method's name, where it is not that of the function.
    pub method: Option<String>,
    /// The function's type.
    pub signature: Signature,
}

/// The functions that gRPC services outside answer.
pub type GrpcCalls = BTreeMap<FunctionId, GrpcCalled>;

/// A method is named for a function that nothing calls.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`methods`: nothing calls `{function}`{} (called are: {})", suggestion(.nearest), list(.called))]
pub struct GrpcProblem {
    /// The function.
    pub function: String,
    /// The nearest of those that are called.
    pub nearest: Option<String>,
    /// All of them.
    pub called: Vec<String>,
}

impl Wiring<'_> {
    /// Plans what gRPC services outside answer, after everything that calls.
    pub(super) fn plan_grpc(&self, plan: &mut Plan, errors: &mut Vec<PlanError>) {
        for wire in &self.app.wires {
            if let Provider::Grpc(spec) = &wire.provider {
                self.plan_grpc_wire(plan, wire, spec, errors);
            }
        }
    }

    fn plan_grpc_wire(
        &self,
        plan: &mut Plan,
        wire: &Wire,
        spec: &GrpcSpec,
        errors: &mut Vec<PlanError>,
    ) {
        let called = plan
            .required
            .iter()
            .filter(|function| function.interface.answers_to(&wire.interface));
        let called: Vec<_> = called.cloned().collect();
        for name in spec.methods.keys() {
            if called.iter().any(|function| function.name == *name) {
                continue;
            }
            let called: Vec<_> = called
                .iter()
                .map(|function| function.name.clone())
                .collect();
            let problem = GrpcProblem {
                function: name.clone(),
                nearest: owned_nearest(name, &called),
                called,
            };
            let interface = wire.interface.clone();
            errors.push(PlanError::Grpc { interface, problem });
        }
        for function in called {
            let Some(signature) = self.signature(&function) else {
                continue;
            };
            let called = GrpcCalled {
                address: spec.address.clone(),
                service: spec.service.clone(),
                method: spec.methods.get(&function.name).cloned(),
                signature: signature.clone(),
            };
            plan.grpc_calls.insert(function, called);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;
    use crate::plan::{Description, plan};
    use crate::shape::InterfaceDescription;

    fn planned(methods: &str) -> Result<Plan, Vec<PlanError>> {
        let text = format!(
            "name = 'app'\n[service.one]\ncomponent = 'x'\n[wire.'a:b/c']\nexternal = 'grpcs://pay:443'\nmethods = {{ {methods} }}\n"
        );
        let app = Manifest::parse("wasmbay.toml".as_ref(), &text).unwrap().app;
        let functions =
            ["get", "put"].map(|name| (name.to_owned(), "func(n: u8)".parse().unwrap()));
        let import = InterfaceDescription {
            id: "a:b/c@1.0.0".parse().unwrap(),
            functions: functions.into(),
            types: BTreeMap::new(),
        };
        let component = Description {
            imports: vec![import],
            ..Description::default()
        };
        plan(&app, &[("one".to_owned(), component)].into())
    }

    #[test]
    fn everything_that_is_called_over_the_wire_is_a_method() {
        let plan = planned("put = 'Store'").unwrap();
        let calls = plan.grpc_calls.iter();
        let calls: Vec<_> = calls
            .map(|(function, called)| (function.name.as_str(), called.method.as_deref()))
            .collect();
        assert_eq!(calls, [("get", None), ("put", Some("Store"))]);
    }

    #[test]
    fn a_method_of_nothing_is_refused() {
        let errors = planned("gett = 'Get'").unwrap_err();
        assert_eq!(
            errors[0].to_string(),
            "wire \"a:b/c\": `methods`: nothing calls `gett`; did you mean `get`? (called are: get, put)"
        );
    }
}
