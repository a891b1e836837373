# The kernel of the virtual machine and what boots it. Sourced by tests/vm/run; needs say, refuse and install_packages,
# and VM, the folder where it is kept between runs; nothing need be there.

# What the first steps of the boot need; all else is loaded on demand once the host's files are there.
BOOT_MODULES=(virtio_pci 9pnet_virtio 9p overlay)

prepare_kernel() {
    install_packages /usr/bin/qemu-system-x86_64=qemu-system-x86 /bin/busybox=busybox-static /sbin/depmod=kmod || return 1
    mkdir -p "$VM"
    [ -e "$VM/kernel/vmlinuz" ] || fetch_kernel || return 1
    make_initrd
}

# The newest generic image of the 6.1 series that the package lists name.
newest_image() {
    apt-cache search --names-only '^linux-image-6\.1\.0-[0-9]+-amd64$' | cut -d' ' -f1 | sort -V | tail -1
}

fetch_kernel() {
    local package work version
    package=$(newest_image)
    if [ -z "$package" ]; then
        apt-get update -qq >/dev/null
        package=$(newest_image)
    fi
    [ -n "$package" ] || refuse "no package linux-image-6.1.0-*-amd64 is known here: Debian 12's package lists have it"
    say "fetching $package"
    work=$(mktemp -d "$VM/fetch.XXXXXX") || return 1
    (
        cd "$work" && apt-get download -q "$package" >/dev/null 2>apt.log || { cat apt.log; exit 1; }
        dpkg -x "$package"_*.deb tree || exit 1
        version=$(ls tree/lib/modules)
        depmod -b tree "$version" && mkdir kernel && mv tree/lib kernel/lib && mv "tree/boot/vmlinuz-$version" kernel/vmlinuz
    ) && rm -rf "$VM/kernel" && mv "$work/kernel" "$VM/kernel"
    local result=$?
    rm -rf "$work"
    return $result
}

# The first root: busybox, the modules in the order in which they go in, and init.
make_initrd() {
    local version work module
    version=$(ls "$VM/kernel/lib/modules")
    work=$(mktemp -d "$VM/initrd.XXXXXX") || return 1
    mkdir -p "$work/bin" "$work/modules"
    cp /bin/busybox "$work/bin/busybox" && cp tests/vm/init.sh "$work/init" && chmod 755 "$work/init" || return 1
    for module in "${BOOT_MODULES[@]}"; do
        modprobe --dirname "$VM/kernel" --set-version "$version" --show-depends "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$work/order" || return 1
    while read -r module; do
        cp "$module" "$work/modules/" && basename "$module" >>"$work/modules/order" || return 1
    done <"$work/order"
    (cd "$work" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$VM/kernel/initrd.new" || return 1
    mv "$VM/kernel/initrd.new" "$VM/kernel/initrd"
    rm -rf "$work"
}
