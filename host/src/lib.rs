//! wasmbay
