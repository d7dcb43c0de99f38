//! The functions that the gateway serves by themselves, without a route.

use std::collections::BTreeMap;

use super::{Description, Plan};
use crate::interface::{FunctionId, InterfaceId};
use crate::manifest::{App, RpcPaths};
use crate::shape::Signature;

/// The functions that have an RPC path, with their types.
pub(crate) fn exposed(
    app: &App,
    plan: &Plan,
    components: &BTreeMap<String, Description>,
) -> BTreeMap<FunctionId, Signature> {
    let rpc: &RpcPaths = &app.gateway.rpc;
    let mut functions = BTreeMap::new();
    for (service, interfaces) in &plan.serves {
        let exports = components.get(service).map(|component| &component.exports);
        for (interface, names) in interfaces {
            let export = exports.into_iter().flatten();
            let mut export = export.filter(|export| export.id == *interface);
            let Some(export) = export.next().filter(|_| rpc.include(interface)) else {
                continue;
            };
            for name in names {
                if let Some(signature) = export.functions.get(name) {
                    functions.insert(interface.function(name), signature.clone());
                }
            }
        }
    }
    // What is external, and what nobody here subscribes to, has a path as well.
    let imports = components.values().flat_map(|component| &component.imports);
    for import in imports {
        let is_event = plan.event_wire(&import.id).is_some();
        for (name, signature) in &import.functions {
            let function = import.id.function(name);
            let is_known = functions.keys().any(|known: &FunctionId| {
                known.name == *name && known.interface.compatible(&import.id)
            });
            let has_path = is_event || plan.required.contains(&function);
            if !is_known && has_path && rpc.include(&import.id) {
                functions.insert(function, signature.clone());
            }
        }
    }
    for pipeline in &plan.pipelines {
        let interface: &InterfaceId = &pipeline.function.interface;
        if rpc.include(interface) {
            functions.insert(pipeline.function.clone(), pipeline.signature.clone());
        }
    }
    functions
}
