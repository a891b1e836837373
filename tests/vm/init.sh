#!/bin/busybox sh
# First process of the virtual machine: puts together a root from the host's files and hands over to tests/vm/guest.
# The host's root is below, read-only; whatever is written goes to memory.

fail() {
    echo "init: $*"
    busybox poweroff -f
}

export PATH=/bin
busybox mkdir -p /proc /sys /dev /lower /upper /root
busybox mount -t proc proc /proc
# The links lead to where /proc says that busybox is.
busybox --install -s /bin
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do
    insmod "/modules/$module" || fail "cannot load $module"
done </modules/order

for word in $(cat /proc/cmdline); do
    case "$word" in
        faaster.tree=*) tree=${word#*=} ;;
        faaster.out=*) out=${word#*=} ;;
    esac
done

options=trans=virtio,version=9p2000.L,msize=262144
# The host's files do not change meanwhile, so whatever was read once may be kept.
mount -t 9p -o "$options,ro,cache=loose" host /lower || fail "cannot mount the host's root"
mount -t tmpfs -o mode=755 upper /upper || fail "no memory for the upper layer"
mkdir /upper/files /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work root /root || fail "cannot mount the overlay"
mkdir -p "/root$out"
mount -t 9p -o "$options,cache=none" out "/root$out" || fail "cannot mount the folder for results"

for place in proc sys dev; do
    mount -o move /$place /root/$place
done
exec switch_root /root /bin/bash "$tree/tests/vm/guest" "$tree" "$out"
