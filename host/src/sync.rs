//! A lock that a panic does not poison: what it guards is whole between any two statements here.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex, whatever became of its last holder.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
