//! The filters by family: each way out that they close is a row, tried on the filter's code and on the kernel.
//!
//! Owns: the rows. A filter's verdict is read by running its instructions, so that no errno of the kernel's own can be
//! taken for the filter's; that the kernel obeys is tried in threads that end, as a filter binds a thread for good.

use libc::c_long;

use super::*;
use crate::ring::{GroupSize, Uring, UringConfig};

/// What a process asks: a call and its arguments, those left out being 0.
type Ask = (c_long, &'static [u64]);

/// Calls that belong together, and what each is answered.
struct Family {
    name: &'static str,
    answer: i32,
    asks: &'static [Ask],
}

const fn family(name: &'static str, asks: &'static [Ask]) -> Family {
    Family { name, answer: libc::EPERM, asks }
}

/// `CLONE_NEW*` of include/uapi/linux/sched.h.
const NEW_NAMESPACES: [(&str, u64); 8] = [
    ("time", 0x80),
    ("mount", 0x2_0000),
    ("cgroup", 0x200_0000),
    ("uts", 0x400_0000),
    ("ipc", 0x800_0000),
    ("user", 0x1000_0000),
    ("pid", 0x2000_0000),
    ("net", 0x4000_0000),
];
const SIGCHLD: u64 = 17;
const AF_NETLINK: u64 = 16;
const SOCK_RAW: u64 = 3;
/// An argument that no call accepts, where 0 would mean something.
const NONSENSE: u64 = u64::MAX;

const DENIED: &[Family] = &[
    Family {
        name: "rings",
        answer: libc::ENOSYS,
        asks: &[
            (libc::SYS_io_uring_setup, &[]),
            (libc::SYS_io_uring_enter, &[NONSENSE]),
            (libc::SYS_io_uring_register, &[NONSENSE]),
        ],
    },
    Family { name: "clone with flags out of sight", answer: libc::ENOSYS, asks: &[(libc::SYS_clone3, &[])] },
    family("bpf", &[(libc::SYS_bpf, &[NONSENSE])]),
    family(
        "keys",
        &[(libc::SYS_keyctl, &[NONSENSE]), (libc::SYS_add_key, &[]), (libc::SYS_request_key, &[])],
    ),
    family(
        "mounts",
        &[
            (libc::SYS_mount, &[]),
            (libc::SYS_umount2, &[]),
            (libc::SYS_pivot_root, &[]),
            (libc::SYS_chroot, &[]),
            (libc::SYS_open_tree, &[NONSENSE]),
            (libc::SYS_move_mount, &[NONSENSE]),
            (libc::SYS_fsopen, &[]),
            (libc::SYS_fsconfig, &[NONSENSE]),
            (libc::SYS_fsmount, &[NONSENSE]),
            (libc::SYS_fspick, &[NONSENSE]),
            (libc::SYS_mount_setattr, &[NONSENSE]),
        ],
    ),
    family(
        "other processes' memory and descriptors",
        &[
            (libc::SYS_ptrace, &[NONSENSE]),
            (libc::SYS_process_vm_readv, &[NONSENSE]),
            (libc::SYS_process_vm_writev, &[NONSENSE]),
            (libc::SYS_process_madvise, &[NONSENSE]),
            (libc::SYS_kcmp, &[]),
            (libc::SYS_migrate_pages, &[NONSENSE]),
            (libc::SYS_move_pages, &[NONSENSE]),
        ],
    ),
    family("namespaces", &[(libc::SYS_unshare, &[0x1000_0000]), (libc::SYS_setns, &[NONSENSE])]),
    family("perf", &[(libc::SYS_perf_event_open, &[])]),
    family(
        "modules",
        &[
            (libc::SYS_init_module, &[]),
            (libc::SYS_finit_module, &[NONSENSE]),
            (libc::SYS_delete_module, &[]),
        ],
    ),
    family("kexec", &[(libc::SYS_kexec_load, &[]), (libc::SYS_kexec_file_load, &[NONSENSE])]),
    family(
        "setting clocks",
        &[
            (libc::SYS_settimeofday, &[]),
            (libc::SYS_clock_settime, &[NONSENSE]),
            (libc::SYS_clock_adjtime, &[NONSENSE]),
            (libc::SYS_adjtimex, &[]),
        ],
    ),
    family(
        "raw and packet sockets",
        &[
            (libc::SYS_socket, &[2, SOCK_RAW, 1]),
            (libc::SYS_socket, &[10, SOCK_RAW, 58]),
            (libc::SYS_socket, &[17, SOCK_RAW, 0]),
            (libc::SYS_socket, &[2, SOCK_RAW | 0x8_0000, 1]),
        ],
    ),
    family(
        "kinds of sockets that nobody needs",
        &[
            (libc::SYS_socket, &[40, 1, 0]),
            (libc::SYS_socket, &[38, 5, 0]),
            (libc::SYS_socket, &[31, SOCK_RAW, 1]),
            (libc::SYS_socket, &[44, 2, 0]),
            (libc::SYS_socket, &[AF_NETLINK, SOCK_RAW, 9]),
            (libc::SYS_socket, &[AF_NETLINK, SOCK_RAW, 12]),
            (libc::SYS_socket, &[AF_NETLINK, SOCK_RAW, 4]),
        ],
    ),
    family("page faults in user space", &[(libc::SYS_userfaultfd, &[NONSENSE])]),
    family(
        "files by handle",
        &[(libc::SYS_open_by_handle_at, &[NONSENSE]), (libc::SYS_name_to_handle_at, &[NONSENSE])],
    ),
    family(
        "watching file systems",
        &[(libc::SYS_fanotify_init, &[NONSENSE]), (libc::SYS_fanotify_mark, &[NONSENSE])],
    ),
    family(
        "the machine's names, log, power, swap, quotas, accounting",
        &[
            (libc::SYS_sethostname, &[0, NONSENSE]),
            (libc::SYS_setdomainname, &[0, NONSENSE]),
            (libc::SYS_syslog, &[NONSENSE]),
            (libc::SYS_reboot, &[]),
            (libc::SYS_swapon, &[]),
            (libc::SYS_swapoff, &[]),
            (libc::SYS_quotactl, &[NONSENSE]),
            (libc::SYS_quotactl_fd, &[NONSENSE]),
            (libc::SYS_acct, &[NONSENSE]),
            (libc::SYS_vhangup, &[]),
        ],
    ),
    family("capabilities", &[(libc::SYS_capset, &[])]),
    family("other personalities", &[(libc::SYS_personality, &[0x040_0000])]),
    family(
        "typing into terminals",
        &[
            (libc::SYS_ioctl, &[0, libc::TIOCSTI]),
            (libc::SYS_ioctl, &[0, libc::TIOCLINUX]),
            // The kernel looks at 32 bits of the request alone.
            (libc::SYS_ioctl, &[0, libc::TIOCSTI | 1 << 32]),
        ],
    ),
    family("filters of its own", &[(libc::SYS_seccomp, &[NONSENSE])]),
    family("where memory lies", &[(libc::SYS_mbind, &[NONSENSE]), (libc::SYS_set_mempolicy, &[NONSENSE])]),
    family("extended attributes", &[(libc::SYS_setxattr, &[]), (libc::SYS_fsetxattr, &[NONSENSE])]),
];

#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[Family] = &[
    family(
        "ports and segments",
        &[(libc::SYS_iopl, &[3]), (libc::SYS_ioperm, &[NONSENSE]), (libc::SYS_modify_ldt, &[NONSENSE])],
    ),
    family("calls of half a century ago", &[(libc::SYS_uselib, &[]), (libc::SYS_sysfs, &[NONSENSE])]),
    // Number 56 is clone; this bit asks for the x32 calling convention.
    family("the x32 convention", &[(56 | 0x4000_0000, &[SIGCHLD]), (0x4000_0000, &[NONSENSE])]),
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[Family] = &[];

/// What programs cannot do without, of the calls that are allowed with some arguments only.
const NEEDED: &[Ask] = &[
    (libc::SYS_socket, &[1, 1, 0]),
    (libc::SYS_socket, &[2, 1 | 0x8_0800, 6]),
    (libc::SYS_socket, &[10, 2, 17]),
    (libc::SYS_socket, &[AF_NETLINK, SOCK_RAW | 0x8_0000, 0]),
    (libc::SYS_clone, &[SIGCHLD]),
    // A thread, as glibc makes it.
    (libc::SYS_clone, &[0x3d_0f00]),
    (libc::SYS_ioctl, &[0, libc::FIONREAD]),
    (libc::SYS_personality, &[0]),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allowed,
    Errno(i32),
    Killed,
}

/// Linux's numbers of architectures, include/uapi/linux/audit.h.
const HERE: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
const I386: u32 = 0x4000_0003;

/// Runs the instructions of one filter over a call, as the kernel does (seccomp(2), `struct seccomp_data`).
fn run(program: &BpfProgram, arch: u32, (call, arguments): Ask) -> u32 {
    let mut data = [0u8; 64];
    data[..4].copy_from_slice(&u32::try_from(call).unwrap().to_ne_bytes());
    data[4..8].copy_from_slice(&arch.to_ne_bytes());
    for (at, argument) in arguments.iter().enumerate() {
        data[16 + 8 * at..24 + 8 * at].copy_from_slice(&argument.to_ne_bytes());
    }
    let (mut at, mut held) = (0, 0u32);
    loop {
        let step = &program[at];
        let jump = |holds| usize::from(if holds { step.jt } else { step.jf });
        at += 1;
        match step.code {
            0x20 => {
                let from = usize::try_from(step.k).unwrap();
                held = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
            }
            0x54 => held &= step.k,
            0x05 => at += usize::try_from(step.k).unwrap(),
            0x15 => at += jump(held == step.k),
            0x25 => at += jump(held > step.k),
            0x35 => at += jump(held >= step.k),
            0x06 => return step.k,
            code => panic!("seccompiler uses no instruction {code:#x}"),
        }
    }
}

/// What the kernel makes of all filters: the strictest counts, of equally strict ones the last installed.
fn verdict(filters: &Filters, arch: u32, ask: Ask) -> Verdict {
    let mut last = Verdict::Allowed;
    for program in &filters.0 {
        let value = run(program, arch, ask);
        match value & 0xffff_0000 {
            0x7fff_0000 => {}
            0x0005_0000 => last = Verdict::Errno(i32::try_from(value & 0xffff).unwrap()),
            _ => return Verdict::Killed,
        }
    }
    last
}

fn denied() -> impl Iterator<Item = &'static Family> {
    DENIED.iter().chain(DENIED_HERE)
}

