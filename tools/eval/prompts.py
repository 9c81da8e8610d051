"""How an item becomes a request, and a reply a result."""
from __future__ import annotations

import base64
import re
from typing import Any

from items import Item

CHOICE_TEMPLATE = "{question}\n{options}\nAnswer with the option's letter from the given choices directly."
TEMPLATES = {"choice": CHOICE_TEMPLATE}   # of other kinds: "{question}"
ROUTES = ("vqa", "chat")


def template_for(kind: str, chosen: str) -> str:
    return chosen or TEMPLATES.get(kind, "{question}")


def fill(template: str, item: Item) -> str:
    """{question} and {options} ("A. lung", a line each) replaced; other braces stay."""
    options = "\n".join("%s. %s" % kv for kv in item.options.items())
    return re.sub(r"\{(question|options)\}", lambda m: item.question if m.group(1) == "question" else options, template)


def body_of(item: Item, images: list[bytes], prompt: str, o: dict[str, Any], seed: int) -> tuple[str, dict[str, Any]]:
    """(path, JSON) of the request. `o`: route, model, system, temperature, max_tokens."""
    more = {k: v for k, v in (("system", o["system"]), ("max_tokens", o["max_tokens"])) if v}
    b64 = [base64.b64encode(i).decode() for i in images]
    if item.kind == "picture":
        more.pop("max_tokens", None)    # a picture has the tokens that it has
        return "/v1/draw", {"prompt": prompt, "image": b64, "temperature": o["temperature"], "seed": seed, **more}
    if o["route"] == "vqa":
        return "/v1/vqa", {"question": prompt, "image": b64, "temperature": o["temperature"], "seed": seed, **more}
    parts = [{"type": "image_url", "image_url": {"url": "data:%s;base64,%s" % (_mime(i), b)}} for i, b in zip(images, b64)]
    messages = [{"role": "user", "content": parts + [{"type": "text", "text": prompt}]}]
    if "system" in more:
        messages.insert(0, {"role": "system", "content": more.pop("system")})
    return "/v1/chat/completions", {"model": o["model"], "messages": messages, "temperature": o["temperature"], "seed": seed,
                                    **more}


def _mime(data: bytes) -> str:
    return "image/png" if data[:4] == b"\x89PNG" else "image/jpeg"


def answer_of(item: Item, route: str, reply: dict[str, Any]) -> tuple[dict[str, Any], bytes | None]:
    """(text and facts that do not depend on time or company, the drawn PNG or None); KeyError for another shape."""
    usage = reply.get("usage") or {}
    facts = {k: usage[k] for k in ("prompt_tokens", "completion_tokens") if k in usage}
    if item.kind == "picture":
        return {"finish_reason": reply.get("finish_reason"), **facts}, base64.b64decode(reply["image"]["b64_json"], validate=True)
    if route == "vqa":
        return {"text": _string(reply["text"]), "finish_reason": reply.get("finish_reason"), **facts}, None
    choice = reply["choices"][0]
    return {"text": _string(choice["message"]["content"]), "finish_reason": choice.get("finish_reason"), **facts}, None


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("expected a text, got %r" % value)
    return value
