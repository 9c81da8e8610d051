#!/bin/sh
# demo.sh BUILD_DIR [IMAGE] - the main job on the demo model: draw a chest X-ray, ask about the drawn picture,
# then about IMAGE when one is given. Needs no file from anywhere else.
set -eu
build=$1
image=${2:-}
out=$build/demo
mkdir -p "$out"
say() { printf '\n$ %s\n' "$*"; }

for what in with without; do
    say "$build/healthgpt draw --seed 1 \"Draw a chest X-ray $what pneumonia.\" -o $out/xray_$what.png"
    "$build/healthgpt" draw --seed 1 "Draw a chest X-ray $what pneumonia." -o "$out/xray_$what.png"
    for question in "What is shown in this image?" "Is there evidence of pneumonia?"; do
        say "$build/healthgpt ask --image $out/xray_$what.png \"$question\""
        "$build/healthgpt" ask --image "$out/xray_$what.png" "$question"
    done
done
if [ -n "$image" ]; then
    for question in "What modality is this?" "Is there evidence of pneumonia?"; do
        say "$build/healthgpt ask --image $image \"$question\""
        "$build/healthgpt" ask --image "$image" "$question"
    done
    say "$build/healthgpt draw --image $image \"Reconstruct the image.\" -o $out/reconstructed.png"
    "$build/healthgpt" draw --image "$image" "Reconstruct the image." -o "$out/reconstructed.png"
fi
echo
echo "Pictures are in $out. The demo model is a toy: not for clinical use. Try also:"
echo "  make demo IMAGE=your.png        make run        $build/healthgpt --help"