#[test]
fn every_family_is_denied_by_the_filters_themselves() {
    let filters = function_filters().unwrap();
    for family in denied() {
        for ask in family.asks {
            let expected = Verdict::Errno(family.answer);
            assert_eq!(verdict(&filters, HERE, *ask), expected, "{}: {ask:x?}", family.name);
        }
    }
    for (name, flag) in NEW_NAMESPACES {
        let flags: &'static [u64] = Box::leak(Box::new([flag | SIGCHLD]));
        let expected = Verdict::Errno(libc::EPERM);
        assert_eq!(verdict(&filters, HERE, (libc::SYS_clone, flags)), expected, "{name} namespace");
    }
}

#[test]
fn what_is_on_no_list_is_denied_and_what_is_on_one_is_not() {
    let filters = function_filters().unwrap();
    let conditional = conditional_rules().unwrap();
    for call in 0..1024 {
        let expected = if lists::MISSING.contains(&call) {
            Verdict::Errno(libc::ENOSYS)
        } else if lists::ALLOWED.contains(&call) {
            Verdict::Allowed
        } else if conditional.contains_key(&call) {
            continue;
        } else {
            Verdict::Errno(libc::EPERM)
        };
        assert_eq!(verdict(&filters, HERE, (call, &[])), expected, "{call}");
    }
    for ask in NEEDED {
        assert_eq!(verdict(&filters, HERE, *ask), Verdict::Allowed, "{ask:x?}");
    }
}

