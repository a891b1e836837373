# Debian packages, unpacked into a folder without being installed. Sourced; needs refuse.

# What an image needs besides its languages: the program's own libraries, and a shell for functions that are scripts.
IMAGE_PACKAGES=(libgcc-s1 dash)

# fetch FOLDER STATUS PACKAGE...: downloads packages with all that they depend on and STATUS does not list as installed.
# What was fetched whole once is not looked for again.
fetch() {
    local folder=$1 status=$2
    shift 2
    [ "$(cat "$folder/fetched" 2>/dev/null)" != "$*" ] || return 0
    rm -rf "$folder/archives"
    mkdir -p "$folder/archives/partial"
    local apt=(apt-get -qq -y --no-install-recommends --download-only
        -o "Dir::Cache=$folder" -o "Dir::State::status=$status" -o Debug::NoLocking=1 -o APT::Sandbox::User=root)
    if ! "${apt[@]}" install "$@" >"$folder/log" 2>&1; then
        # The lists may be old, or not there.
        apt-get -qq update >/dev/null 2>&1 || true
        "${apt[@]}" install "$@" >"$folder/log" 2>&1 || { cat "$folder/log" >&2; refuse "cannot download $*"; }
    fi
    printf '%s' "$*" >"$folder/fetched"
}

# fetch_closure FOLDER PACKAGE...: packages and everything that they depend on.
fetch_closure() {
    mkdir -p "$1"
    : >"$1/status"
    fetch "$1" "$1/status" "${@:2}"
}

unpack() {
    local root=$1 package
    shift
    for package in "$@"; do
        dpkg-deb --fsys-tarfile "$package" | tar -x -C "$root" --keep-directory-symlink || return 1
    done
}

# unpack_missing ROOT WORK PACKAGE...: packages, and of what they depend on that which this host lacks.
unpack_missing() {
    mkdir -p "$1" "$2"
    fetch "$2" /var/lib/dpkg/status "${@:3}"
    unpack "$1" "$2"/archives/*.deb
}
