//! Portmaster: reviews each new local connection first.