#[test]
fn a_call_by_another_architectures_convention_ends_the_process() {
    let filters = function_filters().unwrap();
    for call in [1, 20, 120] {
        assert_eq!(verdict(&filters, I386, (call, &[])), Verdict::Killed, "{call}");
    }
}

fn call_for_real((call, arguments): Ask) -> i32 {
    let all: Vec<u64> = arguments.iter().copied().chain(std::iter::repeat(0)).take(6).collect();
    // SAFETY: the filter of this thread answers before the kernel looks at any argument, which the test made sure of
    // by running the filter's code; even without it none of these arguments would be accepted or point anywhere.
    let result = unsafe { libc::syscall(call, all[0], all[1], all[2], all[3], all[4], all[5]) };
    assert_eq!(result, -1, "{call} succeeded");
    rustix::io::Errno::from_io_error(&std::io::Error::last_os_error()).unwrap().raw_os_error()
}

#[test]
fn the_kernel_denies_every_family_too() {
    std::thread::spawn(|| {
        let filters = function_filters().unwrap();
        filters.install(Scope::CallingThread).unwrap();
        for family in denied() {
            for ask in family.asks {
                assert_eq!(verdict(&filters, HERE, *ask), Verdict::Errno(family.answer));
                assert_eq!(call_for_real(*ask), family.answer, "{}: {ask:x?}", family.name);
            }
        }
        assert!(std::fs::read("/proc/self/stat").is_ok());
        assert!(std::thread::spawn(|| 1).join().is_ok(), "threads are made, in spite of clone3");
    })
    .join()
    .unwrap();
}

