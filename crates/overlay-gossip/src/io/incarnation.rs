//! Incarnations that grow with each start, whatever the clock does.
//!
//! The file holds the lowest incarnation that no start has reserved yet, as decimal text. A start takes
//! the time in milliseconds or that number, whichever is greater, and reserves
//! [`INCARNATIONS_PER_START`] from there, before it uses the first.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use overlay_types::Incarnation;

use crate::{error::GossipError, identity::INCARNATIONS_PER_START};

/// Reserves incarnations for a start at this time, and returns the first.
///
/// A missing file is that of a first start. A damaged one is an error and stays as it is.
pub fn reserve(path: &Path, now: SystemTime) -> Result<Incarnation, GossipError> {
    let failed = |problem: String| GossipError::IncarnationFile { path: path.to_owned(), problem };
    let free = match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map_err(|_| {
            failed(format!("{:?} is no number; remove it if the clock is right", text.trim()))
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(failed(format!("cannot be read: {error}"))),
    };
    let millis = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let first = millis.max(free).max(1);
    let next_free = first
        .checked_add(INCARNATIONS_PER_START)
        .ok_or_else(|| failed("holds a number that leaves none to use".to_owned()))?;
    write_durably(path, &format!("{next_free}\n"))
        .map_err(|error| failed(format!("cannot be written: {error}")))?;
    Ok(Incarnation::new(first))
}

/// After a crash there is the old file or the new one.
fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_start_is_greater_also_when_the_clock_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("incarnation");
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let times = [at(1_000_000), at(2_000_000), at(2_000_000), at(5), UNIX_EPOCH, at(9_000_000)];
        let starts = times.map(|now| reserve(&path, now).unwrap().get());
        assert_eq!(starts[0], 1_000_000_000);
        assert_eq!(starts[5], 9_000_000_000);
        for pair in starts.windows(2) {
            assert!(pair[1] >= pair[0] + INCARNATIONS_PER_START, "{starts:?}");
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("incarnation");
        for damaged in ["", "x", "-1", "99999999999999999999999", "18446744073709551615"] {
            fs::write(&path, damaged).unwrap();
            let error = reserve(&path, UNIX_EPOCH).unwrap_err().to_string();
            assert!(error.contains("incarnation file"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
        }
    }
}
