#!/bin/sh
# venv.sh DIR - torch from PyPI in a virtual environment, and beside it the versions of transformers that the
# reference pinned (reference.md: 4.41 for Phi-3, 4.49 for Qwen2.5), each in a folder of its own: DIR/tf-VERSION.
set -eu
dir=$1
[ -x "$dir/bin/python" ] || python3 -m venv "$dir"
pip="$dir/bin/pip install -q"
$pip torch numpy safetensors regex pyyaml requests tqdm packaging filelock "huggingface_hub==0.26.5"
$pip --no-deps --upgrade --target "$dir/tf-4.41.0" "transformers==4.41.0" "tokenizers==0.19.1"
$pip --no-deps --upgrade --target "$dir/tf-4.49.0" "transformers==4.49.0" "tokenizers==0.21.4"
