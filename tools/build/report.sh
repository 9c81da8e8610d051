#!/bin/sh
# The five-line report at build start: compiler, nvcc, SIMD, libraries, variant.
set -u
cc=$1
variant=$2
shift 2
libs=
for p in "$@"; do libs="$libs $p $(pkg-config --modversion "$p" 2>/dev/null || echo missing),"; done
flags=$(grep -m1 -E '^(flags|Features)' /proc/cpuinfo 2>/dev/null)
simd=scalar
for f in avx2 avx512f avx512_vnni avx512_bf16 amx_tile asimd; do
    case " $flags " in *" $f "*) simd="$simd $f" ;; esac
done
nvcc=$(nvcc --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p')
echo "compiler  $($cc --version | head -n 1)"
echo "nvcc      ${nvcc:-none: CPU backend only}"
echo "simd      $simd (chosen at run time)"
echo "libraries${libs%,}"
echo "variant   $variant"
