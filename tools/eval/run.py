"""`run`: ask every item of a set through the API, append the answers to a results file."""
from __future__ import annotations

import argparse
import collections
import concurrent.futures
import datetime
import json
import os
import struct
import sys
import urllib.parse
import zlib
from dataclasses import dataclass
from typing import Any

import libraries
import prompts
import results
from client import Client, ClientError, Refused
from formats import QuestionSet
from items import Item, read_bytes, sha256
from progress import Progress
from versions import commit

STAND_IN = "stand-in: one grey square for every picture of the set"


class RunError(Exception):
    """What is wrong with the command or its files."""


def stand_in() -> bytes:
    """A grey 64 x 64 PNG, where a set's pictures are not at hand."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = (b"\0" + b"\x80" * 64) * 64
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0)) + \
        chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def find_picture(root: str, name: str) -> str | None:
    """The file of a picture; a name that says .jpg may be a .png, and the other way round."""
    stem = os.path.splitext(name)[0]
    for candidate in (name, stem + ".jpg", stem + ".png", stem + ".jpeg"):
        if os.path.isfile(os.path.join(root, candidate)):
            return os.path.join(root, candidate)
    return None


def missing_pictures(items: list[Item], root: str) -> list[str]:
    names = dict.fromkeys(n for i in items for n in i.images + ((i.reference,) if i.reference else ()))
    return [n for n in names if find_picture(root, n) is None]


def select(items: tuple[Item, ...], shard: str, limit: int) -> list[tuple[int, Item]]:
    """(place in the set, item) of a shard "K/N" (every N-th, from the K-th of 1..N), at most `limit` (0: all)."""
    k, n = 1, 1
    if shard:
        parts = shard.split("/")
        if len(parts) != 2 or not all(p.isdigit() for p in parts) or not 1 <= int(parts[0]) <= int(parts[1]):
            raise RunError("--shard: expected K/N with 1 <= K <= N, got %r" % shard)
        k, n = int(parts[0]), int(parts[1])
    chosen = [(i, item) for i, item in enumerate(items) if i % n == k - 1]
    return chosen[:limit] if limit else chosen


@dataclass
class Job:
    client: Client
    config: dict[str, Any]
    root: str
    drawn: str          # folder of drawn pictures

    def ask(self, place: int, item: Item) -> dict[str, Any]:
        """The result line of an item."""
        o = self.config
        line = {"type": "result", "index": place, "item": item.to_json(), "id": item.id}
        if o["images"] == STAND_IN:
            images = [stand_in() for _ in item.images]
        else:
            images = [read_bytes(find_picture(self.root, n) or n) for n in item.images]
        line["images_sha256"] = [sha256(i) for i in images]
        prompt = prompts.fill(prompts.template_for(item.kind, o["template"]), item)
        path, body = prompts.body_of(item, images, prompt, o, (o["seed"] + place) & 0x7fffffff)
        try:
            reply = self.client.call("POST", path, body)
        except Refused as e:
            return {**line, "error": {"status": e.status, "code": e.code, "message": e.message}}
        try:
            facts, drawn = prompts.answer_of(item, o["route"], reply)
        except (KeyError, IndexError, TypeError, ValueError) as e:
            raise ClientError("%s: an answer of another shape (%s: %s): %.200s" % (path, type(e).__name__, e, json.dumps(reply)))
        if drawn is not None:
            facts["picture"], facts["picture_sha256"] = "%06d.png" % place, sha256(drawn)
            self.keep(facts["picture"], drawn)
        return {**line, **facts}

    def keep(self, name: str, data: bytes) -> None:
        os.makedirs(self.drawn, exist_ok=True)
        temporary = os.path.join(self.drawn, "." + name)
        with open(temporary, "wb") as f:
            f.write(data)
        os.replace(temporary, os.path.join(self.drawn, name))


def header_of(args: argparse.Namespace, qs: QuestionSet, client: Client) -> dict[str, Any]:
    """Asks the server who it is. `config` is what a resumed run must share, `made` is for the record."""
    listed = client.call("GET", "/v1/models").get("data")
    if not isinstance(listed, list) or not listed or not isinstance(listed[0], dict) or not isinstance(listed[0].get("id"), str):
        raise ClientError("/v1/models: expected a list of models in \"data\", got %.80r" % (listed,))
    name = args.model or listed[0]["id"]
    card = client.call("GET", "/v1/models/%s/card" % urllib.parse.quote(name))
    config = {
        "set": {"file": qs.path, "format": qs.format, "variant": qs.variant, "sha256": qs.sha256, "items": len(qs.items)},
        "paper": args.paper or qs.paper, "shard": args.shard or "1/1",
        "model": name, "card_sha256": sha256(json.dumps(card, sort_keys=True).encode()), "fingerprint": card.get("fingerprint"),
        "route": args.route, "template": args.template, "system": args.system, "seed": args.seed,
        "temperature": args.temperature, "max_tokens": args.max_tokens, "images": STAND_IN if args.stand_in else "files",
    }
    server = client.call("GET", "/openapi.json").get("info", {}).get("version")
    made = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "commit": commit(),
            "server": server, "python": sys.version.split()[0], "packages": libraries.versions(), "card": card}
    return {"type": "header", "format": results.FORMAT, "config": config, "made": made}


def run(args: argparse.Namespace, qs: QuestionSet) -> int:
    """Exit status: 0 when every selected item has its line."""
    chosen = select(qs.items, args.shard, args.limit)
    if not chosen:
        raise RunError("--shard %s: no question is in it" % args.shard)
    root = args.images or os.path.dirname(os.path.abspath(args.set))
    if not args.stand_in:
        absent = missing_pictures([i for _, i in chosen], root)
        if absent:
            raise RunError("%d pictures are not below the folder %s, the first: %s (--images DIR; --stand-in for a dry run)" %
                           (len(absent), args.images or "of the set", ", ".join(absent[:3])))
    elif any(i.kind == "picture" for _, i in chosen):
        raise RunError("--stand-in: pictures cannot be compared with one that is not there")
    client = Client(args.url, args.timeout_s, args.retries)
    header = header_of(args, qs, client)
    writer = results.Writer(args.out, header, [i.id for _, i in chosen])
    job = Job(client, header["config"], root, args.out + ".pictures")
    try:
        return work(job, writer, chosen, args.concurrency)
    finally:
        writer.close()


def work(job: Job, writer: results.Writer, chosen: list[tuple[int, Item]], concurrency: int) -> int:
    if writer.repaired:
        print("run: a line that was cut (%d bytes) is asked again" % writer.repaired, file=sys.stderr)
    if writer.done:
        print("run: %d of %d are done" % (min(writer.done, len(chosen)), len(chosen)), file=sys.stderr)
    todo = collections.deque(chosen[writer.done:])
    progress = Progress("run", len(chosen), len(chosen) - len(todo))
    done, refused = len(chosen) - len(todo), 0
    flying: collections.deque[concurrent.futures.Future] = collections.deque()
    pool = concurrent.futures.ThreadPoolExecutor(concurrency)
    try:
        while todo or flying:
            while todo and len(flying) < 4 * concurrency:   # what is finished and waits for its turn is bounded by it
                flying.append(pool.submit(job.ask, *todo.popleft()))
            line = flying.popleft().result()
            writer.append(line)
            done, refused = done + 1, refused + ("error" in line)
            progress.update(done, refused, job.client.retried)
    except KeyboardInterrupt:
        progress.close()
        print("run: stopped; %d of %d are done, the same command goes on" % (done, len(chosen)), file=sys.stderr)
        return 130
    except ClientError as e:
        progress.close()
        print("run: %s\nrun: %d of %d are done, the same command goes on" % (e, done, len(chosen)), file=sys.stderr)
        return 3
    finally:
        job.client.close()
        pool.shutdown(wait=True, cancel_futures=True)
    progress.close()
    if refused:
        print("run: %d of %d were refused by the server: they count as wrong (\"error\" in the results)" % (refused, len(chosen)),
              file=sys.stderr)
    return 0
