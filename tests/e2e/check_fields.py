"""Each field of each route at and beyond its bounds (T-10), out of /openapi.json; special tokens in each text (T-11)."""
import http.client
import json
import re

from harness import Daemon, b64, equal, is_sanitized, png, require, test_image

LITERALS = ["null", "true", "false", "0", "-1", "1", "2", "1.5", "-0.5", "2147483648", "9007199254740993",
            "9223372036854775807", "9223372036854775808", "-9223372036854775809", "18446744073709551616", "1e308", "-1e308",
            "1e-300", '""', '"x"', '"1"', '"null"', "[]", "{}", "[1]", '["x"]', "[null]", '{"a":1}', "[[[]]]",
            '"%s"' % ("x" * 3000)]
# What has a rule beside its bounds: allowed by the schema, refused in company or by what it says.
MORE_RULES = {"top_logprobs", "logprobs", "modalities", "stop", "messages", "image", "images", "model", "size",
              "stream_options", "response_format", "healthgpt", "prompt", "question", "system", "max_tokens",
              "max_completion_tokens", "previews", "partial_images", "healthgpt.previews", "stream"}


def resolve(schema, doc):
    while "$ref" in schema:
        schema = doc["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def fits(schema, v, doc):
    """JSON Schema, as far as the document goes."""
    schema = resolve(schema, doc)
    if "anyOf" in schema:
        return any(fits(s, v, doc) for s in schema["anyOf"])
    if "allOf" in schema:
        return all(fits(s, v, doc) for s in schema["allOf"])
    if "const" in schema:
        return v == schema["const"] and isinstance(v, bool) == isinstance(schema["const"], bool)
    if "enum" in schema:
        return v in schema["enum"]
    kind = schema.get("type")
    number = isinstance(v, (int, float)) and not isinstance(v, bool)
    if kind == "integer":
        return number and v == int(v) and schema.get("minimum", v) <= v <= schema.get("maximum", v)
    if kind == "number":
        return number and schema.get("minimum", v) <= v <= schema.get("maximum", v)
    if kind == "string":
        return (isinstance(v, str) and schema.get("minLength", 0) <= len(v) <= schema.get("maxLength", 1 << 30)
                and re.search(schema.get("pattern", ""), v) is not None)
    if kind == "array":
        return (isinstance(v, list) and schema.get("minItems", 0) <= len(v) <= schema.get("maxItems", 1 << 30)
                and all(fits(schema.get("items", {}), x, doc) for x in v))
    if kind == "object":
        return isinstance(v, dict) and len(v) <= schema.get("maxProperties", 1 << 30)
    return {"boolean": isinstance(v, bool), "null": v is None, None: True}[kind]


def bounds(schema, doc):
    """Literals at the edges of this schema."""
    schema = resolve(schema, doc)
    found = []
    for s in schema.get("anyOf", schema.get("allOf", [])):
        found += bounds(s, doc)
    step = 1 if schema.get("type") == "integer" else 0.0001
    if "minimum" in schema:
        found += [repr(schema["minimum"]), repr(schema["minimum"] - step)]
    if "maximum" in schema:
        found += [repr(schema["maximum"]), repr(schema["maximum"] + step)]
    found += [json.dumps(v) for v in schema.get("enum", [])] + [json.dumps(v) for v in (schema.get("const"),) if v is not None]
    if "maxItems" in schema and schema["maxItems"] < 100:
        found += [json.dumps(["x"] * n) for n in (schema["maxItems"], schema["maxItems"] + 1)]
    if "maxLength" in schema:
        found += [json.dumps("y" * n) for n in (schema["maxLength"], schema["maxLength"] + 1)]
    return found


def fields(schema, doc, prefix=""):
    """(name, schema), those of objects too."""
    for name, s in schema["properties"].items():
        yield prefix + name, s
        for inner in s.get("anyOf", [s]):
            if "properties" in inner:
                yield from fields(inner, doc, prefix + name + ".")


def base(path, name):
    """A good body that ends soon, without the field."""
    body = {"question": "Hi?", "prompt": "Draw.", "max_tokens": 1, "timeout_ms": 3}
    own = {"/v1/vqa": ("question", "max_tokens"), "/v1/draw": ("prompt", "timeout_ms"), "/v1/completions": ("prompt", "max_tokens"),
           "/v1/chat/completions": ("max_tokens",)}.get(path, ("prompt",))
    body = {k: body[k] for k in own}
    if path == "/v1/chat/completions":
        body["messages"] = [{"role": "user", "content": "Hi?"}]
    if path.startswith("/v1/images") and not name.startswith("healthgpt"):
        body["healthgpt"] = {"timeout_ms": 3}
    if path == "/v1/images/edits":
        body["image"] = b64(png(8, 8, bytes(192)))
    if name == "max_completion_tokens":
        body.pop("max_tokens")
    body.pop(name, None)
    return body


def with_field(body, name, literal):
    """JSON text of the body with this field, which may stand in an object."""
    names = name.split(".")
    for outer in reversed(names[1:]):
        literal = '{"%s":%s}' % (outer, literal)
    text = json.dumps(body)
    return text[:-1] + (", " if body else "") + '"%s":%s}' % (names[0], literal)


class Client:
    def __init__(self, d):
        self.connection = http.client.HTTPConnection("127.0.0.1", d.port, timeout=120)

    def post(self, path, text, kind="application/json"):
        self.connection.request("POST", path, text, {"Content-Type": kind})
        r = self.connection.getresponse()
        data = r.read()
        try:
            reply = json.loads(data) if r.status >= 400 else {}
        except ValueError:
            reply = {"error": {"message": repr(data), "param": None, "code": "none"}}
        return r.status, reply.get("error", {})


def judge(where, name, schema, literal, doc, status, error):
    v = json.loads(literal)
    param = error.get("param") or ""
    mine = param in (name, name.rpartition(".")[0] or name) or param.startswith(name + "[") or param.startswith(name + ".") or (
        name in ("image", "images") and param.startswith("image"))
    shown = "%s %s = %.60s" % (where, name, literal)
    require(status != 500, "%s: 500 %r" % (shown, error))
    if isinstance(v, int) and not -2 ** 63 <= v < 2 ** 63:  # no number of JSON here: the text has no fields at all
        equal((status, error.get("code")), (400, "invalid_json"), shown)
        return False
    if fits(schema, v, doc):
        require(name in MORE_RULES or not mine or status in (503, 504), "%s is in bounds: %d %r" % (shown, status, error))
        require(status in (200, 503, 504) or name in MORE_RULES, "%s is in bounds: %d %r" % (shown, status, error))
        return status == 200
    require(status in (400, 413), "%s is out of bounds: %d %r" % (shown, status, error))
    require(mine, "%s: the error is about %r: %r" % (shown, param, error))
    return False


def bodies_of(doc):
    for path, methods in doc["paths"].items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {})
        if "application/json" in content:
            yield path, content["application/json"]["schema"], "multipart/form-data" in content


