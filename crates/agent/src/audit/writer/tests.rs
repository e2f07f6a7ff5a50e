use std::path::Path;
use std::sync::mpsc;

use super::super::read::{read_all, verify};
use super::*;

fn token(profile: &str) -> Entry {
    Entry::own(1_795_491_005, Event::Token { profile: Some(profile.to_owned()), token: None })
}

/// Takes lines only when it is told how that ends: the number of lines that fit, or all.
struct Told {
    verdicts: mpsc::Receiver<Option<usize>>,
    seen: mpsc::Sender<(Vec<Event>, bool)>,
}

impl Sink for Told {
    fn append(&mut self, entries: &[Entry], sync: bool) -> Result<(), NotWritten> {
        let events = entries.iter().map(|entry| entry.event.clone()).collect();
        self.seen.send((events, sync)).unwrap();
        match self.verdicts.recv().unwrap() {
            None => Ok(()),
            Some(written) => Err(NotWritten { written, source: io::ErrorKind::StorageFull.into() }),
        }
    }

    fn head(&self) -> Option<&Head> {
        None
    }

    fn is_off(&self) -> io::Result<bool> {
        Ok(true)
    }
}

type Scene = (Audit, mpsc::Sender<Option<usize>>, mpsc::Receiver<(Vec<Event>, bool)>);

fn told(mode: Mode) -> Scene {
    told_in(Path::new("/nowhere"), mode)
}

fn told_in(folder: &Path, mode: Mode) -> Scene {
    let (verdict, verdicts) = mpsc::channel();
    let (seen, batches) = mpsc::channel();
    (Audit::with(folder.join(NAME), Told { verdicts, seen }, mode, 0).unwrap(), verdict, batches)
}

#[test]
fn a_slow_disk_holds_up_nobody_and_what_found_no_room_is_told_in_the_log() {
    let (audit, verdict, batches) = told(Mode::On);
    audit.record(token("first"));
    assert_eq!(batches.recv().unwrap().0.len(), 1, "the writer is at it");
    (0..QUEUE + 7).for_each(|_| audit.record(token("next")));
    assert_eq!(audit.state().lost, 7);
    verdict.send(None).unwrap();
    assert_eq!(batches.recv().unwrap().0.len(), QUEUE);
    verdict.send(None).unwrap();
    audit.record(token("last"));
    let (events, sync) = batches.recv().unwrap();
    assert_eq!(events, [Event::Lost { lines: 7 }, token("last").event]);
    assert!(!sync, "nobody waits for the disk");
}

#[test]
fn lines_that_a_full_disk_refuses_are_counted_until_that_can_be_told() {
    let (audit, verdict, batches) = told(Mode::On);
    let next = |written| {
        audit.record(token("a"));
        let events = batches.recv().unwrap().0;
        verdict.send(written).unwrap();
        events.first().cloned()
    };
    assert_eq!(next(Some(0)), Some(token("a").event));
    assert_eq!(next(Some(0)), Some(Event::Lost { lines: 1 }));
    assert_eq!(next(Some(1)), Some(Event::Lost { lines: 2 }), "that is told, its own line is not");
    assert_eq!(next(None), Some(Event::Lost { lines: 1 }));
    assert_eq!(next(None), Some(token("a").event));
    audit.set_mode(Mode::Off, 0);
    assert_eq!(batches.recv().unwrap().0, [Event::Mode { mode: Mode::Off }]);
    assert_eq!((audit.state().lost, audit.state().error), (3, None));
}

