//! DHCP: who is asking, and what to answer.
