//! The rooms of stage 1. The program `/init` of a machine that a Bennu appliance boots is made of them, and the `/init` of the
//! appliance's own ISO takes its early mounts, consoles, modules and links from here.

pub mod boot;
mod clock;
pub mod cmdline;
pub mod console;
mod download;
pub mod early;
mod entropy;
mod fetch;
mod handover;
mod http;
mod inventory;
mod laydown;
mod memory;
pub mod modules;
pub mod net;
pub mod persistent;
mod plan;
mod report;
pub mod reporter;
pub mod restart;
mod root;
mod scoped;
mod session;
pub mod supervise;
mod sys;
mod user;
mod verity;
pub mod watch;
