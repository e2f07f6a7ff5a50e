//! Looks for what is left of secrets in the memory of a process; for tests, which run as root or as
//! the parent of a process that may be debugged.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// So much of a secret is as good as all of it.
const WINDOW_LEN: usize = 16;

const PIECE_LEN: usize = 1024 * 1024;

/// What a scan came upon.
#[derive(Debug, Default)]
pub struct Scan {
    /// Where there is something left.
    pub found: Vec<Found>,
    /// How many bytes were looked at.
    pub read: usize,
    /// Mappings that the kernel lets nobody read, as they are listed in `/proc/PID/maps`, each with why.
    pub unreadable: Vec<(String, io::Error)>,
}

/// A stretch of memory that is also in a needle.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Which needle, counted from zero.
    pub needle: usize,
    /// Where it begins.
    pub address: u64,
    /// How long it is.
    pub len: usize,
    /// The mapping that it lies in, as it is listed in `/proc/PID/maps`.
    pub mapping: String,
}

/// Looks through all memory of process `pid` for any 16 bytes of the `needles`; shorter needles count whole.
///
/// # Errors
///
/// When this process may not read the memory of that one.
pub fn process(pid: u32, needles: &[&[u8]]) -> io::Result<Scan> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let needles = Needles::new(needles);
    let mut scan = Scan::default();
    for mapping in maps.lines() {
        let Some(addresses) = readable(mapping) else { continue };
        if let Err(error) = scan.mapping(&memory, mapping, addresses, &needles) {
            scan.unreadable.push((mapping.to_owned(), error));
        }
    }
    Ok(scan)
}

/// Looks through a file, such as a core dump, as [`process`] looks through memory.
///
/// # Errors
///
/// When it cannot be read.
pub fn file(path: &Path, needles: &[&[u8]]) -> io::Result<Scan> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut scan = Scan::default();
    scan.mapping(&file, &path.display().to_string(), 0..len, &Needles::new(needles))?;
    Ok(scan)
}

/// Returns the addresses of a line such as `7f00-7f10 rw-p 0 00:00 0 [heap]`, if it may be read.
fn readable(mapping: &str) -> Option<Range<u64>> {
    let mut words = mapping.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    words.next()?.starts_with('r').then_some(address(start)?..address(end)?)
}

impl Scan {
    fn mapping(
        &mut self,
        memory: &File,
        mapping: &str,
        addresses: Range<u64>,
        needles: &Needles<'_>,
    ) -> io::Result<()> {
        let mut piece = vec![0; PIECE_LEN];
        let mut at = addresses.start;
        while at < addresses.end {
            let left = usize::try_from(addresses.end - at).unwrap_or(PIECE_LEN).min(PIECE_LEN);
            let (room, _) = piece.split_at_mut(left);
            let len = memory.read_at(room, at)?;
            if len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.read += len;
            needles.each_in(room.split_at(len).0, |needle, offset, len| {
                self.note(Found { needle, address: at + offset as u64, len, mapping: mapping.to_owned() });
            });
            // What straddles the border is seen from both sides, and only noted once.
            let overlap = if len == left && at + (left as u64) < addresses.end { WINDOW_LEN - 1 } else { 0 };
            at += len.saturating_sub(overlap).max(1) as u64;
        }
        Ok(())
    }

    /// Adds what was found, joined with what it continues.
    fn note(&mut self, new: Found) {
        let end = new.address + new.len as u64;
        match self.found.last_mut() {
            Some(last) if last.needle == new.needle && (last.address..=last.end()).contains(&new.address) => {
                last.len = usize::try_from(end.max(last.end()) - last.address).unwrap_or(usize::MAX);
            }
            _ => self.found.push(new),
        }
    }
}

impl Found {
    fn end(&self) -> u64 {
        self.address + self.len as u64
    }
}

/// Windows of needles, each with the needle that it belongs to, by their first two bytes.
struct Needles<'a>(HashMap<[u8; 2], Vec<(&'a [u8], usize)>>);

impl<'a> Needles<'a> {
    fn new(needles: &[&'a [u8]]) -> Self {
        let mut windows = HashMap::<_, Vec<_>>::new();
        for (number, needle) in needles.iter().enumerate() {
            for window in needle.windows(needle.len().clamp(2, WINDOW_LEN)) {
                if let Some(start) = window.first_chunk() {
                    windows.entry(*start).or_default().push((window, number));
                }
            }
        }
        Self(windows)
    }

    /// Calls `note` with the needle, the offset and the length of all that is in `bytes`.
    fn each_in(&self, bytes: &[u8], mut note: impl FnMut(usize, usize, usize)) {
        let mut begins = vec![false; 1 << 16];
        for start in self.0.keys() {
            if let Some(begins) = begins.get_mut(usize::from(u16::from_le_bytes(*start))) {
                *begins = true;
            }
        }
        for (offset, start) in bytes.array_windows::<2>().enumerate() {
            if begins.get(usize::from(u16::from_le_bytes(*start))) != Some(&true) {
                continue;
            }
            let rest = bytes.split_at(offset).1;
            let here = self.0.get(start).into_iter().flatten();
            for (window, needle) in here.filter(|(window, _)| rest.starts_with(window)) {
                note(*needle, offset, window.len());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found_in(bytes: &[u8], needles: &[&[u8]]) -> Vec<(usize, u64, usize)> {
        let mut scan = Scan::default();
        Needles::new(needles).each_in(bytes, |needle, offset, len| {
            scan.note(Found { needle, address: offset as u64, len, mapping: String::new() });
        });
        scan.found.into_iter().map(|it| (it.needle, it.address, it.len)).collect()
    }

    #[test]
    fn any_sixteen_bytes_of_a_needle_are_found() {
        let needle = b"0123456789abcdefghij";
        assert_eq!(found_in(b"..3456789abcdefghi..", &[needle]), [(0, 2, 16)]);
        assert_eq!(found_in(b"..3456789abcdefgh...", &[needle]), []);
    }

    #[test]
    fn whole_needle_is_one_find() {
        assert_eq!(found_in(b"..0123456789abcdefghij..", &[b"other", b"0123456789abcdefghij"]), [(1, 2, 20)]);
    }

    #[test]
    fn short_needle_counts_whole() {
        assert_eq!(found_in(b"hunter hunter2", &[b"hunter2"]), [(0, 7, 7)]);
    }

    #[test]
    fn only_readable_mappings_are_read() {
        assert_eq!(readable("7f00-7f10 rw-p 00000000 00:00 0   [heap]"), Some(0x7f00..0x7f10));
        assert_eq!(readable("7f00-7f10 ---p 00000000 00:00 0"), None);
    }
}
