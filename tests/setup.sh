#!/usr/bin/env bash
# Puts a Debian 12 machine with rustup's stable toolchain in order, for builds and for all tests: `make setup`.
#
# It installs only what is missing, says what, and does nothing at all the next time. Needs root or sudo
# for packages, and the network once. With --bench also what `make bench` counts instructions with, with --peers what
# `make bench-peers` compares with.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# The second sender: FFmpeg 9, as a static binary in a Python package.
imageio_ffmpeg=imageio-ffmpeg==0.8.1
tools=$root/target/tools
venv=$root/target/venv
stamp=$root/target/setup.stamp

say() { printf 'setup: %s\n' "$*"; }
die() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

type -P cargo rustc >/dev/null ||
    die "there is no Rust here; get rustup's stable toolchain from https://rustup.rs, then run this again"

# Done before, by this script, for this compiler?
bench='' peers=''
case ${1:-} in
    --bench) bench=1 stamp=$root/target/setup-bench.stamp ;;
    --peers) peers=1 stamp=$root/target/setup-peers.stamp ;;
esac
key=$({ cat "${BASH_SOURCE[0]}" && rustc -vV && echo "${REELWRIGHT_GUEST_TOOLCHAIN:-}"; } | sha256sum)
if [[ -f $stamp && $(<"$stamp") == "$key" ]]; then
    exit 0
fi
mkdir -p "$root/target"

updated=
# Installs packages that are missing; says what to do by hand where it can't.
apt_install() {
    (($#)) || return 0
    local by_hand="install by hand, then run \`make setup\` again: $*"
    type -P apt-get >/dev/null || die "there is no apt-get here; $by_hand"
    local as_root=()
    if ((EUID != 0)); then
        type -P sudo >/dev/null || die "not root, and there is no sudo; $by_hand"
        as_root=(sudo)
    fi
    say "installing by apt: $*"
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)
    if [[ ! $updated ]]; then
        "${apt[@]}" update || say "apt-get update failed; trying with the lists that are here"
        updated=1
    fi
    "${apt[@]}" install -y --no-install-recommends "$@" >/dev/null </dev/null || die "apt-get failed; $by_hand"
}

# 1. Tools of the tests: senders, independent readers, file systems, a linker, libFuzzer's compiler.
missing=()
need() {
    # Who is not root may not have the administrator's folders in PATH.
    PATH=$PATH:/usr/sbin:/sbin type -P "$1" >/dev/null || missing+=("$2")
}
need cc gcc
need c++ g++
need ffmpeg ffmpeg
need ffprobe ffmpeg
need mediainfo mediainfo
need flvmeta flvmeta
need tsreport tstools
need python3 python3
need gst-launch-1.0 gstreamer1.0-tools
# Disks of the tests: file systems in files.
need mkfs.ext4 e2fsprogs
need mkfs.xfs xfsprogs
need mkfs.btrfs btrfs-progs
need mount mount
need losetup mount
need fsfreeze util-linux
# A network of its own for the README's walk-through.
need unshare util-linux
need ip iproute2
[[ -e /usr/include/stdio.h ]] || missing+=(libc6-dev)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
element() {
    gst-inspect-1.0 --exists "$1" 2>/dev/null || missing+=("$2")
}
element tcpserversink gstreamer1.0-plugins-base
element flvmux gstreamer1.0-plugins-good
element rtmp2sink gstreamer1.0-plugins-bad
if ((${#missing[@]})); then
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    apt_install "${missing[@]}"
fi

# 2. The second FFmpeg.
if ! "$venv/bin/python" -c 'import imageio_ffmpeg; imageio_ffmpeg.get_ffmpeg_exe()' 2>/dev/null ||
    [[ $(cat "$venv/of" 2>/dev/null) != "$imageio_ffmpeg" ]]; then
    say "installing $imageio_ffmpeg into target/venv"
    rm -rf "$venv"
    python3 -m venv "$venv" || die "python3 -m venv failed"
    "$venv/bin/pip" --quiet --disable-pip-version-check install "$imageio_ffmpeg" ||
        die "pip could not install $imageio_ffmpeg; it is in PyPI"
    "$venv/bin/python" -c 'import imageio_ffmpeg; imageio_ffmpeg.get_ffmpeg_exe()' >/dev/null ||
        die "$imageio_ffmpeg brings no ffmpeg for this machine"
    printf '%s' "$imageio_ffmpeg" >"$venv/of"
fi

# 3. Rust's own tools, and the target of the components.
for tool in rustfmt clippy; do
    cargo "${tool/rustfmt/fmt}" --version >/dev/null 2>&1 || rustup component add "$tool" ||
        say "no $tool here, so \`make check\` will not work"
done
sysroot=$(rustc --print sysroot)
if [[ ! -d $sysroot/lib/rustlib/wasm32-wasip2 || ${REELWRIGHT_GUEST_TOOLCHAIN:-} == debian ]]; then
    if [[ ${REELWRIGHT_GUEST_TOOLCHAIN:-} != debian ]] && type -P rustup >/dev/null &&
        say "adding Rust's target wasm32-wasip2" && rustup target add wasm32-wasip2; then
        :
    else
        say "no wasm32-wasip2 by rustup; falling back to Debian's compiler for it"
        missing=()
        [[ -x /usr/bin/rustc ]] || missing+=(rustc-web)
        [[ -d /usr/lib/rustlib/src/rust/library ]] || missing+=(rust-web-src)
        [[ -f /usr/lib/wasm32-wasi/libc.a ]] || missing+=(wasi-libc)
        need wasm-ld lld
        apt_install "${missing[@]}"
        if ! compgen -G "$sysroot/lib/rustlib/*/bin/wasm-component-ld" >/dev/null &&
            ! type -P wasm-component-ld >/dev/null && [[ ! -x $tools/bin/wasm-component-ld ]]; then
            say "installing the linker wasm-component-ld into target/tools"
            cargo install --quiet --locked --root "$tools" wasm-component-ld ||
                die "cargo could not install wasm-component-ld; it is in crates.io"
        fi
    fi
fi

# 4. What counts instructions.
if [[ $bench ]]; then
    missing=()
    need valgrind valgrind
    apt_install "${missing[@]}"
fi

# 5. Other recorders.
if [[ $peers && ! -e /usr/lib/nginx/modules/ngx_rtmp_module.so ]]; then
    # Nobody wants its web server started.
    as_root=()
    ((EUID == 0)) || as_root=(sudo)
    policy=/usr/sbin/policy-rc.d
    [[ -e $policy ]] || "${as_root[@]}" install -m 755 <(printf '#!/bin/sh\nexit 101\n') "$policy"
    apt_install nginx libnginx-mod-rtmp
    if [[ $(<"$policy") == *'exit 101' ]]; then
        "${as_root[@]}" rm -f "$policy"
    fi
fi

printf '%s' "$key" >"$stamp"
say "all is there"
