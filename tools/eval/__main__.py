"""`python3 tools/eval COMMAND`: formats, check, run, score, table. README.md has a command for each table of the paper."""
from __future__ import annotations

import argparse
import collections
import json
import os
import sys

import formats
import published
import run
import score
import table
from client import KEY_VARIABLE, ClientError, Refused
from items import FormatError
from libraries import Missing
from prompts import ROUTES
from results import ResultsError


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return value


def not_negative(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("expected 0 or more")
    return value


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="tools/eval", description=__doc__)
    sub = p.add_subparsers(dest="command", required=True)

    def set_options(q: argparse.ArgumentParser) -> None:
        q.add_argument("--set", required=True, metavar="FILE", help="the questions")
        q.add_argument("--format", required=True, choices=sorted(formats.READERS))
        q.add_argument("--variant", default="", help="split, language or mode of the format (README.md)")
        q.add_argument("--uncertain", choices=("positive", "negative", "skip"), default="", help="chexpert: what -1 counts as")
        q.add_argument("--images", default="", metavar="DIR", help="where the pictures are (default: beside the set)")

    q = sub.add_parser("check", help="read a set and say what is in it; asks nobody")
    set_options(q)
    q = sub.add_parser("run", help="ask a healthgptd every question; the same command goes on after a stop")
    set_options(q)
    q.add_argument("--out", required=True, metavar="FILE", help="results, appended (drawn pictures: FILE.pictures/)")
    q.add_argument("--url", default="http://127.0.0.1:8080", help="of the daemon; its key is read from $" + KEY_VARIABLE)
    q.add_argument("--model", default="", help="default: what is served")
    q.add_argument("--paper", default="", choices=published.NAMES, help="which published set this is, for the table")
    q.add_argument("--route", default="vqa", choices=ROUTES, help="/v1/vqa or /v1/chat/completions")
    q.add_argument("--template", default="", help="prompt with {question} and {options}")
    q.add_argument("--system", default="", help="system prompt (default: the model's)")
    q.add_argument("--seed", type=int, default=0, help="question i is asked with seed + i")
    q.add_argument("--temperature", type=float, default=0.0)
    q.add_argument("--max-tokens", type=positive, default=None, help="of an answer (default: what the model's card says)")
    q.add_argument("--concurrency", type=positive, default=4)
    q.add_argument("--limit", type=positive, default=0, metavar="N", help="the first N (of the shard) only")
    q.add_argument("--shard", default="", metavar="K/N", help="every N-th question from the K-th")
    q.add_argument("--timeout-s", type=positive, default=120, help="of a request")
    q.add_argument("--retries", type=not_negative, default=8, help="of a request, after 429, 503, 504 or a lost connection")
    q.add_argument("--stand-in", action="store_true", help="a grey square for every picture: checks formats, measures nothing")
    q = sub.add_parser("score", help="metrics of a results file, or of the shards of one run")
    q.add_argument("results", nargs="+")
    q.add_argument("--images", default=".", metavar="DIR", help="where reference pictures are")
    q.add_argument("--json", default="", metavar="FILE")
    q.add_argument("--markdown", default="", metavar="FILE", help="(default: standard output)")
    q.add_argument("--seed", type=int, default=None, help="of the bootstrap (default: the run's)")
    q.add_argument("--resamples", type=positive, default=1000)
    q.add_argument("--colour", action="store_true", help="compare pictures in RGB (default: grey)")
    q = sub.add_parser("table", help="the paper's tables with scored runs as rows")
    q.add_argument("scores", nargs="+", help="files of score --json")
    return p


def check(args: argparse.Namespace) -> int:
    qs = formats.load(args.set, args.format, args.variant, args.uncertain)
    kinds = collections.Counter(i.kind for i in qs.items)
    print("%s: %s%s, %d questions: %s" % (qs.path, qs.format, " " + qs.variant if qs.variant else "", len(qs.items),
                                          ", ".join("%d %s" % (n, k) for k, n in sorted(kinds.items()))))
    groups = collections.Counter(i.group for i in qs.items if i.group)
    print("groups: %s" % (", ".join("%s %d" % g for g in sorted(groups.items())) or "none"))
    absent = run.missing_pictures(list(qs.items), args.images or os.path.dirname(os.path.abspath(args.set)))
    names = {n for i in qs.items for n in i.images + ((i.reference,) if i.reference else ())}
    print("pictures: %d, missing %d%s" % (len(names), len(absent), " (the first: %s)" % absent[0] if absent else ""))
    print("SHA-256 %s" % qs.sha256)
    return 0


def do_score(args: argparse.Namespace) -> int:
    doc = score.score(args.results, args.images, args.seed, args.resamples, args.colour)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(doc, f, indent=1, ensure_ascii=False)
            f.write("\n")
    text = table.report(doc)
    if args.markdown:
        with open(args.markdown, "w", encoding="utf-8") as f:
            f.write(text)
    else:
        print(text, end="")
    return 0


def do_table(args: argparse.Namespace) -> int:
    docs = []
    for path in args.scores:
        try:
            with open(path, encoding="utf-8") as f:
                doc = json.load(f)
            doc["metrics"], doc["config"]["paper"], doc["stand_in"]
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise score.ScoreError("%s: expected a file of score --json (%s: %s)" % (path, type(e).__name__, e)) from None
        docs.append(doc)
    print(table.paper_tables(docs) or "No run is one of the paper's sets (run --paper NAME).", end="")
    return 0


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        if args.command == "check":
            return check(args)
        if args.command == "run":
            return run.run(args, formats.load(args.set, args.format, args.variant, args.uncertain))
        return do_score(args) if args.command == "score" else do_table(args)
    except (FormatError, ResultsError, run.RunError, score.ScoreError, Missing) as e:
        print("eval: %s" % e, file=sys.stderr)
        return 2
    except (ClientError, Refused) as e:
        print("eval: %s" % e, file=sys.stderr)
        return 3
    except OSError as e:
        print("eval: %s: %s" % (e.filename, e.strerror), file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
