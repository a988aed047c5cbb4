//! Functions without a rebuild: WebAssembly plug-ins that make columns of columns (`deploy/plugins/plugin.wit`).
//!
//! ```text
//! firn.yaml ─→ load (file or store, SHA-256) ─→ component (its version; a core module becomes one) ─→ host (compiled)
//!                                                     describe (functions as the check of pipelines knows them) ←─┘
//! batch ─→ kernel (chunks, nulls, traps) ─→ layout (Arrow's buffers over) ─→ host (an instance, its fuel and memory)
//!                       └─→ unfit (values that are none of their type)          └─→ world (either version of `plugin.wit`)
//! ```
//! Every call gets an instance of its own. That costs microseconds, and makes sure that nothing is carried from one batch
//! to the next: the same raw records give the same table again. For the same reason an instance has no clock, no chance, no
//! file and no network: nothing at all is linked.
//!
//! What ends a run and what a row: a row that the function refuses, on which it traps, or which is too much for its fuel and
//! memory, is rejected like any value that does not fit; what else it may not make is for [`crate::transform`] to see. Results
//! that are no column of the promised type and length end the run, as does a batch of which not one row passes: they say
//! nothing about a row. No row is ever lost to either.

mod component;
mod describe;
mod host;
mod kernel;
mod layout;
mod load;
#[cfg(test)]
mod tests;
mod types;
mod unfit;
mod world;

pub use load::{load, of_bytes};
