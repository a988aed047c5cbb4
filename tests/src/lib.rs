//! What the end-to-end tests stand on: the [`rig`] that starts real servers, runs the two programs as processes and
//! asks independent readers what is in the tables. The tests themselves are in `tests/tests/it/`.

pub mod mutation;
pub mod rig;
