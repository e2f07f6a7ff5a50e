use super::super::chain::{Remark, What};
use super::super::read::{read_all, verify};
use super::*;

fn entries(count: usize) -> Vec<Entry> {
    let event = Event::Token { profile: Some("prod".to_owned()), token: None };
    vec![Entry::own(1_795_491_005, event); count]
}

fn log(folder: &Path) -> Files {
    Files::new(folder.to_owned(), Limits::default())
}

fn whole(folder: &Path) -> super::super::chain::Whole {
    verify(&read_all(folder).unwrap(), None).unwrap()
}

#[test]
fn a_log_goes_on_where_another_process_left_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = &folder.path().join("state");
    log(folder).append(&entries(3), true).unwrap();
    let (mut one, mut other) = (log(folder), log(folder));
    for _ in 0..10 {
        one.append(&entries(1), false).unwrap();
        other.append(&entries(2), false).unwrap();
    }
    let whole = whole(folder);
    assert_eq!((whole.lines, whole.remarks), (1 + 3 + 30, Vec::new()));
    assert_eq!(Some(&whole.head), other.head());
}

#[test]
fn long_files_are_put_aside_and_the_oldest_go() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Files::new(folder.path().to_owned(), Limits { len: 2000, kept: 3 });
    for _ in 0..40 {
        files.append(&entries(2), false).unwrap();
    }
    let names: Vec<_> = files_in(folder.path()).unwrap();
    assert_eq!(names.len(), 4);
    for (_, path) in &names {
        assert!(fs::metadata(path).unwrap().len() <= 2000, "{}", path.display());
    }
    let found = whole(folder.path());
    assert!(matches!(found.remarks[..], [Remark::Older { seq: 2.. }]), "{found:?}");
    assert_eq!(Some(&found.head), files.head());
    fs::remove_file(&names[1].1).unwrap();
    let fault = verify(&read_all(folder.path()).unwrap(), None).unwrap_err();
    assert_eq!((fault.line, fault.what), (1, What::OutOfOrder), "one between is gone");
}

#[test]
fn a_crash_between_two_files_breaks_no_chain() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path()).append(&entries(3), false).unwrap();
    fs::rename(folder.path().join(NAME), folder.path().join("audit.000007.jsonl")).unwrap();
    log(folder.path()).append(&entries(1), false).unwrap();
    assert_eq!(whole(folder.path()).lines, 1 + 3 + 1 + 1);
}

#[test]
fn a_log_that_ends_anywhere_is_taken_up_and_stays_whole() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path()).append(&entries(3), false).unwrap();
    let path = folder.path().join(NAME);
    let bytes = fs::read(&path).unwrap();
    for len in 0..bytes.len() {
        fs::write(&path, &bytes[..len]).unwrap();
        log(folder.path()).append(&entries(1), false).unwrap();
        let whole = whole(folder.path());
        assert!(!fs::read(&path).unwrap().is_empty() && whole.lines > 0, "{len} bytes");
    }
}

#[test]
fn a_file_that_is_no_log_is_put_aside_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(NAME), "notes of mine\n").unwrap();
    log(folder.path()).append(&entries(1), false).unwrap();
    assert_eq!(fs::read(folder.path().join("audit.000001.jsonl")).unwrap(), b"notes of mine\n");
    let fault = verify(&read_all(folder.path()).unwrap(), None).unwrap_err();
    assert_eq!((fault.file.as_str(), fault.what), ("audit.000001.jsonl", What::Changed));
}

