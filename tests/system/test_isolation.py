"""What a function sees of the machine and may do there: only its own."""

import os
import platform
import signal
import socket
import tempfile
import unittest

from support import machine
from support.deploy import Call, EngineCase, Gate, publish, source, unpublish

DENIED = ("EPERM", "ENOSYS", "EACCES")


# Every way out or sideways that tests/functions/python3/escape tries, by the answers that count as refused.
REFUSED = (
    (("EPERM", "ENOSYS"), """
        mount_tmpfs mount_proc mount_cgroup mount_bind mount_private umount_task umount_proc_mask pivot_root chroot chroot_escape open_tree
        move_mount fsopen fsconfig fsmount fspick mount_setattr open_by_handle_at name_to_handle_at unshare_user unshare_mount unshare_net
        unshare_time clone_user clone_pid clone3 setns_by_number setns_own_namespace ptrace_seize_init ptrace_attach_init ptrace_traceme
        process_vm_readv_init process_vm_writev_init process_madvise kcmp_init migrate_pages_init move_pages_init bpf perf_event_open
        userfaultfd io_uring_setup add_key request_key keyctl init_module finit_module delete_module kexec_load kexec_file_load
        settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname reboot swapon swapoff quotactl acct syslog_read
        syslog_console vhangup personality_no_randomize fanotify_init seccomp_of_its_own capset mbind memfd_secret ioprio_real_time
        remount_root remount_usr remount_task remount_proc remount_dev mknod_memory mknod_null mknod_disk give_a_file_to_root
        kill_init init_by_pidfd init_descriptor_by_pidfd become_root become_the_group_of_root join_groups become_somebody_else
        raise_core_size raise_open_files raise_real_time_limit raise_limits_of_init real_time deadline_scheduling affinity_of_init netlink_new_device netlink_new_address
        netlink_new_route mark_packets raw_socket raw_socket_6 packet_socket packet_socket_cooked vsock crypto_socket xdp_socket
        bluetooth netlink_audit netlink_netfilter netlink_device_events netlink_socket_table remount_opt umount_opt"""),
    (("EPERM", "EACCES"), "raise_rank"),
    (("EPERM", "absent"), "lock_much_memory"),
    (("EROFS", "EACCES", "EPERM"), """
        write_core_pattern write_hostname write_overcommit write_own_oom_score write_own_uid_map
        write_init_memory write_init_oom_score write_task write_passwd write_interpreter write_runtime
        make_in_task make_in_runtime make_in_root make_in_usr make_in_dev make_in_etc make_in_opt make_in_run
        write_last_pid write_host_forwarding write_kptr_restrict write_userns_bound write_drop_caches write_init_coredump_filter write_own_memory
        write_own_name write_own_security_label"""),
    # Not there on every kernel, or covered.
    (("EROFS", "EACCES", "EPERM", "ENOENT"), """
        write_resolv_conf write_sysrq write_modprobe write_irq_affinity write_binfmt write_bus write_scsi write_acpi"""),
    (("EACCES", "EPERM", "ENOENT"), """
        read_kcore read_kmsg read_proc_timer_list read_proc_slabinfo read_proc_pagetypeinfo read_proc_vmallocinfo read_proc_kpageflags
        read_proc_kpagecount read_proc_kpagecgroup read_proc_sysrq_trigger read_proc_vmcore read_init_stack read_init_system_call read_own_kernel_stack
        read_bpf_jit_harden read_cad_pid read_stable_secret read_init_io read_proc_mtrr"""),
    (("EACCES", "EPERM"), """
        read_init_environment read_init_memory read_init_root read_init_cwd read_init_descriptors read_init_maps read_init_program"""),
    # Covered: there, and empty. A kernel may also not have it at all.
    (("empty", "EACCES", "ENOENT"), """
        read_kallsyms read_interrupts read_kernel_command_line read_partitions read_proc_bus read_proc_fs read_proc_keys read_sys
        read_run read_host_root_home read_proc_acpi read_proc_asound read_proc_diskstats read_proc_driver read_proc_irq read_proc_modules
        read_proc_scsi read_proc_timer_stats read_proc_sched_debug read_proc_latency_stats"""),
    (("ENOENT",), """
        read_cgroups read_shadow read_funclets_code read_funclets_runtimes read_funclets_new read_dev_mem read_dev_kmsg read_dev_fuse
        read_dev_kvm read_debugfs symlink_to_a_secret symlink_through_the_parents inotify_on_a_folder_of_the_host
        named_socket_of_the_host"""),
    (("EXDEV", "EROFS", "EPERM"), "hard_link_to_a_file_of_the_host hard_link_to_the_package"),
    (("absent",), """
        other_packages_beside_the_own devices_that_are_not_listed cgroup_file_system_somewhere name_of_the_own_cgroup
        writable_mounts_besides_tmp mounts_with_privileged_files kill_parents_of_all foreign_processes number_of_the_channels_peer
        leftover_descriptors parents_of_open_directories dump_core names_in_proc_that_nobody_judged anything_in_proc_for_writing
        descriptors_for_the_engine sockets_and_pipes_besides_the_own abstract_names_in_sight signal_to_init_by_descriptor"""),
    (("EBADF",), "order_to_the_fork_server number_for_init filters_of_the_fork_server"),
    (("EAGAIN",), "descriptors_from_the_engine"),
    (("ENXIO",), "channel_opened_again"),
    (("EINVAL",), "channel_with_a_name"),
    (("ESRCH",), "kill_everybody"),
    (("unprivileged", "absent"), "setuid_program"),
    (("unprivileged",), "setuid_file_of_its_own"),
    # The descriptor of a process outside is of no use, or is not given at all.
    (("EPERM", "EINVAL", "ESRCH", "ENODATA", "ENOPROTOOPT", "EACCES", "ENOTTY"), """
        signal_to_the_channels_peer descriptor_of_the_channels_peer mount_namespace_of_the_channels_peer
        net_namespace_of_the_channels_peer user_namespace_of_the_channels_peer"""),
    (("ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH"), "abstract_socket_of_the_host controller_by_loopback registry_by_loopback"),
)
# What is tried with the folder of the layers, one in it, and those of the package and the runtime.
CHANGED_TREES = ("opt", "opt_python", "task", "runtime")
CHANGES = {
    "make make_folder make_link make_pipe hard_link rename remove chmod chmod_folder chown touch move_folder": ("EROFS",),
    # Modes say no before the mount is asked; or it is another file system than the one that it would have to come from.
    "append cut write_by_proc label": ("EACCES", "EPERM", "EROFS"),
    "replace exchange take_out replace_folder": ("EXDEV", "EROFS"),
}
# Calls by their old conventions, which other architectures never had. The i386 one ends the process: SIGSYS.
REFUSED_ON_X86_64 = (
    (("EPERM", "ENOSYS"), "iopl ioperm modify_ldt call_by_x32_convention"),
    ((f"signal {signal.SIGSYS.value}",), "call_by_i386_convention"),
)


