//! Structs whose fields are the keys of a table.

/// Declares a struct whose fields are the keys of one table of [`keys`](super::keys): how it is read
/// and written, and its defaults. What stands after the semicolon are tables below this one: they are
/// read by others, and written if they are given.
macro_rules! settings {
    ($(#[$meta:meta])* pub struct $name:ident in $table:ident {
        $($(#[$doc:meta])* pub $field:ident: $type:ty = $key:ident,)*
        $(; $($(#[$below_doc:meta])* pub $below:ident: $below_type:ty = $below_key:ident,)*)?
    }) => {
        $(#[$meta])*
        pub struct $name {
            $($(#[$doc])* pub $field: $type,)*
            $($($(#[$below_doc])* pub $below: Option<$below_type>,)*)?
        }

        impl $name {
            /// Reads the table; what is not given is as in `usual`.
            fn read(section: &$crate::manifest::file::Section<'_>, usual: &Self) -> Self {
                use $crate::manifest::keys::$table::*;
                Self {
                    $($field: section.read(&$key, &usual.$field),)*
                    $($($below: usual.$below.clone(),)*)?
                }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                use $crate::manifest::{keys::$table::*, kinds::Setting as _};
                Self {
                    $($field: $key.values.default(),)*
                    $($($below: None,)*)?
                }
            }
        }

        impl $name {
            /// What is written of it: each key with its value.
            pub(in crate::manifest) fn written(&self) -> impl Iterator<Item = (&'static str, toml::Value)> {
                use $crate::manifest::{keys::$table::*, kinds::Setting as _};
                let entries = [
                    $(($key.name, $key.values.write(&self.$field)),)*
                    $($(($below_key.name, self.$below.as_ref().and_then(|below| toml::Value::try_from(below).ok())),)*)?
                ];
                entries.into_iter().filter_map(|(key, value)| Some((key, value?)))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.written())
            }
        }
    };
}
pub(super) use settings;
