//! Test support: an allocator that counts what chosen threads allocate.
//!
//! Owns: each thread's counter. A test makes [`CountingAllocator`] its `#[global_allocator]` and lets the thread under
//! test call [`count_this_thread`]; other threads are not counted. Must not know: who counts what for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    // Initialised at compile time and without a destructor: to look at it neither allocates nor ever fails.
    static COUNTER: Cell<Option<&'static AtomicU64>> = const { Cell::new(None) };
}

/// From now on each allocation and reallocation of the calling thread adds 1 to `counter`.
pub fn count_this_thread(counter: &'static AtomicU64) {
    COUNTER.set(Some(counter));
}

fn count() {
    if let Some(counter) = COUNTER.get() {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The system's allocator, counted.
#[derive(Debug, Clone, Copy)]
pub struct CountingAllocator;

// SAFETY: every method hands its arguments to the system's allocator unchanged and its answer back, so what holds of
// that one holds here; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`: the layout's size is not 0.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc_zeroed`: the layout's size is not 0.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`: the block is this allocator's, which is the system's, with
        // this layout, and the new size is neither 0 nor too large.
        unsafe { System.realloc(pointer, layout, bytes) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`: the block is this allocator's, which is the system's, with
        // this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}