def expected_of_escapes():
    """Accepted answers by attempt."""
    rows = REFUSED + (REFUSED_ON_X86_64 if platform.machine() == "x86_64" else ())
    changes = {f"{name}_in_{tree}_tree": answers for names, answers in CHANGES.items() for name in names.split() for tree in CHANGED_TREES}
    return changes | {name: answers for answers, names in rows for name in names.split()}


# The flags of the files that it has from the engine, which belong to whoever has the same open file.
FLAGS = (
    "import fcntl, os\n"
    "def handler(event, context):\n"
    "    if event.get('mark'):\n"
    "        for fd in range(4):\n"
    "            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)\n"
    "    return {'flags': [fcntl.fcntl(fd, fcntl.F_GETFL) for fd in range(4)]}\n"
)
NODE_FLAGS = "exports.handler = async () => ({ flags: /flags:\\s*(\\d+)/.exec(require('fs').readFileSync('/proc/self/fdinfo/0', 'utf8'))[1] });\n"


def status_of(pid):
    """The fields of /proc/PID/status as the host sees them."""
    lines = (machine.PROC / str(pid) / "status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


def addresses_of_this_machine():
    """Addresses by which somebody could try to reach the host."""
    found = {"127.0.0.1", "169.254.169.254", "10.0.0.1", "192.0.2.1"}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            found.add(probe.getsockname()[0])
        except OSError:
            pass
    return sorted(found)


class EscapeTests:
    """Every attempt of the escape function; for any engine, whatever its containers have as their root."""

    @classmethod
    def escapes(cls):
        """How every attempt of the escape function ended, with sockets of the host there for it to find."""
        name = f"faaster-escape-{os.getpid()}"
        ports = [int(address.rsplit(":", 1)[1]) for address in (cls.node.controller, cls.node.registry)]
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as abstract, socket.socket(socket.AF_UNIX) as named:
            os.chmod(folder, 0o755)
            path = f"{folder}/socket"
            for server, address in ((abstract, "\0" + name), (named, path)):
                server.bind(address)
                server.listen()
            os.chmod(path, 0o777)
            answer = cls.node.invoke("escape", {"abstract": name, "named": path, "ports": ports})
        assert answer.headers["X-Easyfaas-Function-Error"] is None, answer
        return answer.json()

    def test_every_way_out_or_sideways_is_refused(self):
        layer = publish(self.node, "mine", {"same": "mine", "python/layered.py": "WHO = 'mine'\n"})
        self.addCleanup(unpublish, self.node, layer)
        self.deploy("escape", source("escape"), Timeout=60, MemorySize=256, Layers=[layer])
        ended, expected = self.escapes(), expected_of_escapes()
        works = {name: how for name, how in ended.items() if name.startswith("works_")}
        self.assertEqual(set(works.values()), {"done"}, works)
        tried = {name: how for name, how in ended.items() if name not in works}
        self.assertEqual(set(tried), set(expected), "attempts that the table does not have, or that were not made")
        self.assertGreaterEqual(len(tried), 60)
        for name, how in tried.items():
            with self.subTest(name):
                self.assertIn(how, expected[name])
        # Whatever was tried, the engine is well.
        self.deploy("after", "def handler(event, context):\n    return 'well'\n")
        self.assertEqual(self.good(self.node.invoke("after")).text, "well")


class IsolationTest(EscapeTests, EngineCase):
    POOL = {"python3": 2, "nodejs": 1, "ruby": 0, "provided": 0}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.deploy("probe", source("probe"), Timeout=60, MemorySize=256)
        cls.deploy("other", source("probe"), Timeout=60, MemorySize=256)
        ports = [int(address.rsplit(":", 1)[1]) for address in (cls.node.controller, cls.node.registry)]
        cls.event = {
            "addresses": [(host, port) for host in addresses_of_this_machine() for port in (*ports, 22)],
            "pids": [os.getpid(), cls.node.process.pid, *cls.node.children("faaster")],
        }
        answer = cls.node.invoke("probe", cls.event)
        assert answer.headers["X-Easyfaas-Function-Error"] is None, answer
        cls.seen = answer.json()
        cls.other = cls.node.invoke("other", cls.event).json()

    def held(self, name, function="probe"):
        """Pids on the host of a container that runs a function, until the test ends."""
        call = Call(self.node, function, {"keep": name})
        gate = Gate(self.node, name)
        self.addCleanup(call.answer)
        self.addCleanup(gate.open)
        return gate.pids

    def test_nobody_is_root(self):
        self.assertNotEqual(self.seen["identity"]["uid"], 0)
        self.assertNotEqual(self.seen["identity"]["gid"], 0)
        self.assertEqual(set(self.seen["identity"]["changes"].values()) - set(DENIED), set() , self.seen["identity"])
        for name in ("Uid", "Gid"):
            self.assertNotIn("0", self.seen["status"][name].split("\t"))
        for pid in self.held("root-check"):
            status = status_of(pid)
            self.assertNotIn("0", status["Uid"].split(), f"{status['Name']} is root on the host")
            self.assertNotIn("0", status["Gid"].split())
            self.assertEqual(status["Groups"].split(), [g for g in status["Groups"].split() if g != "0"])

    def test_containers_have_different_users(self):
        first, second = self.held("first"), self.held("second", "other")
        self.assertFalse({status_of(pid)["Uid"].split()[0] for pid in first} & {status_of(pid)["Uid"].split()[0] for pid in second})

    def test_no_capability_is_left(self):
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            self.assertEqual(int(self.seen["status"][name], 16), 0, name)
        self.assertEqual(self.seen["status"]["NoNewPrivs"], "1")
        self.assertEqual(self.seen["status"]["Seccomp"], "2")
        for pid in self.held("caps"):
            status = status_of(pid)
            self.assertEqual((int(status["CapEff"], 16), int(status["CapPrm"], 16), status["NoNewPrivs"]), (0, 0, "1"), status["Name"])
            if status["Name"] != "faaster-init":
                self.assertEqual(status["Seccomp"], "2", status["Name"])

    def test_process_1_which_has_no_filter_is_out_of_reach(self):
        for what, result in self.seen["init"].items():
            self.assertIn(result, DENIED, what)

    def test_the_engine_itself_has_none(self):
        status = status_of(self.node.engine_pid())
        self.assertNotIn("0", status["Uid"].split())
        self.assertEqual((int(status["CapEff"], 16), int(status["CapPrm"], 16), status["NoNewPrivs"], status["Seccomp"]), (0, 0, "1", "2"))

    def test_system_calls_that_lead_out_are_denied(self):
        for name, result in self.seen["syscalls"].items():
            self.assertIn(result, DENIED, name)
        for name in ("clone3", "io_uring_setup"):
            self.assertEqual(self.seen["syscalls"][name], "ENOSYS", "libraries fall back only then")
        self.assertIn(self.seen["identity"]["changes"]["device"], DENIED)
        for place, result in self.seen["remount"].items():
            self.assertIn(result, DENIED, place)

    def test_only_tmp_can_be_written(self):
        for place, result in self.seen["writes"].items():
            self.assertIn(result, ("EROFS", "EACCES", "EPERM", "ENOENT"), place)
        for place in ("/x", "/usr/x", "/var/task/x", "/var/task/index.py", "/var/runtime/x"):
            self.assertIn(self.seen["writes"][place], ("EROFS", "EACCES"), place)
        options = {line.split()[4]: line.split()[5].split(",") for line in self.seen["mounts"].splitlines()}
        for place in ("/", "/usr", "/var/task"):
            self.assertIn("ro", options[place], place)
        for place in ("/var/task", "/tmp"):
            self.assertLessEqual({"nosuid", "nodev"}, set(options[place]), place)
        self.assertTrue(64 << 20 <= self.seen["tmp_bytes"] <= 10_240 << 20)

    def test_cgroup_and_environment_say_nothing_of_the_host(self):
        self.assertNotIn(self.node.instance, self.seen["cgroup"])
        for name in self.seen["environment"]:
            self.assertFalse(name.startswith("FAASTER_"), name)

    def test_only_its_own_processes_are_there(self):
        self.assertIn("1", self.seen["processes"])
        self.assertLessEqual(len(self.seen["processes"]), 3, self.seen["processes"])
        # A number of the host that one of its own processes has as well says nothing.
        foreign = {pid: result for pid, result in self.seen["signals"].items() if pid not in self.seen["processes"]}
        self.assertEqual(set(foreign.values()) - {"ESRCH"}, set(), "signals to processes of the host")

    def test_the_network_is_its_own(self):
        network = self.seen["network"]
        self.assertEqual(sorted(network["interfaces"]), ["eth0", "lo"])
        self.assertEqual(network["loopback"], "done")
        for address, result in network["reached"].items():
            self.assertIn(result, ("ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "EPERM", "ETIMEDOUT"), address)
        for family in ("packet", "raw"):
            self.assertIn(network["families"][family], DENIED, family)

    def test_every_namespace_is_its_own(self):
        host = {name: os.readlink(f"/proc/self/ns/{name}") for name in self.seen["namespaces"]}
        for name, identity in self.seen["namespaces"].items():
            self.assertNotEqual(identity, host[name], name)
            self.assertNotEqual(identity, self.other["namespaces"][name], name)

    def test_the_host_name_is_its_own(self):
        self.assertNotEqual(self.seen["hostname"], socket.gethostname())
        self.assertTrue(self.seen["hostname"])

    def test_few_descriptors(self):
        self.assertLessEqual(set(self.seen["descriptors"]), {"0", "1", "2", "3"}, self.seen["descriptors"])
        self.assertEqual(self.seen["descriptors"]["0"], "/dev/null")
        for number in ("1", "2"):
            self.assertTrue(self.seen["descriptors"][number].startswith("pipe:"))
        self.assertTrue(self.seen["descriptors"]["3"].startswith("socket:"))

    def test_no_open_file_is_shared_with_another_container(self):
        """What one sets on its descriptors another must not find on its own: it would be a way between accounts."""
        for number, runtime in enumerate(("python3", "python3", "python3-exec", "python3-exec")):
            self.deploy(f"flags-{number}", FLAGS, runtime=runtime)
        plain = [self.call(f"flags-{number}") for number in range(4)]
        for number in (0, 2):
            marked = self.call(f"flags-{number}", {"mark": True})
            self.assertTrue(all(flags & os.O_APPEND for flags in marked["flags"]), marked)
        for number in (1, 3):
            self.assertEqual(self.call(f"flags-{number}"), plain[number])
        # Neither on those that are handed out later.
        self.deploy("flags-late", FLAGS)
        self.assertEqual(self.call("flags-late"), plain[0])
        self.deploy("flags-node", {"index.js": NODE_FLAGS}, runtime="nodejs")
        self.assertEqual(int(self.call("flags-node")["flags"], 8) & os.O_APPEND, 0)

    def test_few_devices(self):
        self.assertLessEqual({"null", "zero", "full", "random", "urandom"}, set(self.seen["dev"]))
        for name in self.seen["dev"]:
            self.assertIn(name, ("null", "zero", "full", "random", "urandom", "tty", "fd", "stdin", "stdout", "stderr", "shm", "pts", "ptmx",
                                 "mqueue", "core"))

    def test_the_root_holds_little(self):
        self.assertLessEqual({"usr", "tmp", "proc", "dev", "var"}, set(self.seen["root"]))
        self.assertEqual(self.seen["filled"], [], "folders of the host that are not its business")
        self.assertLessEqual(set(self.seen["opt"]), {"bin", "lib"}, "places for layers, of which it has none")
        self.assertEqual(self.seen["tmp"], [])

    def test_tmp_is_not_shared(self):
        self.deploy("writer", "import os\ndef handler(event, context):\n    open('/tmp/secret', 'w').write('x')\n    return os.listdir('/tmp')\n")
        self.deploy("reader", "import os\ndef handler(event, context):\n    return os.listdir('/tmp')\n")
        self.assertEqual(self.call("writer"), ["secret"])
        self.assertEqual(self.call("reader"), [])

    def test_a_node_process_is_no_freer(self):
        self.deploy("node-probe", source("probe", "nodejs"), runtime="nodejs")
        seen = self.call("node-probe")
        self.assertNotEqual(seen["uid"], 0)
        self.assertEqual((int(seen["status"]["CapEff"], 16), seen["status"]["NoNewPrivs"], seen["status"]["Seccomp"]), (0, "1", "2"))
        self.assertIn(seen["written"], ("EROFS", "EACCES"))
        self.assertLessEqual(len(seen["processes"]), 3)
        self.assertLessEqual(set(seen["interfaces"]), {"lo", "eth0"})
        sockets = [number for number, target in seen["descriptors"].items() if target.startswith("socket:")]
        self.assertEqual(sockets, ["3"], seen["descriptors"])
        for number, target in seen["descriptors"].items():
            self.assertTrue(target.startswith(("/dev/null", "pipe:", "socket:", "anon_inode:")), (number, target))


if __name__ == "__main__":
    unittest.main()
