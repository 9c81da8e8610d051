"""The question sets that tools/eval reads, and what it says of broken ones."""
import json
import os
import random
import re
import tempfile

from eval_tool import EVAL, VQA, read, tool
from harness import Skip, equal, require

import formats  # of tools/eval
import metrics
from items import FormatError


def examples():
    """{format: bytes} of the examples in README.md."""
    page = read(os.path.join(EVAL, "README.md")).decode()
    return {m.group(1): m.group(2).encode() for m in re.finditer(r"^```\w+ ([\w-]+)\n(.*?)^```$", page, re.M | re.S)}


def load_bytes(data, form, variant=""):
    with tempfile.NamedTemporaryFile(suffix=".set") as f:
        f.write(data)
        f.flush()
        try:
            return formats.load(f.name, form, variant)
        except FormatError as e:
            return str(e).replace(f.name, "FILE")


def check_every_format_has_an_example_that_loads(build):
    found = examples()
    equal(sorted(found), sorted(formats.READERS), "formats with an example in README.md")
    kinds = {name: [i.kind for i in load_bytes(data, name).items] for name, data in found.items()}
    equal(kinds, {"vqa-rad": ["closed"], "slake": ["open"], "vqa-med-2019": ["open"], "hf-vqa": ["closed", "open"], "omnimedvqa": ["choice"],
                  "pmc-vqa": ["choice"], "chexpert": ["label"] * 13, "jsonl": ["closed", "choice", "open", "report"],
                  "pairs": ["picture", "picture"]}, "kinds")
    pmc, = load_bytes(found["pmc-vqa"], "pmc-vqa").items
    equal((pmc.answers, pmc.options["A"]), (("B",), "liver"), "a choice with its letter")
    equal(load_bytes(found["vqa-med-2019"], "vqa-med-2019").items[0].answers, ("spine and contents", "skull and contents"), "answers")
    equal(load_bytes(found["jsonl"], "jsonl").items[1].images, ("a.png", "b.png"), "pictures")
    for letter in (b",b,", b",B: lung,", b",Lung,"):
        pmc, = load_bytes(found["pmc-vqa"].replace(b",B,", letter), "pmc-vqa").items
        equal(pmc.answers, ("B",), "the right choice as %r" % letter)
    report, = load_bytes(found["chexpert"], "chexpert", "report").items
    equal(sum(report.labels.values()), 3, "positive labels")


