"""The same request gives the same bytes in any company (P-06, P-18, P-28, T-22).

Questions with and without a picture, pictures from text and from pictures, greedy and sampled, streamed and plain, each
several times: first alone (one place, one thread, no caches), then in batches, with caches cold and warm, with a KV cache
so small that sequences give way, with one thread and two. Compared: status, ids, log probabilities, text, PNG."""
import tempfile

from loadtool import answers, endless_model
from harness import Daemon, equal, require

MIX = ("--ask", "5", "--text", "3", "--draw", "2", "--edit", "1", "--sampled", "0.5", "--streamed", "0.7",
       "--pictures", "5")
# The endless model's answers are longer than the scheduler expects, so that a small KV cache runs out.
SHORT, LONG = MIX + ("--words", "1..60", "--tokens", "4..48"), MIX + ("--words", "1..24", "--tokens", "80..240")


def cases():
    """(name, daemon arguments, clients, rounds)"""
    for n in (2, 3, 7, 16, 64):
        yield "batch %d, nothing kept" % n, ("--max-batch", n, "--forget", "--threads", 2), n, 1
        yield "batch %d, caches cold and warm" % n, ("--max-batch", n, "--threads", 2), n, 2
    yield "batch 16, one thread", ("--max-batch", 16, "--threads", 1), 16, 1


def tight_cases():
    yield "batch 16, 512 tokens of KV cache", ("--max-batch", 16, "--kv-tokens", 512, "--threads", 2), 16, 2
    yield "batch 64, 512 tokens, one thread", ("--max-batch", 64, "--kv-tokens", 512, "--threads", 1), 64, 1


class Comparison:
    def __init__(self, build, mix, n_distinct, more=(), say=lambda text: None):
        """The answers of each request alone."""
        self.build, self.more, self.say, self.n_distinct = build, tuple(more), say, n_distinct
        self.mix = mix + ("--distinct", n_distinct)
        self.compared = self.differ = self.preempted = 0
        with Daemon(build, "--max-batch", "1", "--threads", "1", "--forget", *self.more) as d:
            self.alone = answers(build, d, *self.mix, "--concurrency", 1, "--count", n_distinct)
        equal(len(self.alone), n_distinct, "answers alone")
        equal({a[2] for a in self.alone}, {200}, "statuses alone")
        equal({a[1] for a in self.alone}, {"ask", "text", "draw", "edit"}, "kinds")

    def case(self, n, name, args, clients, rounds):
        """n requests in `rounds` rounds of one daemon against the same requests alone."""
        with Daemon(self.build, "--max-queue", "256", "--max-queue-tokens", "1000000", *self.more, *(str(a) for a in args)) as d:
            for i in range(rounds):
                got = answers(self.build, d, *self.mix, "--concurrency", clients, "--count", n)
                equal(len(got), n, "answers, " + name)
                bad = [g for g in got if g[1:] != self.alone[g[0] % self.n_distinct][1:]]
                engine = d.health()["engine"]
                self.say("%-36s round %d: %5d answers, %d differ; %.1f tokens per step, %d gave way, %d prompt tokens found" % (
                    name, i + 1, n, len(bad), engine["tokens"] / max(engine["steps"], 1), engine["preempted"],
                    engine["cached_tokens"]))
                for g in bad[:1]:
                    self.say("  alone %r, here %r" % (self.alone[g[0] % self.n_distinct], g))
                self.compared, self.differ = self.compared + n, self.differ + len(bad)
            self.preempted += engine["preempted"]
        return engine["preempted"]


def run(build, n_distinct, n, say=lambda text: None, wanted=lambda name: True):
    """n requests of n_distinct different ones in each case; returns (answers compared, differences, sequences that gave way)."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Comparison(build, SHORT, n_distinct, say=say)
        tight = Comparison(build, LONG, n_distinct, ("--model", endless_model(folder)), say=say)
        for name, args, clients, rounds in cases():
            if wanted(name):
                plain.case(n, name, args, clients, rounds)
        for name, args, clients, rounds in tight_cases():
            if wanted(name):
                require(tight.case(n, name, args, clients, rounds) > 0, "no sequence gave way: " + name)
    return plain.compared + tight.compared, plain.differ + tight.differ, tight.preempted
