#!/bin/sh
# deps.sh check   - quiet when everything needed to build and test is there, else install it
# deps.sh install - install the Debian/Ubuntu packages (root or sudo)
set -eu
packages="gcc g++ make pkg-config python3 libmicrohttpd-dev libjansson-dev libpng-dev libjpeg-dev
libunistring-dev libcmocka-dev curl"

missing() {
    for tool in gcc g++ pkg-config python3 curl; do
        command -v $tool >/dev/null 2>&1 || { echo "$tool"; return; }
    done
    for lib in libmicrohttpd jansson libpng libjpeg cmocka; do
        pkg-config --exists $lib 2>/dev/null || { echo "$lib"; return; }
    done
    echo '#include <uninorm.h>' | gcc -E -x c - >/dev/null 2>&1 || echo libunistring
}

install() {
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "deps: this machine has no apt-get; install the equivalents of these by hand:" >&2
        echo "  $packages" >&2
        exit 69
    fi
    sudo=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null 2>&1 || {
            echo "deps: need root: run as root: apt-get install $packages" >&2
            exit 77
        }
        sudo=sudo
    fi
    echo "deps: installing compiler, HTTP (libmicrohttpd), JSON (jansson), PNG/JPEG,"
    echo "deps: unistring and cmocka (tests) with apt-get"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends $packages >/dev/null
}

what=$(missing)
case ${1:-check} in
install) install ;;
check)
    [ -z "$what" ] && exit 0
    echo "deps: $what is missing"
    install
    ;;
esac
