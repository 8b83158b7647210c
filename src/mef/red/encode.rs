//! The RED encoder (format sections 8.3, 8.4 and 8.6).
