"""How much of the machine others take: measurements on a shared one are worth what it leaves."""
import os
import resource
import time

TICK = os.sysconf("SC_CLK_TCK")


def busy_seconds():
    """CPU seconds of the whole machine so far, those taken by its host (steal) among them."""
    with open("/proc/stat") as f:
        user, nice, system, _, _, irq, soft, steal = (int(x) for x in f.readline().split()[1:9])
    return (user + nice + system + irq + soft + steal) / TICK


def own_seconds():
    """CPU seconds of this process and of its children that have ended."""
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


class Others:
    """Share of the machine that others took between its making and `share()`; the children must have ended."""

    def __init__(self):
        self.start = time.monotonic(), busy_seconds(), own_seconds()

    def share(self):
        t, busy, own = self.start
        spent = time.monotonic() - t
        return max(0.0, (busy_seconds() - busy) - (own_seconds() - own)) / spent / os.cpu_count()


def wait_quiet(limit_s=60, most=0.08):
    """Until the machine is hardly used for 0.3 s, at most limit_s; our own daemons must be idle."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        others = Others()
        time.sleep(0.3)
        if others.share() < most:
            return True
    return False
