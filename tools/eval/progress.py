"""A bar with the time left on a terminal, a plain line now and then elsewhere. All on standard error."""
from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO


PLAIN_S = 10.0     # between two lines where there is no terminal


def clock(seconds: float) -> str:
    s = int(seconds + 0.5)
    return "%d:%02d:%02d" % (s // 3600, s // 60 % 60, s % 60) if s >= 3600 else "%d:%02d" % (s // 60, s % 60)


def bar(done: int, total: int, elapsed: float, started: int, note: str, width: int) -> str:
    """One line of less than `width` columns, with the bar itself where there is room (0: no bar, no limit). `started`: how many
    were done before this run."""
    share = done / total if total else 1.0
    fresh = done - started
    left = clock(elapsed / fresh * (total - done)) if fresh else "-:--"
    tail = " %d/%d  %3d%%  %.1f/s  %s left%s" % (done, total, int(100 * share), fresh / elapsed if elapsed > 0 else 0.0, left, note)
    room = min(40, width - len(tail) - 3)
    if width == 0 or room < 4:
        return tail.strip()[:width - 1 if width else None]
    full = int(room * share)
    return "[" + "#" * full + "." * (room - full) + "]" + tail


class Progress:
    def __init__(self, name: str, total: int, started: int, out: TextIO | None = None):
        self.out = out or sys.stderr
        self.name, self.total, self.started, self.begin = name, total, started, time.monotonic()
        self.terminal = self.out.isatty()
        self.shown_at = self.begin

    def update(self, done: int, refused: int, retried: int) -> None:
        now = time.monotonic()
        note = ("  %d refused" % refused if refused else "") + ("  %d retries" % retried if retried else "")
        if self.terminal:
            if now - self.shown_at > 0.1 or done == self.total:
                width = shutil.get_terminal_size((80, 24)).columns
                self.out.write("\r\x1b[K" + bar(done, self.total, now - self.begin, self.started, note, width))
                self.out.flush()
                self.shown_at = now
        elif now - self.shown_at > PLAIN_S or done == self.total:
            self.shown_at = now
            line = bar(done, self.total, now - self.begin, self.started, note, 0)
            self.out.write("%s: %s\n" % (self.name, line))
            self.out.flush()

    def close(self) -> None:
        if self.terminal:
            self.out.write("\n")
            self.out.flush()
