//! The rig that starts real servers for the tests.
