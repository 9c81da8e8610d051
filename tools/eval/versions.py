"""Which commit the harness is of."""
from __future__ import annotations

import os
import subprocess


def commit() -> str:
    """12 digits, "+" behind them when files differ; "" outside a checkout."""
    here = os.path.dirname(os.path.abspath(__file__))
    git = lambda *a: subprocess.run(["git", "-C", here, *a], capture_output=True, text=True, timeout=20)
    try:
        head = git("rev-parse", "--short=12", "HEAD")
        if head.returncode:
            return ""
        return head.stdout.strip() + ("+" if git("status", "--porcelain", "--untracked-files=no").stdout.strip() else "")
    except (OSError, subprocess.TimeoutExpired):
        return ""
