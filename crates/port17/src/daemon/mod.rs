//! The tasks and sockets around the core.
