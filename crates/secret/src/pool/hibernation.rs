//! Whether this machine can write its memory to a disk and go off.

use std::fs;
use std::path::Path;

/// Returns whether hibernation is possible here, which a single page of `memfd_secret` would forbid.
pub(super) fn is_possible() -> bool {
    is_possible_on(Path::new("/"))
}

/// The kernel lists the modes in `/sys/power/disk`, or `[disabled]`. That is not asked: it is also
/// said while another process, such as the agent that this one follows, holds such a page.
fn is_possible_on(root: &Path) -> bool {
    let read = |path| fs::read_to_string(root.join(path)).unwrap_or_default();
    let forbidden =
        read("proc/cmdline").split_whitespace().any(|it| it == "nohibernate" || it == "hibernate=no");
    let lockdown = read("sys/kernel/security/lockdown");
    let locked_down = lockdown.contains('[') && !lockdown.contains("[none]");
    let has_swap = read("proc/swaps").lines().skip(1).any(|line| !line.starts_with("/dev/zram"));
    root.join("sys/power/disk").exists() && has_swap && !locked_down && !forbidden
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWAPS: &str = "Filename Type Size Used Priority\n/dev/sda2 partition 8388604 0 -2\n";

    /// Returns the answer for a laptop in which `changes` differ.
    fn possible_with(changes: &[(&str, Option<&str>)]) -> bool {
        let root = tempfile::tempdir().unwrap();
        let laptop = [
            ("proc/cmdline", Some("quiet splash\n")),
            ("proc/swaps", Some(SWAPS)),
            ("sys/power/disk", Some("[platform] shutdown reboot suspend test_resume\n")),
            ("sys/kernel/security/lockdown", Some("[none] integrity confidentiality\n")),
        ];
        for (path, text) in laptop.iter().chain(changes) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match text {
                Some(text) => fs::write(path, text).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
        }
        is_possible_on(root.path())
    }

    #[test]
    fn laptop_with_a_swap_partition_can_hibernate() {
        assert!(possible_with(&[]));
        assert!(possible_with(&[("sys/kernel/security/lockdown", None)]));
    }

    #[test]
    fn an_agent_that_holds_secret_pages_does_not_make_the_next_one_believe_that_it_may() {
        assert!(possible_with(&[("sys/power/disk", Some("[disabled]\n"))]));
    }

    #[test]
    fn machine_that_cannot_hibernate_is_known_by_one_reason() {
        let zram = "Filename Type Size Used Priority\n/dev/zram0 partition 8388604 0 100\n";
        for reason in [
            ("sys/power/disk", None),
            ("proc/swaps", Some("Filename Type Size Used Priority\n")),
            ("proc/swaps", Some(zram)),
            ("proc/cmdline", Some("quiet nohibernate\n")),
            ("proc/cmdline", Some("hibernate=no\n")),
            ("sys/kernel/security/lockdown", Some("none [integrity] confidentiality\n")),
        ] {
            assert!(!possible_with(&[reason]), "{reason:?}");
        }
    }
}