def check_broken_files_are_named(build):
    rad = '[{"qid": 1, "image_name": "a.jpg", "question": "q", "answer": "a", "answer_type": "OPEN"}, %s]'
    row = {"qid": 2, "image_name": "a.jpg", "question": "q", "answer": "a", "answer_type": "OPEN"}
    other = lambda **kw: (rad % json.dumps({k: v for k, v in {**row, **kw}.items() if v != "-"})).encode()
    pmc = b"Figure_path,Question,Answer,Choice A,Choice B\n"
    cases = [
        ("vqa-rad", other(answer_type="YES"), "FILE: item 1: answer_type: expected CLOSED or OPEN, got 'YES'"),
        ("vqa-rad", other(question="-"), "FILE: item 1: question: expected a string, got nothing"),
        ("vqa-rad", other(question=["x"]), "FILE: item 1: question: expected a string, got ['x']"),
        ("vqa-rad", other(answer=" "), "FILE: item 1: answer: expected a string that is not empty, got ' '"),
        ("vqa-rad", other(image_name="../../etc/passwd"), "FILE: item 1: image_name: expected a path below the folder of the pictures, "
                                                          "got '../../etc/passwd'"),
        ("vqa-rad", other(image_name="/etc/passwd"), "expected a path below"),
        ("vqa-rad", other(qid=1), "FILE: id: expected each id once, got '1'"),
        ("vqa-rad", b'[{"qid": 1,}]', "FILE: line 1, column 12: expected JSON"),
        ("vqa-rad", b"[3]", "FILE: item 0: expected an object, got 3"),
        ("vqa-rad", b"[]", "FILE: expected at least one question (test), got none"),
        ("vqa-rad", b"[" * 100000, "FILE: expected JSON of a sensible depth"),
        ("slake", b'[{"qid": 1, "q_lang": "de"}]', "FILE: item 0: q_lang: expected EN or ZH, got 'de'"),
        ("vqa-med-2019", b"a|b|c|d\nx|y|z\n", "FILE: line 2: expected image|category|question|answer, got 3 fields"),
        ("vqa-med-2019", b"a|b||d\n", "FILE: line 1: question: expected a string that is not empty, got ''"),
        ("vqa-med-2019", b"a|b|\xff|d", "FILE: byte 4: expected UTF-8, got b'\\xff|d'"),
        ("hf-vqa", b'{"question": "q", "answer": "a", "image": {"bytes": "x"}}', "FILE: line 1: image: expected the path of a file, got None"),
        ("omnimedvqa", b'[{"question_id": "1", "question": "q", "gt_answer": "MRI", "image_path": "a", "option_A": "CT", "option_B": "US"}]',
         "FILE: item 0: gt_answer: expected one of the options ['CT', 'US'], got 'MRI'"),
        ("omnimedvqa", b'[{"question_id": "1", "question": "q", "option_A": "CT"}]', "option_B: expected two options or more"),
        ("pmc-vqa", b"Figure_path,Question\nx,y\n", "FILE: line 1: Choice A: expected a column of that name"),
        ("pmc-vqa", pmc + b"f.jpg,q,C,x,y\n", "FILE: line 2: Answer: expected one of the options ['x', 'y'], got 'C'"),
        ("pmc-vqa", pmc + b"f.jpg,q,A,x\n", "FILE: line 2: expected 5 fields, got 4"),
        ("pmc-vqa", pmc + b'f.jpg,"q,A,x,y\n', "FILE: line 2: expected CSV"),
        ("chexpert", examples()["chexpert"].replace(b"-1.0", b"maybe"), "FILE: line 2: Edema: expected 1, 0, -1 or nothing, got 'maybe'"),
        ("jsonl", b'{"question": "q", "anwser": "a"}', "FILE: line 1: anwser: expected one of answer, answers, "),
        ("jsonl", b'\n{"question": "q", "answer": "a", "closed": 1}', "FILE: line 2: closed: expected true or false, got 1"),
        ("jsonl", b'{"question": "q", "answer": "C", "options": ["x", "y"]}', "answer: expected one of the options"),
        ("jsonl", b'{"question": "q", "answer": "A", "options": ["x"]}', "options: expected 2 to 10 texts"),
        ("jsonl", b'{"question": "q", "labels": {"Gout": 1}}', "labels: expected an object of CheXpert classes with 0 or 1, got {'Gout': 1}"),
        ("jsonl", b'{"question": "q", "answer": "a", "images": ["a", "b", "c", "d", "e"]}', "images: expected at most 4 pictures, got 5"),
        ("pairs", b'{"prompt": "Draw."}', "FILE: line 1: reference: expected the path of a picture, got nothing"),
    ]
    for form, data, expected in cases:
        got = load_bytes(data, form)
        require(isinstance(got, str) and expected in got, "%s %.60r: expected %r, got %.300r" % (form, data, expected, got))
    _, said = tool("check", "--set", "/nonexistent/set.json", "--format", "slake", expect=2)
    require("set.json: expected a file that can be read, got No such file" in said, said)
    _, said = tool("check", "--set", os.path.join(EVAL, "README.md"), "--format", "slake", "--variant", "fr", expect=2)
    require("--variant: expected en or zh or all, got 'fr'" in said, said)
    return "%d files" % len(cases)


def check_random_damage_is_an_error_or_a_set(build):
    rng, errors = random.Random(7), 0
    for form, data in examples().items():
        for _ in range(150):
            b = bytearray(data)
            for _ in range(rng.randint(1, 4)):
                at = rng.randrange(len(b))
                rng.choice((lambda: b.__setitem__(at, rng.randrange(256)), lambda: b.__delitem__(slice(at, at + rng.randint(1, 9))),
                            lambda: b.__setitem__(slice(at, at), rng.choice((b"null", b'"', b"[", b"{", b",", b"\n", b"9e999", b"\0")))))()
                b = b or bytearray(b" ")
            errors += isinstance(load_bytes(bytes(b), form), str)
    require(errors > 300, "only %d of the damaged files are errors" % errors)
    return "%d of %d are errors" % (errors, 150 * len(examples()))


def check_public_question_files(build):
    if not os.path.isdir(VQA):
        raise Skip("no question files in %s" % VQA)
    for form, name, variant, counts in [("vqa-rad", "vqa-rad_testset.json", "", (272, 179)), ("slake", "slake_test.json", "", (416, 645)),
                                        ("slake", "slake_test.json", "zh", (420, 613)), ("slake", "slake_test.json", "all", (836, 1258)),
                                        ("vqa-med-2019", "vqamed2019_test_w_answers.txt", "", (64, 436))]:
        items = formats.load(os.path.join(VQA, name), form, variant).items
        kinds = [i.kind for i in items]
        equal((kinds.count("closed"), kinds.count("open")), counts, "closed and open questions of %s %s" % (name, variant))
        for i in items:
            for a in i.answers:     # the reference itself is right
                equal((metrics.closed(a, a), metrics.prf_llava_med(a, a)[1], metrics.exact(a, a)), (1.0, 1.0, 1.0), "%s: %r" % (i.id, a))
    out, _ = tool("check", "--set", os.path.join(VQA, "slake_test.json"), "--format", "slake")
    require("1061 questions: 416 closed, 645 open" in out and "pictures: 96, missing 96" in out, out)
