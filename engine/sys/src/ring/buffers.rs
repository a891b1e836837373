//! Provided buffers: memory that the kernel fills on its own account (io_uring_register(2), IORING_REGISTER_PBUF_RING).
//!
//! Owns: one mapping per group, which holds the shared ring of descriptors and the buffers behind it.
//! The mapping is never unmapped: a shard's ring lives as long as its process, and so a [`Lease`] can hold a plain
//! reference into it. Must not know: what the bytes mean.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, cqueue};
use rustix::mm::{MapFlags, ProtFlags};

use super::{Group, Lease, LeaseKind};

/// Count and size of a group's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupSize {
    /// A power of two, at most 32,768.
    pub count: u16,
    pub bytes: usize,
}

#[derive(Debug)]
pub(super) struct BufferGroup {
    group: Group,
    size: GroupSize,
    entries: NonNull<BufRingEntry>,
    buffers: NonNull<u8>,
    /// Next position to fill in the shared ring; the kernel sees it through `publish`.
    tail: u16,
}

const ENTRY_BYTES: usize = size_of::<BufRingEntry>();
const _: () = assert!(ENTRY_BYTES == 16, "struct io_uring_buf of linux/io_uring.h");

impl BufferGroup {
    /// Maps memory for the group, registers it with `ring` and offers all buffers.
    pub(super) fn register(ring: &IoUring, group: Group, size: GroupSize) -> io::Result<Self> {
        assert!(size.count.is_power_of_two() && size.bytes > 0 && size.bytes <= u32::MAX as usize);
        let entries_bytes = (usize::from(size.count) * ENTRY_BYTES).next_multiple_of(4096);
        let total_bytes = entries_bytes + usize::from(size.count) * size.bytes;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                total_bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        let entries = NonNull::new(base.cast::<BufRingEntry>()).expect("mmap never answers with page 0");
        // SAFETY: `entries_bytes` < `total_bytes`, so the result stays inside the mapping just made.
        let buffers = unsafe { entries.cast::<u8>().add(entries_bytes) };
        let mut this = Self { group, size, entries, buffers, tail: 0 };
        // SAFETY: the address is page-aligned and holds `count` entries; the mapping is never unmapped, so it
        // outlives the registration.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                entries.as_ptr() as u64,
                size.count,
                group as u16,
                0,
            )
        }?;
        for index in 0..size.count {
            this.offer(index);
        }
        this.publish();
        Ok(this)
    }

    fn address(&self, index: u16) -> NonNull<u8> {
        assert!(index < self.size.count);
        // SAFETY: index < count (asserted), and the mapping holds count x bytes from `buffers` on.
        unsafe { self.buffers.add(usize::from(index) * self.size.bytes) }
    }

    fn offer(&mut self, index: u16) {
        let address = self.address(index).as_ptr() as u64;
        let position = usize::from(self.tail & (self.size.count - 1));
        // SAFETY: position < count, so the entry lies inside the mapping.
        let mut at = unsafe { self.entries.add(position) };
        // SAFETY: the mapping is readable, writable and aligned; the kernel reads an entry only after `publish`
        // moved the tail past it, so nobody else looks at it now.
        let entry = unsafe { at.as_mut() };
        entry.set_addr(address);
        entry.set_len(u32::try_from(self.size.bytes).expect("checked when the group was registered"));
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel all buffers offered so far.
    fn publish(&self) {
        // SAFETY: `entries` is the first entry of the registered ring, zeroed or filled, never unmapped.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the address is aligned for u16 and valid for the life of the process; all accesses to it, ours and the
        // kernel's, are atomic.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: the kernel must see the entries before the tail that covers them.
        tail.store(self.tail, Ordering::Release);
    }

    /// The bytes that a completion with these flags and this length filled.
    pub(super) fn lend(&self, flags: u32, length: usize) -> Option<Lease> {
        let index = cqueue::buffer_select(flags)?;
        assert!(length <= self.size.bytes, "the kernel filled more than a buffer holds");
        let address = self.address(index);
        // SAFETY: the mapping lives for the rest of the process, `length` bytes of this buffer were filled by the kernel,
        // and it does not write to the buffer again until `take_back` offers it anew, which consumes the lease.
        let bytes: &'static [u8] = unsafe { std::slice::from_raw_parts(address.as_ptr(), length) };
        Some(Lease(LeaseKind::Mapped { bytes, group: self.group, index }))
    }

    pub(super) fn take_back(&mut self, index: u16) {
        self.offer(index);
        self.publish();
    }
}
