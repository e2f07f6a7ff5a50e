//! Leaves the unwinder and its tables out of the static release. They are a quarter of the program, and
//! nothing needs them: a panic prints where it happened and aborts. Asked for a backtrace, it aborts
//! without one. What the program must add its own address to is listed by bits instead of 24 bytes each.

use std::env;

/// What the standard library takes from the unwinder.
const UNWINDER: &[&str] = &[
    "Backtrace",
    "DeleteException",
    "FindEnclosingFunction",
    "GetCFA",
    "GetDataRelBase",
    "GetIP",
    "GetIPInfo",
    "GetLanguageSpecificData",
    "GetRegionStart",
    "GetTextRelBase",
    "RaiseException",
    "Resume",
    "SetGR",
    "SetIP",
];

/// Has the linker list relocations by bits, which musl reads from 1.2.4 on; the oldest compiler that we allow has
/// 1.2.5. A linker that does not know how warns, and lists them at length.
const SHORT_RELOCATIONS: &str = "-z,pack-relative-relocs";

/// Tells the linker to leave the tables out.
const TABLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/no-unwind-tables.ld");

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={TABLES}");
    let is = |name, value| env::var_os(name).is_some_and(|found| found == value);
    if is("CARGO_CFG_TARGET_ENV", "musl") && is("PROFILE", "release") {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{TABLES}");
        println!("cargo::rustc-link-arg-bins=-Wl,{SHORT_RELOCATIONS}");
        for function in UNWINDER {
            println!("cargo::rustc-link-arg-bins=-Wl,--defsym=_Unwind_{function}=abort");
        }
    }
}