#[tokio::test]
async fn a_hand_out_that_must_be_recorded_waits_for_the_disk_and_fails_with_it() {
    let (audit, verdict, batches) = told(Mode::Required);
    verdict.send(None).unwrap();
    audit.hand_out(token("a")).await.unwrap();
    assert!(batches.recv().unwrap().1, "the disk has it");
    verdict.send(Some(0)).unwrap();
    let refused = audit.hand_out(token("a")).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::DENIED);
    assert!(refused.message.contains("no storage space"), "{}", refused.message);
    assert!(audit.state().error.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_hand_out_that_must_be_recorded_does_not_wait_for_ever() {
    let (audit, _verdict, _batches) = told(Mode::Required);
    let refused = audit.hand_out(token("a")).await.unwrap_err();
    assert!(refused.message.contains("takes too long"), "{}", refused.message);
}

#[test]
fn the_end_is_recorded_and_so_is_that_nothing_was_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let audit = Audit::start(folder.path().to_owned(), Mode::On, 0).unwrap();
    audit.set_mode(Mode::Off, 0);
    audit.record(token("unseen"));
    audit.set_mode(Mode::On, 0);
    audit.finish(0);
    let whole = verify(&read_all(folder.path()).unwrap(), Some(audit.state().head.unwrap())).unwrap();
    assert_eq!((whole.lines, whole.since), (5, Some(0)), "file, started, off, on, stopped");
}

#[test]
fn the_end_finds_room_in_a_full_queue_and_tells_what_was_lost() {
    let (audit, verdict, batches) = told(Mode::On);
    audit.record(token("first"));
    batches.recv().unwrap();
    (0..QUEUE + 7).for_each(|_| audit.record(token("next")));
    let ending = audit.clone();
    let end = thread::spawn(move || ending.finish(0));
    while audit.waiting().closing.is_none() {
        thread::yield_now();
    }
    (0..3).for_each(|_| verdict.send(None).unwrap());
    let events = batches.recv().unwrap().0;
    assert_eq!((events.len(), events.last()), (QUEUE + 1, Some(&Event::Stopped)));
    assert_eq!(batches.recv().unwrap().0, [Event::Lost { lines: 7 }]);
    end.join().unwrap();
}

#[test]
fn what_cannot_be_told_at_the_end_is_told_by_the_next_agent_once() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, verdict, batches) = told_in(folder.path(), Mode::On);
    (0..3).for_each(|_| verdict.send(Some(0)).unwrap());
    audit.record(token("lost"));
    batches.recv().unwrap();
    audit.finish(0);
    let counts = |audit: &Audit| {
        audit.finish(0);
        let bytes = read_all(folder.path()).unwrap().remove(0).bytes;
        let text = String::from_utf8(bytes).unwrap();
        text.matches("\"event\":\"lost\",\"lines\":2").count()
    };
    let start = |mode| Audit::start(folder.path().to_owned(), mode, 0).unwrap();
    start(Mode::Off).finish(0);
    assert_eq!(counts(&start(Mode::On)), 1, "the token and the end");
    assert_eq!(counts(&start(Mode::On)), 1);
}

#[test]
fn lines_that_a_disk_which_hangs_never_took_are_told_by_the_next_agent() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, _verdict, batches) = told_in(folder.path(), Mode::On);
    audit.record(token("hangs"));
    batches.recv().unwrap();
    audit.record(token("waits"));
    audit.finish(0);
    assert_eq!(audit.0.lost.take().unwrap(), 3, "these two, and the end");
}

#[test]
fn a_batch_that_stays_on_its_way_to_the_disk_is_told() {
    let (audit, _verdict, batches) = told(Mode::On);
    let at = |seconds| audit.state_at(Instant::now() + Duration::from_secs(seconds)).error;
    assert_eq!(at(60), None, "nothing is on its way");
    audit.record(token("hangs"));
    batches.recv().unwrap();
    assert_eq!(at(0), None);
    let error = at(60).unwrap();
    assert!(error.contains("on their way to the disk for "), "{error}");
}

#[test]
fn a_start_with_the_log_off_says_so_once_where_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let run = |mode| Audit::start(folder.path().to_owned(), mode, 0).unwrap().finish(0);
    run(Mode::Off);
    assert!(read_all(folder.path()).unwrap().is_empty(), "there is none");
    run(Mode::On);
    let lines = || verify(&read_all(folder.path()).unwrap(), None).unwrap().lines;
    let before = lines();
    run(Mode::Off);
    run(Mode::Off);
    assert_eq!(lines(), before + 1);
    run(Mode::On);
    run(Mode::Off);
    assert_eq!(lines(), before + 4, "started, stopped, off");
}