#[test]
fn the_engine_is_denied_what_only_a_way_out_would_need() {
    let filters = engine_filter().unwrap();
    for call in lists::DENIED_TO_ENGINE {
        assert_eq!(verdict(&filters, HERE, (*call, &[])), Verdict::Errno(libc::EPERM), "{call}");
    }
    for call in [libc::SYS_io_uring_enter, libc::SYS_clone3, libc::SYS_openat, libc::SYS_fsync] {
        assert_eq!(verdict(&filters, HERE, (call, &[])), Verdict::Allowed, "{call}");
    }
}

#[test]
fn an_engine_with_its_filter_gets_no_ring_and_no_program() {
    std::thread::spawn(|| {
        let buffers = GroupSize { count: 8, bytes: 4096 };
        let config = UringConfig {
            entries: 8,
            completions: 16,
            client_buffers: buffers,
            instance_buffers: buffers,
            direct_descriptors: 8,
        };
        if let Err(refusal) = Uring::prepare(&config) {
            eprintln!("skipped: no ring can be made here without a filter either: {refusal}");
            return;
        }
        engine_filter().unwrap().install(Scope::CallingThread).unwrap();
        assert!(Uring::prepare(&config).is_err(), "new rings are denied");
        assert!(std::process::Command::new("/bin/true").status().is_err(), "execve is denied");
        assert!(std::thread::spawn(|| 1).join().is_ok(), "threads are not");
    })
    .join()
    .unwrap();
}

#[test]
fn filters_survive_the_trip_to_another_process() {
    let filters = function_filters().unwrap();
    assert_eq!(Filters::from_bytes(&filters.to_bytes()).unwrap(), filters);
    assert!(filters.0.iter().all(|program| program.len() < INSTRUCTIONS_MAX));
}

#[test]
fn truncated_and_foreign_bytes_are_refused() {
    let bytes = engine_filter().unwrap().to_bytes();
    for cut in [0, 1, 2, bytes.len() - 1] {
        assert!(matches!(Filters::from_bytes(&bytes[..cut]), Err(SeccompError::Bytes)), "{cut}");
    }
    let mut long = bytes.clone();
    long.push(0);
    assert!(matches!(Filters::from_bytes(&long), Err(SeccompError::Bytes)));
    assert!(matches!(Filters::from_bytes(&[200]), Err(SeccompError::Bytes)));
}

#[test]
fn no_call_is_both_allowed_and_missing() {
    for call in lists::MISSING {
        assert!(!lists::ALLOWED.contains(call), "{call}");
    }
}
