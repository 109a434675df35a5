#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# arm64_python.sh FOLDER: this Debian's Python for arm64, with what a build against it needs, as FOLDER/bin/python on any
# processor. Its packages are unpacked in the folder and nothing is installed; only apt, dpkg and qemu-aarch64 are used.
set -euo pipefail

missing=()
for tool in aarch64-linux-gnu-g++=g++-aarch64-linux-gnu qemu-aarch64=qemu-user apt-get=apt dpkg-deb=dpkg; do
    command -v "${tool%=*}" > /dev/null || missing+=("${tool#*=}")
done
if ((${#missing[@]})); then
    echo "This needs Debian's packages ${missing[*]}: apt-get install ${missing[*]}" >&2
    exit 1
fi

folder=$(realpath "$1")
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
sysroot=$folder/sysroot
apt=$folder/apt
rm -rf "$sysroot" "$apt"
mkdir -p "$sysroot" "$apt"/{state/lists/partial,cache/archives/partial} "$folder/bin"

# An apt of its own, for which nothing is installed: it resolves and fetches everything, the C library included.
touch "$apt/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $release main" \
    > "$apt/sources.list"
foreign_apt() {
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User= \
        -o Dir::State="$apt/state" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache" \
        -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=- -o Acquire::Languages=none "$@"
}
foreign_apt update
foreign_apt --no-install-recommends --download-only --yes install python3 libpython3-dev libstdc++6
for package in "$apt"/cache/archives/*.deb; do
    dpkg-deb --extract "$package" "$sysroot"
done
rm -r "$apt"
[ -e "$sysroot/lib" ] || ln -s usr/lib "$sysroot/lib" # as Debian 13 has it, by way of a package that nothing needs

# A virtual environment whose interpreter calls the emulator, and so does what it starts as sys.executable.
echo "home = $sysroot/usr/bin" > "$folder/pyvenv.cfg"
cat > "$folder/bin/python" << SCRIPT
#!/bin/sh
exec qemu-aarch64 -0 "\$0" -L "$sysroot" "$sysroot/usr/bin/python3" "\$@"
SCRIPT
chmod +x "$folder/bin/python"
