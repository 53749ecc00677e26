//! What the disc's `/init` leaves for the view on its consoles, which is another process.

/// Where. In memory, and root's alone.
pub const DIRECTORY: &str = "/run/bennu-console";
/// There: what init says, line by line.
pub const MESSAGES: &str = "messages";
/// There: the first token, until somebody puts it away.
pub const TOKEN: &str = "token";
