//! TFTP: what to serve, and a transfer as a state machine.
