//! System calls that neither the agent nor a key command needs, refused by the kernel.
//!
//! The list is short on purpose: key commands inherit it, whatever they are. What looks into other
//! processes or widens the way into the kernel is on it; what password managers and containers use is not
//! (`keyctl`, `mount`, `unshare`). The answer is that of a kernel on which the user may not do it.

use std::io;

use libc::c_long;
use seccompiler::sock_filter;

/// A call that is refused, in both numberings of this machine: another one is another way in.
struct Denied {
    #[cfg(test)]
    name: &'static str,
    native: c_long,
    /// In programs for i386, or for 32-bit ARM.
    in_32_bit: c_long,
}

/// The 32-bit numbers are those of i386 on x86-64, and of ARM on aarch64.
macro_rules! denied {
    ($($name:ident = $i386:literal, $arm:literal;)*) => {
        &[$(Denied {
            #[cfg(test)]
            name: stringify!($name),
            native: libc::$name,
            in_32_bit: if cfg!(target_arch = "x86_64") { $i386 } else { $arm },
        }),*]
    };
}

const DENIED: &[Denied] = denied! {
    // Other processes of the user, their memory and their files.
    SYS_ptrace = 26, 26;
    SYS_process_vm_readv = 347, 376;
    SYS_process_vm_writev = 348, 377;
    SYS_pidfd_getfd = 438, 438;
    SYS_kcmp = 349, 378;
    // Large parts of the kernel that attackers like to start from.
    SYS_bpf = 357, 386;
    SYS_perf_event_open = 336, 364;
    SYS_userfaultfd = 374, 388;
    SYS_io_uring_setup = 425, 425;
    SYS_io_uring_enter = 426, 426;
    SYS_io_uring_register = 427, 427;
    // The machine itself.
    SYS_init_module = 128, 128;
    SYS_finit_module = 350, 379;
    SYS_delete_module = 129, 129;
    SYS_kexec_load = 283, 347;
    SYS_reboot = 88, 88;
    SYS_swapon = 87, 87;
    SYS_swapoff = 115, 115;
    SYS_acct = 51, 51;
};

#[cfg(target_arch = "x86_64")]
mod arch {
    /// `AUDIT_ARCH_X86_64`.
    pub(super) const NATIVE: u32 = 0xC000_003E;
}

#[cfg(target_arch = "aarch64")]
mod arch {
    /// `AUDIT_ARCH_AARCH64`.
    pub(super) const NATIVE: u32 = 0xC000_00B7;
}

/// First number of the x32 calls, a third way in on x86-64, and beyond all numbers elsewhere.
const X32: u32 = 0x4000_0000;

/// Where a call's number and its architecture lie in what a filter is shown.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
// The instructions of the kernel's filters that are used here.
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Installs the filter for this thread and all that it starts.
///
/// # Errors
///
/// When the kernel does not take it, as in some containers.
pub(super) fn install() -> io::Result<()> {
    seccompiler::apply_filter(&program()).map_err(io::Error::other)
}

fn program() -> Vec<sock_filter> {
    let native = verdicts(DENIED.iter().map(|denied| denied.native));
    let in_32_bit = verdicts(DENIED.iter().map(|denied| denied.in_32_bit));
    let behind = u8::try_from(native.len()).unwrap_or(u8::MAX);
    let start = [instruction(LOAD, ARCH, 0, 0), instruction(JUMP_IF_EQUAL, arch::NATIVE, 0, behind)];
    [&start[..], &native, &in_32_bit].concat()
}

/// Refuses the calls with these numbers and allows all others.
fn verdicts(denied: impl Iterator<Item = c_long>) -> Vec<sock_filter> {
    let refused = |errno: i32| instruction(RETURN, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned(), 0, 0);
    let mut program = vec![instruction(LOAD, NUMBER, 0, 0)];
    program.extend([instruction(JUMP_IF_AT_LEAST, X32, 0, 1), refused(libc::ENOSYS)]);
    for number in denied.filter_map(|number| u32::try_from(number).ok()) {
        program.extend([instruction(JUMP_IF_EQUAL, number, 0, 1), refused(libc::EPERM)]);
    }
    program.push(instruction(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
    program
}

fn instruction(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Carries out the program as the kernel does.
    fn verdict(arch: u32, number: u32) -> u32 {
        let (program, mut at, mut loaded) = (program(), 0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            let jump = |holds: bool| usize::from(if holds { jt } else { jf });
            at += 1;
            match code {
                LOAD => loaded = if k == ARCH { arch } else { number },
                JUMP_IF_EQUAL => at += jump(loaded == k),
                JUMP_IF_AT_LEAST => at += jump(loaded >= k),
                _ => return k,
            }
        }
    }

    #[test]
    fn what_is_denied_is_refused_and_all_else_allowed() {
        let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
        let natives = DENIED.iter().map(|denied| denied.native).collect();
        let in_32_bit = DENIED.iter().map(|denied| denied.in_32_bit).collect();
        let numberings: [(u32, Vec<_>); 2] = [(arch::NATIVE, natives), (arch::NATIVE ^ 1, in_32_bit)];
        for (arch, denied) in numberings {
            for number in 0..1000 {
                let is_denied = denied.contains(&c_long::from(number));
                let expected = if is_denied { refused } else { libc::SECCOMP_RET_ALLOW };
                assert_eq!(verdict(arch, number), expected, "{arch:x} {number}");
            }
        }
    }

    /// Where the kernel's own table for i386 is at hand.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn calls_of_32_bit_programs_have_the_kernels_numbers() {
        let tables = ["/usr/include/x86_64-linux-gnu/asm/unistd_32.h", "/usr/include/asm/unistd_32.h"]
            .map(std::fs::read_to_string);
        for table in tables.into_iter().flatten() {
            for Denied { name, in_32_bit, .. } in DENIED {
                let name = name.strip_prefix("SYS_").unwrap();
                assert!(table.contains(&format!("#define __NR_{name} {in_32_bit}\n")), "{name}");
            }
        }
    }

    #[test]
    fn another_numbering_of_the_same_calls_is_no_way_around() {
        let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
        let in_32_bit = |number| verdict(arch::NATIVE ^ 1, number);
        // ptrace, init_module, delete_module, reboot, swapon, swapoff and acct; then write.
        assert!([26, 128, 129, 88, 87, 115, 51].into_iter().all(|number| in_32_bit(number) == refused));
        assert_eq!(in_32_bit(4), libc::SECCOMP_RET_ALLOW);
        let unknown = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
        assert_eq!(verdict(arch::NATIVE, X32 | 521), unknown);
    }
}