def check_every_field_at_its_bounds(build):
    n = n_good = n_fields = 0
    with Daemon(build) as d:
        doc = json.loads(d.request("GET", "/openapi.json")[2])
        client = Client(d)
        for path, schema, _ in bodies_of(doc):
            for name, s in fields(schema, doc):
                n_fields += 1
                body = base(path, name)
                literals = dict.fromkeys(bounds(s, doc) + (LITERALS[::4] if is_sanitized(build) else LITERALS))
                for literal in literals:
                    status, error = client.post(path, with_field(body, name, literal))
                    n_good += judge(path, name, s, literal, doc, status, error)
                    n += 1
                twice = with_field(body, name, "null")
                inner = '"%s":null' % name.split(".")[-1]
                status, error = client.post(path, twice.replace(inner, inner + "," + inner))
                equal((status, error.get("code")), (400, "invalid_json"), "%s %s twice" % (path, name))
        d.wait_idle()
    require(n_fields > 60 and n_good > n_fields, "%d fields, %d good values" % (n_fields, n_good))
    return "%d values of %d fields, %d of them good" % (n, n_fields, n_good)


def as_form(values):
    return "".join('--B\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % kv for kv in values) + "--B--\r\n"


def check_numbers_in_forms_at_their_bounds(build):
    n = 0
    bad = ["", " ", "x", "1x", "0x10", " 1", "1 ", "+1", "--1", "NaN", "nan", "inf", "-inf", "1e999", "1,5", "\u0661", "null",
           "true", "1\t", "1 2"]
    with Daemon(build) as d:
        doc = json.loads(d.request("GET", "/openapi.json")[2])
        client = Client(d)
        for path, schema, takes_form in bodies_of(doc):
            for name, s in fields(schema, doc) if takes_form else ():
                kinds = {a.get("type") for a in s.get("anyOf", [s])} - {"null"}
                if not kinds <= {"integer", "number"} or not kinds or "." in name:
                    continue
                body = [(k, v) for k, v in base(path, name).items() if isinstance(v, (str, int)) and k != "image"]
                if path == "/v1/images/edits":
                    continue  # needs a picture in bytes: check_openai sends such forms
                for text in bad + bounds(s, doc):
                    status, error = client.post(path, as_form(body + [(name, text)]).encode(),
                                                "multipart/form-data; boundary=B")
                    good = text not in bad and fits(s, json.loads(text), doc)
                    where = "form of %s, %s = %r" % (path, name, text)
                    if good:
                        require(status in (200, 503, 504) or name in MORE_RULES, "%s: %d %r" % (where, status, error))
                    else:
                        require(status == 400 and error["param"] == name, "%s: %d %r" % (where, status, error))
                    n += 1
    require(n > 300, "only %d values" % n)
    return "%d values" % n


SPECIAL = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|endoftext|>", "<image>", "<s>", "</s>", "<unk>", "<|im_start|>",
           "<|im_end|>", "<|im_sep|>", "<START_IMG>", "<END_IMG>", "<idx_3>", "<index_0>"]


