//! Protection of personal data: what becomes of a value, and where the keys for it come from.
//!
//! ```text
//! firn.yaml keys: ─→ keys (by name, cached, bounded) ─→ ring (a file) | kms (wrapped in a store) ─→ subjects (one key each)
//!                        │
//! a column's text ───────┼─→ treatment: seal · token · mask · redact ─→ text of the protected column
//! a payload's bytes ─────┴─→ payload: the same, in place, for the raw zone and for quarantined records
//! ```
//! [`usage`] counts over all processes what each version seals. [`seal`] is AES-256-GCM in the layout that other engines open, [`token`] HMAC-SHA256. [`landed`] is how a protected
//! value looks inside a payload, [`naming`] how data subjects are called. Plaintext and keys have no readable `Debug`, and
//! keys are wiped when they are dropped.

pub mod erasable;
pub mod erase;
pub mod keys;
mod kms;
pub mod landed;
pub mod mask;
pub mod naming;
pub mod payload;
pub mod provider;
pub mod ring;
pub mod seal;
pub mod sign;
mod spans;
mod subjects;
pub mod token;
pub mod treatment;
pub mod usage;

pub use erasable::Erasable;
pub use keys::{Key, Keys, Used};
pub use landed::Landed;
pub use payload::{Guard, Scratch};
pub use provider::KeyBytes;
pub use seal::{DataKey, Plaintext, Sealer};
pub use token::TokenKey;
pub use treatment::Treatment;
