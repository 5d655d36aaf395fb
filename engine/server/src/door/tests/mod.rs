//! The doors and the client together, against a service made up for it.
//!
//! `support` has the rig (certificate, door, clients) and the made-up log; `session` asks what a
//! stream does, `door` what connections do, `produce`, `consume` and `group` what the client
//! makes of it.

mod consume;
mod door;
mod group;
mod produce;
mod session;
mod support;
