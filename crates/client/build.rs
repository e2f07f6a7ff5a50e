//! Leaves the unwinder out of the static release. It is a fifth of the program, and nothing calls it:
//! a panic prints where it happened and aborts. Asked for a backtrace, it aborts without one.

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

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name, value| env::var_os(name).is_some_and(|found| found == value);
    if is("CARGO_CFG_TARGET_ENV", "musl") && is("PROFILE", "release") {
        for function in UNWINDER {
            println!("cargo::rustc-link-arg-bins=-Wl,--defsym=_Unwind_{function}=abort");
        }
    }
}
