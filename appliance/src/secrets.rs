//! What the appliance keeps for machines and shows to nobody else: the key that it is kept under, and how it reaches the one
//! machine that it is for.

pub mod files;
mod keyring;

pub use keyring::{KeyFile, Keyring, SessionSecret};
