//! The targets of log records.

/// Output and log records of guests.
pub(crate) const GUEST: &str = "guest";

/// Requests at the gateway.
pub(crate) const GATEWAY: &str = "gateway";

/// Requests at the admin address.
pub(crate) const ADMIN: &str = "admin";
