//! A group's share of the processors, in both versions of cgroups.
//!
//! Owns: the order of its two files. Must not know: who deserves how much.

use super::files::write_number;
use super::{CgroupError, CpuShare, LimitFiles};

/// Name of the file that makes a group get what others leave, the same in both versions.
pub(super) const CPU_IDLE: &str = "cpu.idle";

/// Writes a share: `weight_file` and its value for this memory are the version's own.
pub(super) fn write_share(
    files: &LimitFiles,
    share: CpuShare,
    weight_file: &'static str,
    weight_of: impl Fn(u32) -> u64,
) -> Result<(), CgroupError> {
    let set_idle = |value| files.idle.as_ref().map_or(Ok(()), |idle| write_number(idle, CPU_IDLE, value));
    match share {
        CpuShare::Spare => set_idle(1),
        CpuShare::OfMemoryMb(memory_mb) => {
            // First, for an idle group's weight cannot be set.
            set_idle(0)?;
            files.cpu.as_ref().map_or(Ok(()), |cpu| write_number(cpu, weight_file, weight_of(memory_mb)))
        }
    }
}
