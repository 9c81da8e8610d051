"""The int8 KV cache (--kv-dtype int8) under the demo model: memory, answers, backends."""
import json
import os
import re

from harness import Daemon, cli_ok, equal, is_sanitized, require
from check_simt import needs_simt

FOLDER = "tests/data/demo/"
QUESTIONS = {
    "chest_clear chest_right": [
        "What modality is this?", "What organ is shown?", "Is there evidence of pneumonia?", "Are the lungs clear?",
        "What is the most likely diagnosis?", "Describe the image.", "Write a short report."],
    "brain_clear brain_left brain_right": [
        "What modality is this?", "What organ is shown?", "Is there a lesion?", "On which side is the lesion?",
        "How large is the lesion?", "Where is the lesion?", "Describe the image."],
    "circles_3 squares_2 triangles_4": [
        "What modality is this?", "What organ is shown?", "What shape is shown?", "How many shapes are there?",
        "How many circles are there?", "How many squares do you see?", "Describe the image."],
    "": ["What is pneumonia?", "What is a VQGAN?", "What is an X-ray?", "Who are you?", "What can you do?",
         "What is H-LoRA?", "What is a phantom?", "What is a lesion?", "How large are your images?"],
}
# A step may choose another token only where f16 holds the two that close: int8 moved a log probability by at most 0.009
# (as measured by this check), so a gap by twice that.
NEAR_TIE = 0.02


def requests(few=False):
    lines = []
    for pictures, questions in QUESTIONS.items():
        for picture in pictures.split() or [None]:
            lines += [{"task": "ask", "images": [FOLDER + picture + ".png"] if picture else [], "question": q,
                       "max_tokens": 48, "top_logprobs": 20} for q in (questions[-1:] if few else questions)]
    return [dict(line, id=i) for i, line in enumerate(lines)]


def answers(build, lines, *args):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    out = cli_ok(build, "batch", *args, stdin=text.encode())
    found = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    equal([a.get("id") for a in found], [line["id"] for line in lines], "answers")
    return found


def compare(a, b):
    """Answers with equal tokens, equal leading tokens, all tokens of a, largest difference of a log probability; fails
    where the first difference is no near tie."""
    same = leading = total = worst = 0
    for x, y in zip(a, b):
        steps = list(zip(x["ids"], y["ids"]))
        at = next((i for i, (s, t) in enumerate(steps) if s != t), len(steps))
        for i, (s, _) in enumerate(steps[:at]):
            of = [next(t["logprob"] for t in z["top_logprobs"][i] if t["id"] == s) for z in (x, y)]
            worst = max(worst, abs(of[0] - of[1]))
        if at < len(steps):
            top = {t["id"]: t["logprob"] for t in x["top_logprobs"][at]}
            gap = top[x["ids"][at]] - top.get(y["ids"][at], -100)
            require(gap <= NEAR_TIE, "answer %d, token %d: a gap of %.3f was jumped: %r, %r" % (
                x["id"], at, gap, x["text"], y["text"]))
        same += x["ids"] == y["ids"]
        leading += at
        total += len(x["ids"])
    return same, leading, total, worst


def check_greedy_answers_are_those_of_an_f16_cache(build):
    lines = requests()
    f16, int8 = (answers(build, lines, "--backend", "cpu", "--kv-dtype", t) for t in ("f16", "int8"))
    same, leading, total, worst = compare(f16, int8)
    return "%d of %d answers equal, %d of %d tokens; log probabilities within %.4f" % (
        same, len(lines), leading, total, worst)


def check_backends_agree_on_an_int8_cache(build):
    lines, notes = requests(few=True), []
    cpu = answers(build, lines, "--backend", "cpu", "--kv-dtype", "int8")
    backends = ["ref", "simt"]
    if is_sanitized(build) or not os.path.exists(os.path.join(build, "libhealthgpt_simt.so")):
        backends = ["ref"]
    else:
        needs_simt(build)
    for backend in backends:
        same, _, _, worst = compare(cpu, answers(build, lines, "--backend", backend, "--kv-dtype", "int8"))
        notes.append("%s: %d of %d answers equal, log probabilities within %.1e" % (backend, same, len(lines), worst))
    return "; ".join(notes)


def check_printed_memory_counts_bytes_and_scales(build):
    """Heads of P values: 2 P bytes in f16, P + 4 in int8."""
    info = json.loads(cli_ok(build, "inspect", "config/models/demo", "--json"))
    dim = info["llm"]["head_dim"]
    printed = []
    for kind in ("f16", "int8"):
        with Daemon(build, "--kv-dtype", kind, "--kv-tokens", "65536") as d:
            status, _, reply = d.post("/v1/vqa", {"question": "Who are you?"})
            equal(status, 200, str(reply))
            printed.append(float(re.search(r"KV cache ([\d.]+) MB", d.log_text()).group(1)))
    require(abs(printed[1] - printed[0] * (dim + 4) / (2 * dim)) < 0.11, "printed %.1f MB, %.1f MB" % tuple(printed))
    return "heads of %d: %.1f MB, %.1f MB" % (dim, printed[0], printed[1])