#[cfg(unix)]
#[test]
fn lines_that_vanish_while_the_agent_runs_are_noticed() {
    type Harm = fn(&Path, &[u8]);
    let cut: Harm = |path, bytes| fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    let empty: Harm = |path, _| fs::write(path, "").unwrap();
    let gone: Harm = |path, _| fs::remove_file(path).unwrap();
    for harm in [cut, empty, gone] {
        let folder = tempfile::tempdir().unwrap();
        let mut files = log(folder.path());
        files.append(&entries(5), false).unwrap();
        let path = folder.path().join(NAME);
        harm(&path, &fs::read(&path).unwrap());
        files.append(&entries(1), false).unwrap();
        let fault = verify(&read_all(folder.path()).unwrap(), None).unwrap_err();
        assert!(matches!(fault.what, What::Disturbed | What::RestChanged), "{fault:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_in_the_logs_place_is_an_error_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join(NAME), mode).unwrap();
    let error = log(folder.path()).append(&entries(1), false).unwrap_err();
    assert_eq!((error.written, error.source.to_string().as_str()), (0, "it is not a regular file"));
}

#[cfg(unix)]
#[test]
fn nor_is_one_in_the_place_of_an_older_file_or_of_the_lock() {
    for name in ["audit.000003.jsonl", LOCK] {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
        std::os::unix::fs::symlink(&pipe, folder.path().join(name)).unwrap();
        let error = log(folder.path()).append(&entries(1), false).unwrap_err();
        assert_eq!((error.written, error.source.to_string().as_str()), (0, "it is not a regular file"));
        let read = read_all(folder.path());
        assert!(name == LOCK || read.is_err(), "and verifying does not wait either: {read:?}");
    }
}

#[test]
fn a_newest_file_that_is_gone_or_empty_beside_older_ones_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Files::new(folder.path().to_owned(), Limits { len: 2000, kept: 3 });
    for _ in 0..10 {
        files.append(&entries(2), false).unwrap();
    }
    whole(folder.path());
    let newest = folder.path().join(NAME);
    let fault = || verify(&read_all(folder.path()).unwrap(), None).unwrap_err();
    fs::write(&newest, "").unwrap();
    assert_eq!((fault().file.as_str(), fault().what), (NAME, What::NoNewest));
    fs::remove_file(&newest).unwrap();
    assert_eq!((fault().file.as_str(), fault().what), (NAME, What::NoNewest));
}

#[test]
fn a_file_that_cannot_be_begun_leaves_the_full_one_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Files::new(folder.path().to_owned(), Limits { len: 600, kept: 3 });
    files.append(&entries(1), false).unwrap();
    let before = fs::read(folder.path().join(NAME)).unwrap();
    fs::create_dir(folder.path().join(DRAFT)).unwrap();
    assert_eq!(files.append(&entries(1), false).unwrap_err().written, 0);
    assert_eq!(fs::read(folder.path().join(NAME)).unwrap(), before);
    fs::remove_dir(folder.path().join(DRAFT)).unwrap();
    files.append(&entries(1), false).unwrap();
    assert_eq!(whole(folder.path()).lines, 4, "two files, each with a line of its own");
}

#[test]
fn a_log_says_whether_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let is_off = || log(folder.path()).is_off().unwrap();
    assert!(is_off(), "there is none");
    let say = |event| log(folder.path()).append(&[Entry::own(0, event)], false).unwrap();
    say(Event::Started { version: "1" });
    assert!(!is_off());
    say(Event::Mode { mode: Mode::Off });
    say(Event::Lost { lines: 1 });
    assert!(is_off());
    say(Event::Mode { mode: Mode::Required });
    assert!(!is_off());
}

#[cfg(unix)]
#[test]
fn the_log_is_the_users_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    log(folder.path()).append(&entries(1), false).unwrap();
    let mode = fs::metadata(folder.path().join(NAME)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn lines_of_a_batch_that_was_cut_count_as_far_as_they_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = log(folder.path());
    files.append(&entries(1), false).unwrap();
    let open = files.current(0).unwrap();
    let lines = open.render(&entries(3), 0).unwrap();
    let last = lines.ends[2].0 - lines.ends[1].0;
    let written = |missing| lines.cut(missing, ErrorKind::StorageFull.into()).written;
    assert_eq!([0, 1, last, last + 1, lines.text.len()].map(written), [3, 2, 2, 1, 0]);
}

/// Returns the lines of a file, each with its line feed.
fn lines_of(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

#[test]
fn a_thousand_random_changes_of_a_log_of_several_files_are_all_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Files::new(folder.path().to_owned(), Limits { len: 3000, kept: 3 });
    for count in 1..12 {
        files.append(&entries(count), false).unwrap();
    }
    let head = files.head().unwrap().hash.clone();
    let original = read_all(folder.path()).unwrap();
    assert!(original.len() > 2 && verify(&original, Some(head.clone())).is_ok());
    let mut random = fastrand::Rng::with_seed(20_261_124);
    for round in 0..1000 {
        let mut log = original.clone();
        let at = random.usize(..log.len());
        let bytes = &mut log[at].bytes;
        let mut lines = lines_of(bytes);
        let (one, other) = (random.usize(..lines.len()), random.usize(..lines.len()));
        match round % 8 {
            0 => drop(lines.remove(one)),
            1 => lines.swap(one, other),
            2 => lines.insert(one, lines[other].clone()),
            3 => lines.insert(one, b"{}\n".to_vec()),
            4 => lines.truncate(one),
            _ => {
                let byte = random.usize(..lines[one].len());
                lines[one][byte] ^= random.u8(1..);
            }
        }
        *bytes = lines.concat();
        // What is left of the oldest file may be gone as a whole.
        if bytes.is_empty() || log[at].bytes == original[at].bytes {
            continue;
        }
        assert!(verify(&log, Some(head.clone())).is_err(), "round {round}: {}: line {one}", log[at].name);
    }
}
