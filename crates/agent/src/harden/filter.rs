//! System calls that neither the agent nor a key command needs, refused by the kernel.
//!
//! The list is short on purpose: key commands inherit it, whatever they are. What looks into other
//! processes or widens the way into the kernel is on it; what password managers and containers use is not
//! (`keyctl`, `mount`, `unshare`). The answer is that of a kernel on which the user may not do it.

use std::io;

use libc::c_long;
use seccompiler::sock_filter;

const DENIED: &[c_long] = &[
    // Other processes of the user, their memory and their files.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Large parts of the kernel that attackers like to start from.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // The machine itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
];

#[cfg(target_arch = "x86_64")]
mod arch {
    /// `AUDIT_ARCH_X86_64`.
    pub(super) const NATIVE: u32 = 0xC000_003E;
    /// What a user may call of [`super::DENIED`], by its numbers in programs for i386: another way in.
    pub(super) const DENIED_IN_32_BIT: &[libc::c_long] =
        &[26, 336, 347, 348, 349, 357, 374, 425, 426, 427, 438];
}

#[cfg(target_arch = "aarch64")]
mod arch {
    /// `AUDIT_ARCH_AARCH64`.
    pub(super) const NATIVE: u32 = 0xC000_00B7;
    /// What a user may call of [`super::DENIED`], by its numbers in programs for 32-bit ARM: another way in.
    pub(super) const DENIED_IN_32_BIT: &[libc::c_long] =
        &[26, 364, 376, 377, 378, 386, 388, 425, 426, 427, 438];
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
    let native = verdicts(DENIED);
    let behind = u8::try_from(native.len()).unwrap_or(u8::MAX);
    let start = [instruction(LOAD, ARCH, 0, 0), instruction(JUMP_IF_EQUAL, arch::NATIVE, 0, behind)];
    [&start[..], &native, &verdicts(arch::DENIED_IN_32_BIT)].concat()
}

/// Refuses the calls with these numbers and allows all others.
fn verdicts(denied: &[c_long]) -> Vec<sock_filter> {
    let refused = |errno: i32| instruction(RETURN, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned(), 0, 0);
    let mut program = vec![instruction(LOAD, NUMBER, 0, 0)];
    program.extend([instruction(JUMP_IF_AT_LEAST, X32, 0, 1), refused(libc::ENOSYS)]);
    for number in denied.iter().filter_map(|number| u32::try_from(*number).ok()) {
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
        for number in 0..1000 {
            let expected =
                if DENIED.contains(&c_long::from(number)) { refused } else { libc::SECCOMP_RET_ALLOW };
            assert_eq!(verdict(arch::NATIVE, number), expected, "{number}");
        }
    }

    #[test]
    fn another_numbering_of_the_same_calls_is_no_way_around() {
        let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
        assert_eq!(
            (verdict(arch::NATIVE ^ 1, 26), verdict(arch::NATIVE ^ 1, 4)),
            (refused, libc::SECCOMP_RET_ALLOW)
        );
        let unknown = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
        assert_eq!(verdict(arch::NATIVE, X32 | 521), unknown);
    }
}
