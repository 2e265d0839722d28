//! Randomness from the seed, for everything that a simulation's thread runs.
//!
//! `std`, and through it tokio's `select!`, and `rand` ask the C library's `getrandom`. This binary
//! has its own: on a thread that has a seed, it answers from the seed. `std` looks the function up
//! by name so that this can be done.
#![expect(unsafe_code, reason = "a function of the C library is replaced for the simulation")]

use core::{
    cell::RefCell,
    ffi::{c_uint, c_void},
    slice,
};
use std::{fs::File, io::Read};

use rand::{Rng, SeedableRng, rngs::StdRng};

thread_local! {
    static SEEDED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// Everything random on this thread, which must be new, follows from `seed` after this.
pub(crate) fn seed(seed: u64) {
    SEEDED.with_borrow_mut(|seeded| *seeded = Some(StdRng::seed_from_u64(seed)));
}

/// The C library's `getrandom`, of which `flags` only say how to wait.
///
/// # Safety
///
/// `bytes` must point to `length` bytes that may be written.
// SAFETY: the name is that of the C library's function, and so are arguments, result and meaning.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(bytes: *mut c_void, length: usize, _flags: c_uint) -> isize {
    if length == 0 {
        return 0;
    }
    // SAFETY: as the caller promises; zeros are written first, so that all is initialised.
    let bytes = unsafe {
        bytes.cast::<u8>().write_bytes(0, length);
        slice::from_raw_parts_mut(bytes.cast::<u8>(), length)
    };
    let seeded = SEEDED.try_with(|seeded| match seeded.try_borrow_mut() {
        Ok(mut seeded) => seeded.as_mut().map(|seeded| seeded.fill_bytes(bytes)).is_some(),
        Err(_) => false,
    });
    let filled = seeded == Ok(true)
        || File::open("/dev/urandom").and_then(|mut file| file.read_exact(bytes)).is_ok();
    if filled { bytes.len().cast_signed() } else { -1 }
}
