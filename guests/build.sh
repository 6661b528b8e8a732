#!/usr/bin/env bash
# Builds components and copies them into a folder.
#
#   guests/build.sh --out DIR [--target-dir DIR] [NAME...]
#
# NAME is a built-in format (flv, ts, mp4: DIR/NAME.wasm) or `components` (the test components:
# DIR/components/*.wasm). Without one, everything is built.
#
# Toolchain: the Rust that is there, if it has the target wasm32-wasip2 (`rustup target add wasm32-wasip2`).
# If not: Debian's rustc-web, rust-web-src, wasi-libc and lld, which build the same target with their own
# standard library; the linker wasm-component-ld comes from the other Rust or from target/tools/bin.
# REELWRIGHT_GUEST_TOOLCHAIN=rustup or =debian insists on one.
#
# The same source and the same toolchain give the same bytes, in whatever folder they are built.
set -euo pipefail

die() {
    printf 'guests/build.sh: %s\n' "$*" >&2
    exit 1
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out= target_dir= names=()
while (($#)); do
    case $1 in
        --out) out=${2:?--out takes a folder} && shift 2 ;;
        --target-dir) target_dir=${2:?--target-dir takes a folder} && shift 2 ;;
        flv | ts | mp4 | components) names+=("$1") && shift ;;
        *) die "unknown argument $1" ;;
    esac
done
[[ $out ]] || die "--out is missing"
((${#names[@]})) || names=(flv ts mp4 components)
# Not the folder of the build around this one: cargo would wait for its lock for ever.
target_dir=${target_dir:-${CARGO_TARGET_DIR:-$root/target}/guests}

# What an outer cargo says to its build script must not change ours.
cargo=${CARGO:-cargo} rustc=${RUSTC:-rustc}
for var in $(compgen -e); do
    case $var in
        CARGO_HOME | CARGO_HTTP_* | CARGO_NET_* | CARGO_REGISTRIES_* | CARGO_REGISTRY_*) ;;
        CARGO | CARGO_* | RUSTC | RUSTC_* | RUSTDOC | RUSTDOC* | RUSTFLAGS | DEP_* | MAKEFLAGS | MFLAGS | \
            TARGET | HOST | OUT_DIR | PROFILE | OPT_LEVEL | DEBUG | NUM_JOBS | LD_LIBRARY_PATH | SOURCE_DATE_EPOCH)
            unset "$var"
            ;;
    esac
done

sysroot=$("$rustc" --print sysroot 2>/dev/null) || sysroot=

find_component_ld() {
    local tool
    for tool in "$sysroot"/lib/rustlib/*/bin/wasm-component-ld "$root/target/tools/bin/wasm-component-ld" \
        "$(type -P wasm-component-ld)"; do
        if [[ -x $tool ]]; then
            printf '%s' "$tool"
            return
        fi
    done
}

toolchain=${REELWRIGHT_GUEST_TOOLCHAIN:-}
if [[ ! $toolchain ]]; then
    if [[ $sysroot && -d $sysroot/lib/rustlib/wasm32-wasip2 ]]; then
        toolchain=rustup
    else
        toolchain=debian
    fi
fi

args=(build --manifest-path "$root/Cargo.toml" --target wasm32-wasip2 --profile guest)
case $toolchain in
    rustup)
        [[ -d $sysroot/lib/rustlib/wasm32-wasip2 ]] ||
            die "$rustc has no target wasm32-wasip2: run \`rustup target add wasm32-wasip2\` or \`make setup\`"
        flags=()
        ;;
    debian)
        wasi_libc=/usr/lib/wasm32-wasi
        linker=$(find_component_ld)
        missing=()
        [[ -x /usr/bin/rustc ]] || missing+=(rustc-web)
        [[ -d /usr/lib/rustlib/src/rust/library ]] || missing+=(rust-web-src)
        [[ -f $wasi_libc/libc.a ]] || missing+=(wasi-libc)
        type -P wasm-ld >/dev/null || missing+=(lld)
        [[ $linker ]] || missing+=("wasm-component-ld (a crate)")
        ((${#missing[@]} == 0)) ||
            die "no toolchain for wasm32-wasip2: $rustc lacks the target, and the way by Debian's packages" \
                "lacks ${missing[*]}. Run \`make setup\`."
        sysroot=/usr
        # The standard library is built too, which only a nightly compiler or this variable allows.
        export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_WASIP2_LINKER=$linker
        args+=(-Z "build-std=std,panic_abort")
        flags=(-Lnative="$wasi_libc" -Clink-self-contained=no)
        # Cargo keeps libraries for a linker under one name whatever compiled them.
        target_dir=$target_dir/debian
        ;;
    *) die "REELWRIGHT_GUEST_TOOLCHAIN=$toolchain is neither rustup nor debian" ;;
esac

# No path of this machine in a component; of several that match, the last one holds.
flags+=(
    --remap-path-prefix="$root=reelwright"
    --remap-path-prefix="${CARGO_HOME:-$HOME/.cargo}=cargo"
    --remap-path-prefix="$sysroot/lib/rustlib/src/rust=rust"
)
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && printf '%s' "${flags[*]}")
export CARGO_ENCODED_RUSTFLAGS

formats=() components=
for name in "${names[@]}"; do
    if [[ $name == components ]]; then components=1; else formats+=("$name"); fi
done
built=wasm32-wasip2/guest

# Only what is new, so that what was built from the old files stays fresh.
put() {
    cmp -s "$1" "$2" || { mkdir -p "$(dirname "$2")" && cp "$1" "$2.new" && mv "$2.new" "$2"; }
}
if ((${#formats[@]})); then
    "$cargo" "${args[@]}" --target-dir "$target_dir" "${formats[@]/#/-preelwright-}" --lib
    for name in "${formats[@]}"; do
        put "$target_dir/$built/reelwright_$name.wasm" "$out/$name.wasm"
    done
fi
# They have the formats in them, with other features and under the same names.
if [[ $components ]]; then
    "$cargo" "${args[@]}" --target-dir "$target_dir/components" -p reelwright-test-components --lib --examples
    for source in "$root"/tests/components/examples/*.rs; do
        name=$(basename "$source" .rs)
        put "$target_dir/components/$built/examples/$name.wasm" "$out/components/$name.wasm"
    done
fi