def check_special_tokens_are_text_wherever_a_client_writes_them(build):
    def tokens(d, messages, **more):
        return d.post_ok("/v1/chat/completions", dict(more, messages=messages, max_tokens=1))["usage"]["prompt_tokens"]

    def user(content):
        return [{"role": "user", "content": content}]

    n = 0
    with Daemon(build) as d:
        plain = tokens(d, user("ab"))
        for special in SPECIAL:
            half = len(special) // 2
            texts = {
                "a string": user("a" + special + "b"),
                "one part": user([{"type": "text", "text": "a" + special + "b"}]),
                "halves in two parts": user([{"type": "text", "text": "a" + special[:half]},
                                             {"type": "text", "text": special[half:] + "b"}]),
                "a system message": [{"role": "system", "content": "a" + special + "b"}] + user("ab"),
                "an earlier answer": user("ab") + [{"role": "assistant", "content": "a" + special + "b"}] + user("ab"),
            }
            for place, messages in texts.items():
                without = json.loads(json.dumps(messages).replace(special, "").replace(special[:half], "").replace(
                    special[half:] + "b", "b"))
                more = tokens(d, messages) - tokens(d, without)
                require(more >= 2, "%s in %s is %d tokens" % (special, place, more))
                n += 1
            for path, key in (("/v1/vqa", "question"), ("/v1/completions", "prompt")):
                counts = [d.post_ok(path, {key: t, "max_tokens": 1})["usage"]["prompt_tokens"] for t in ("ab", "a%sb" % special)]
                require(counts[1] >= counts[0] + 2, "%s in %s: %r" % (special, path, counts))
                n += 1
        require(plain > 0, "tokens are counted")
    return "%d texts" % n
