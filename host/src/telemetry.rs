//! The names under which a host tells what it does: targets of log records.

/// What a guest prints or logs.
pub(crate) const GUEST: &str = "guest";

/// Requests at the gateway.
pub(crate) const GATEWAY: &str = "gateway";

/// Requests at the admin address.
pub(crate) const ADMIN: &str = "admin";
