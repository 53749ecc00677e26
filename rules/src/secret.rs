//! Secrets of machines: which one is whose, and where it is laid down. What they are is not known here: the rules see
//! ciphertext.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A text that only the appliance's key opens.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Which key.
    pub key: String,
    /// Nonce, ciphertext and tag, in base64.
    pub text: String,
}

impl fmt::Debug for Sealed {
    /// Not even the ciphertext enters a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed(under {})", self.key)
    }
}
