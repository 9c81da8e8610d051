#!/bin/sh
# clang-tidy over the given files, two at a time; prints nothing but findings and a last line.
set -u
if ! command -v clang-tidy >/dev/null 2>&1; then
    echo "lint: SKIP clang-tidy is not installed"
    exit 0
fi
out=$(printf '%s\n' "$@" | xargs -P 2 -I{} sh -c '
    case {} in
    *simd_avx2*) x="-mavx2 -mfma -mf16c" ;;
    *simd_avx512*) x="-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512bf16 -mavx2 -mfma -mf16c" ;;
    *) x= ;;
    esac
    clang-tidy -quiet {} -- -std=c11 -D_GNU_SOURCE -I. $x 2>/dev/null')
if [ -n "$out" ]; then
    printf '%s\n' "$out"
    echo "lint: findings above"
    exit 1
fi
echo "lint: ok"
