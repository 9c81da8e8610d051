"""--numerics strict, the reference's FP16 rounding on the ref backend: flag, daemon, refusals."""
from harness import Daemon, cli, cli_ok, equal, require

QUESTION = "What is pneumonia?"


def check_strict_answers_come_from_ref(build):
    default, strict = (cli_ok(build, "ask", "--numerics", n, "--backend", "auto" if n == "strict" else "ref", QUESTION)
                       for n in ("default", "strict"))
    equal(strict, default, "answer")  # an easy question of the demo model
    with Daemon(build, "--numerics", "strict") as d:
        status, _, reply = d.post("/v1/vqa", {"question": QUESTION})
        equal(status, 200, str(reply))
        backend = d.health()["backend"]
        require(backend.startswith("ref"), "strict runs on %s" % backend)
    return strict.strip()[:60]


def check_what_strict_does_not_fit_is_refused(build):
    for args, text in ((("--backend", "cpu"), 'numerics strict: backend: expected ref, got "cpu"'),
                       (("--dtype", "int4"), 'numerics strict: dtype: expected f16, got "int4"'),
                       (("--kv-dtype", "int8"), 'numerics strict: kv_dtype: expected f16, got "int8"')):
        code, _, err = cli(build, "ask", "--numerics", "strict", *args, QUESTION)
        require(code != 0 and text in err, "%s: %d, %s" % (" ".join(args), code, err))
