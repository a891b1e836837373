#!/usr/bin/env bash
# tests/support/numpy.sh FOLDER: fetches numpy and what it is linked against, as Debian's packages, for tests/system/test_forks.py, which
# has no network. FOLDER/tree has them unpacked; nothing is installed.
set -euo pipefail
[ $# = 1 ] || { echo "usage: tests/support/numpy.sh FOLDER" >&2; exit 2; }
folder=$(realpath -m "$1")
[ ! -d "$folder/tree" ] || exit 0
mkdir -p "$folder"
work=$(mktemp -d "$folder/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -qq -o APT::Sandbox::User=root download python3-numpy libblas3 liblapack3 libgfortran5 libquadmath0 >&2
for package in *.deb; do
    dpkg-deb -x "$package" tree
done
mv tree "$folder/tree"
