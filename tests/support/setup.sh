# What quickstart and tests/run have in common: checks, packages, the build. Sourced by both; needs bash.

# Says something about the run itself, apart from what the programs say.
say() { printf '== %s\n' "$*" >&2; }

# Ends with the exit code for a missing privilege, package or feature.
refuse() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 2
}

need_root() {
    [ "$(id -u)" = 0 ] || refuse "containers can only be made by root: run it as root, or with sudo"
}

# The engine checks the kernel itself; this is only what would waste a whole build.
need_kernel() {
    local switch=/proc/sys/kernel/io_uring_disabled
    if [ -r "$switch" ] && [ "$(cat "$switch")" != 0 ]; then
        refuse "io_uring is switched off on this host: set \`sysctl kernel.io_uring_disabled=0\` and start again"
    fi
}

# Under sudo the toolchain is often in the home of whoever called.
need_cargo() {
    local home
    for home in "$HOME" "$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)"; do
        if ! command -v cargo >/dev/null && [ -x "$home/.cargo/bin/cargo" ]; then
            PATH="$home/.cargo/bin:$PATH"
            export RUSTUP_HOME="${RUSTUP_HOME:-$home/.rustup}"
        fi
    done
    command -v cargo >/dev/null || refuse "the Rust toolchain is missing: install Rust 1.90 or newer (https://rustup.rs)"
}

# install_packages FILE=PACKAGE ...: installs the packages whose file is not there.
install_packages() {
    local pair file present=() absent=()
    for pair in "$@"; do
        file=${pair%%=*}
        if [ -e "$file" ]; then present+=("${pair#*=}"); else absent+=("${pair#*=}"); fi
    done
    [ ${#present[@]} = 0 ] || say "already there: ${present[*]}"
    [ ${#absent[@]} = 0 ] && return 0
    command -v apt-get >/dev/null || refuse "these packages are missing: ${absent[*]}; install them with this distribution's tools"
    say "installing: ${absent[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null || refuse "apt-get update failed: is the network there?"
    apt-get install -y -qq --no-install-recommends "${absent[@]}" >/dev/null ||
        refuse "apt-get could not install ${absent[*]}: run \`apt-get install ${absent[*]}\` to see why"
}

# What the engine and its languages need.
install_engine_packages() {
    install_packages /usr/bin/cc=build-essential /usr/bin/python3=python3 /usr/bin/node=nodejs \
        /usr/bin/ruby=ruby /usr/sbin/nft=nftables
}

# has_musl: whether Rust can build for musl here; gets what that takes once, where rustup is what installed Rust.
has_musl() {
    [ -d "$(rustc --print target-libdir --target "$1" 2>/dev/null)/self-contained" ] ||
        timeout 120 rustup target add "$1" >/dev/null 2>&1
}

# build_engine PROFILE: process 1 of containers first, static because it runs on any rootfs; then the program that carries it.
# With musl where that is to be had: glibc asks the processor what it can do when a program starts, which costs a third of
# a millisecond per container in a virtual machine.
build_engine() {
    local profile=$1 target=${CARGO_TARGET_DIR:-$PWD/target} folder flags=(--locked)
    local musl; musl=$(uname -m)-unknown-linux-musl
    case "$profile" in
        release) folder=release flags+=(--release) ;;
        *) folder=debug ;;
    esac
    if has_musl "$musl"; then
        cargo build "${flags[@]}" -p faaster-init --target "$musl" || return 1
        mkdir -p "$target/$folder" && ln -f "$target/$musl/$folder/faaster-init" "$target/$folder/" || return 1
    else
        cargo rustc "${flags[@]}" -p faaster-init --bin faaster-init -- -C target-feature=+crt-static || return 1
    fi
    EMBED_FAASTER_INIT="$target/$folder/faaster-init" cargo build "${flags[@]}" -p faaster || return 1
    FAASTER_BIN="$target/$folder/faaster"
}

# build_loadgen PROFILE: the load generator.
build_loadgen() {
    local profile=$1 target=${CARGO_TARGET_DIR:-$PWD/target} folder=debug flags=(--locked)
    [ "$profile" = release ] && folder=release flags+=(--release)
    cargo build "${flags[@]}" -p faaster-loadgen || return 1
    LOADGEN_BIN="$target/$folder/loadgen"
}
