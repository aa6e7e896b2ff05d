#!/bin/sh
# Puts together the root filesystem of the container image, as the list `contents` says: for the Containerfile and for
# `make image`, which needs no container engine. Runs on Debian with e2fsprogs and xfsprogs.
#
#   collect.sh BINARIES ROOT     BINARIES: the folder with our release build; ROOT: a new folder
set -eu
here=$(cd "$(dirname "$0")" && pwd)
binaries=$1 root=$2

if [ -e "$root" ]; then
    echo "$root exists: remove it first" >&2
    exit 1
fi
mkdir -p "$root/etc" "$root/usr/bin" "$root/usr/lib" "$root/usr/lib64" "$root/usr/share/doc" "$root/proc" "$root/sys" \
    "$root/dev" "$root/run" "$root/var"
mkdir -m 1777 "$root/tmp"
for top in bin lib lib64; do ln -s "usr/$top" "$root/$top"; done
ln -s bin "$root/usr/sbin" && ln -s usr/bin "$root/sbin"

# Every package that a file comes from has its licence in the image.
licence() {
    package=$(dpkg-query --search "$1" 2>/dev/null || dpkg-query --search "${1#/usr}" 2>/dev/null || true)
    package=${package%%:*}
    if [ -n "$package" ] && [ ! -e "$root/usr/share/doc/$package" ]; then
        install -D -m 644 "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
    fi
}

# A library keeps the name it is looked for by, in the folder where the loader looks.
libraries() {
    ldd "$1" 2>/dev/null | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' |
        while read -r library; do
            target=$root/usr/${library#/}
            case $library in /usr/*) target=$root$library ;; esac
            [ -e "$target" ] && continue
            install -D -m 755 "$library" "$target"
            licence "$(readlink -f "$library")"
        done
}

program() {
    install -m 755 "$1" "$root/usr/bin/$2"
    libraries "$1"
}

grep -v '^#' "$here/contents" | while read -r kind name; do
    case $kind in
    binary) program "$binaries/$name" "$name" ;;
    tool)
        found=$(command -v "$name" || true)
        if [ -z "$found" ]; then
            echo "there is no $name here: install e2fsprogs and xfsprogs" >&2
            exit 1
        fi
        program "$found" "$name"
        licence "$(readlink -f "$found")"
        ;;
    file)
        install -D -m 644 "$name" "$root$name"
        licence "$name"
        ;;
    "") ;;
    *)
        echo "contents: what is a \"$kind\"?" >&2
        exit 1
        ;;
    esac
done
