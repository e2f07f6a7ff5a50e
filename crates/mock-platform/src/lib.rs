//! mock-platform
