//! What the program says without any agent running.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::process::{Command, Output};

fn agent(arguments: &[&str], home: &std::path::Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dph-agent"));
    command.env_clear().env("HOME", home).args(arguments).output().unwrap()
}

#[test]
fn every_command_explains_itself() {
    let home = tempfile::tempdir().unwrap();
    let commands = [
        &["--help"][..],
        &["start", "--help"],
        &["check-config", "--help"],
        &["audit", "--help"],
        &["--version"],
    ];
    for command in commands {
        let said = agent(command, home.path());
        assert!(said.status.success() && !said.stdout.is_empty(), "{command:?}: {said:?}");
    }
}

#[test]
fn a_wrong_word_is_told_and_starts_nothing() {
    let home = tempfile::tempdir().unwrap();
    let said = agent(&["strat"], home.path());
    assert!(!said.status.success() && said.stdout.is_empty());
    assert!(String::from_utf8_lossy(&said.stderr).contains("strat"));
}

#[test]
fn a_home_without_a_configuration_has_nothing_wrong_in_it() {
    let home = tempfile::tempdir().unwrap();
    let said = agent(&["check-config"], home.path());
    assert!(said.status.success(), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stdout).contains("nothing wrong"));
}
