# What the virtual machine can run, by name. Sourced by tests/vm/run and tests/vm/guest.

# Rust tests that need a real kernel, then every module of tests/system, so that none is forgotten. Sourced at the tree's root.
RUST=(sys netlink shard funclet)
mapfile -t SYSTEM < <(basename -s .py -a tests/system/test_*.py)
ALL=("${RUST[@]}" "${SYSTEM[@]}" conformance)
# What runs unless more is asked for.
CHOSEN=(sys netlink shard funclet:claims funclet:reclaimed funclet:resize funclet:reuse faults
    test_cgroups test_isolation test_resources test_forks test_reuse test_usage)
# Ends of instances that the kernel's limits and signals bring about.
ENDS="a_process_that_runs_out_of_memory_is_named_so a_fork_bomb_is_bounded_and_the_node_survives
    the_number_of_processes_has_an_end daemons_go_with_their_container a_process_that_is_killed"
# Places at which a funclet ends in `faults`: around what the two versions of cgroups do differently.
FAULTS="create-cgroups claim-limits end-killed fork-born freeze-done thaw-done"
# A part that takes longer hangs.
PART_TIMEOUT_S=900

# run_part PART: in a pid namespace of its own, whose end nothing survives.
run_part() {
    export -f part rust
    export TREE OUT ENDS FAULTS
    # bash is process 1 there: it reaps what is left to it.
    timeout --kill-after=10 "$PART_TIMEOUT_S" \
        unshare --pid --fork --kill-child --mount-proc bash -uo pipefail -c 'part "$1"; exit $?' part "$1"
}

# part NAME: for Rust, NAME:FILTER runs the tests whose name holds the filter. `ends` are some of test_failures, `faults` is
# test_faults at some of its places.
part() {
    local name=${1%%:*} filter=() ends
    [ "$name" = "$1" ] || filter=("${1#*:}")
    case "$name" in
        sys) rust engine/sys faaster_sys "${filter[@]}" ;;
        netlink) rust netlink system "${filter[@]}" ;;
        shard) rust engine/shard loopback "${filter[@]}" ;;
        funclet) rust engine/funclet system --test-threads=1 "${filter[@]}" ;;
        conformance) cd "$TREE" && /usr/bin/python3 tests/conformance.py ;;
        ends)
            read -ra ends <<<"${ENDS//$'\n'/ }"
            cd "$TREE/tests" && /usr/bin/python3 -m unittest -v "${ends[@]/#/system.test_failures.PythonFailureTest.test_}"
            ;;
        faults) cd "$TREE/tests" && FAASTER_TEST_FAULTS=$FAULTS /usr/bin/python3 -m unittest -v system.test_faults ;;
        test_*) cd "$TREE/tests" && /usr/bin/python3 -m unittest -v "system.$1" ;;
        *) echo "there is no part $1"; return 1 ;;
    esac
}

# rust FOLDER TARGET ARGUMENT...: a test program as cargo runs it.
rust() {
    local folder=$TREE/$1 target=$2 program
    shift 2
    program=$(awk -v folder="$folder" -v target="$target" '$1 == folder && $2 == target { print $3 }' "$OUT/programs")
    [ -n "$program" ] || { echo "cargo made no test program $target in $folder"; return 1; }
    cd "$folder" && "$program" "$@"
}
