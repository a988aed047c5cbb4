//! The files as they are written: the one home of key names, shapes and their descriptions.
//!
//! The JSON Schemas for editors are generated from these types, and files are checked against the same schemas before
//! they become values of these types. Nearly every field is optional here: a required one carries
//! `schemars(required)`, its absence is reported with a position, and checking goes on without it. Elements of
//! the long lists are `Option` for the same reason: a broken element leaves a hole, so that positions stay true.

mod access;
mod cases;
mod firn;
mod maintenance;
mod pipeline;

pub(super) use access::*;
pub(super) use cases::*;
pub(super) use firn::*;
pub(super) use maintenance::*;
pub(super) use pipeline::*;

/// Declares wire structs: strict about keys, camel case, every field optional for serde.
macro_rules! wire {
    ($($(#[$attr:meta])* struct $name:ident { $($(#[$field_attr:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$attr])*
        #[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub(in crate::config) struct $name {
            $($(#[$field_attr])* pub(in crate::config) $field: $type,)*
        }
    )*};
}
/// Declares wire enums of words.
macro_rules! words {
    ($($(#[$attr:meta])* enum $name:ident { $($(#[$variant_attr:meta])* $variant:ident,)* })*) => {$(
        $(#[$attr])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "camelCase")]
        pub(in crate::config) enum $name { $($(#[$variant_attr])* $variant,)* }
    )*};
}
pub(in crate::config) use {wire, words};
