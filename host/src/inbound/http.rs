//! The gateway.
use crate::app::Plan;
use crate::manifest::GatewaySpec;
use crate::outbound::Outbound;
use crate::service::Service;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
/// stub
pub struct Gateway;
impl Gateway {
    pub fn new(_: &str, _: GatewaySpec) -> Self {
        Self
    }
    pub fn set_routes(&self, _: &Plan, _: &BTreeMap<String, Arc<Service>>) {}
    pub fn close(&self) {}
    pub fn serve(
        self: Arc<Self>,
        _l: std::net::TcpListener,
        _o: Arc<dyn Outbound>,
        _c: async_nats::Client,
    ) -> impl Future<Output = ()> + Send + 'static {
        async {}
    }
}
