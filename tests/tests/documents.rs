//! What SECURITY.md says is proven, there is a test for.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::fs;
use std::path::Path;

/// Far fewer names than there are would mean that they are not found any more.
const AT_LEAST: usize = 150;

/// Returns each `file::function` that a text names in backticks.
fn named_tests(text: &str) -> Vec<(&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(|name| name.split_once("::")).filter(|(file, _)| file.ends_with(".rs")).collect()
}

/// Whether a source has a test of this name.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let declared = [format!("fn {name}("), format!("async fn {name}(")];
    let is_test = |before: &[&str]| {
        let mut attributes = before.iter().rev().take_while(|line| line.starts_with("#["));
        attributes.any(|line| line.contains("test"))
    };
    lines.iter().enumerate().any(|(at, line)| {
        declared.iter().any(|declared| line.starts_with(declared.as_str()))
            && is_test(lines.get(..at).unwrap_or_default())
    })
}

#[test]
fn every_test_that_security_md_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let named = named_tests(&text);
    assert!(named.len() >= AT_LEAST, "only {} tests are named", named.len());
    let exists = |file: &str, name: &str| {
        fs::read_to_string(root.join(file)).is_ok_and(|source| has_test(&source, name))
    };
    let missing: Vec<_> = named.into_iter().filter(|(file, name)| !exists(file, name)).collect();
    assert!(missing.is_empty(), "SECURITY.md names what is not there: {missing:#?}");
}

#[test]
fn a_test_is_told_from_another_function_and_from_none() {
    let source =
        "#[test]\n#[cfg(unix)]\nfn proves() {}\n\n#[tokio::test]\nasync fn waits() {}\n\nfn helps() {}\n";
    assert!(has_test(source, "proves") && has_test(source, "waits"));
    assert!(!has_test(source, "helps") && !has_test(source, "prove") && !has_test(source, "gone"));
}
