//! Whole-system tests: real servers, the real programs as processes, independent readers. See `firn_e2e::rig`.

#![allow(clippy::unwrap_used, reason = "everything here is test code")]

mod bad_records;
mod catalog;
mod cli_reference;
mod commands;
mod configuration_reference;
mod crash;
mod daemon;
mod deploy;
mod erasure;
mod fuzz;
mod group;
mod kms_refuses;
mod lookups;
mod memory;
mod mixed_writers;
mod other_writers;
mod pipeline_tests;
mod plugins;
mod protection;
mod protection_reading;
mod readers;
mod reading;
mod real_events;
mod rig_itself;
mod store;
mod surprises;
mod ticks;
mod tidy;
