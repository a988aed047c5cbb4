//! Whole-system tests: real servers, the real programs as processes, independent readers. See `firn_e2e::rig`.

mod rig_itself;
mod tidy;
