"""Configuration: what --check-config says, who wins, what is made from the table (man, completions, install)."""
import json
import os
import re
import shutil
import subprocess
import tempfile

from harness import LOG_ALARMS, ROOT, Daemon, Skip, equal, require


def healthgptd(build, *args, env=None):
    """Exit code, stdout, stderr. Nothing of this machine's HEALTHGPT_ variables comes in."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HEALTHGPT_")}
    p = subprocess.run([os.path.join(ROOT, build, "healthgptd")] + list(args), stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, timeout=60,
                       env=dict(clean, **(env or {})))
    err = p.stderr.decode()
    require(not LOG_ALARMS.search(err), "sanitizer: " + err[-2000:])
    return p.returncode, p.stdout.decode(), err


def options(build):
    """Every option with its argument ("" for a switch), as --help has them."""
    code, out, _ = healthgptd(build, "--help")
    equal(code, 0, "exit code")
    found = dict(re.findall(r"^  --([a-z0-9-]+) ([A-Z:]*)", out, re.M))
    require(len(found) > 30 and found["max-queue"] == "N" and found["insecure"] == "", "options: %r" % found)
    require(max(len(line) for line in out.split("\n")) <= 100, "a line of --help is longer than 100")
    return found


def needs(*programs):
    for name in programs:
        if shutil.which(name):
            return name
    raise Skip("needs %s" % " or ".join(programs))


def check_effective_configuration_and_where_it_is_from(build):
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "c.json")
        with open(path, "w") as f:
            f.write('{ // comment\n"max_queue": 3, "max_batch": 4, "drain_s": 5, "log_json": true}')
        code, out, err = healthgptd(build, "--check-config", "--config", path, "--max-queue", "9", "--log-json=false",
                                    env={"HEALTHGPT_MAX_BATCH": "8", "HEALTHGPT_MAX_QUEUE": "7",
                                         "HEALTHGPT_SERVICE_HOST": "10.0.0.1", "HEALTHGPT_PORT": "tcp://10.0.0.1:80"})
        equal((code, err), (0, ""), "exit code, stderr")
        values = json.loads(out)
        schema = json.loads(healthgptd(build, "--print-schema")[1])["properties"]
        equal(sorted(values), sorted(k for k in schema if k != "$schema"), "keys")
        for key, value, source in (("max_queue", 9, "flag"), ("max_batch", 8, "environment"), ("drain_s", 5, "file"),
                                   ("log_json", False, "flag"), ("threads", 0, "default")):
            equal(values[key], {"value": value, "from": source}, key)
        # the file by the environment, and the flag that wins over that
        code, out, _ = healthgptd(build, "--check-config", env={"HEALTHGPT_CONFIG": path})
        equal((code, json.loads(out)["drain_s"]["value"]), (0, 5), "HEALTHGPT_CONFIG")
        code, out, _ = healthgptd(build, "--check-config", "--config", os.path.join(ROOT, "config", "default.json"),
                                  env={"HEALTHGPT_CONFIG": path})
        equal((code, json.loads(out)["drain_s"]["value"]), (0, 30), "--config over HEALTHGPT_CONFIG")


def check_config_line_column(build):
    """Every error, at a start as well as with --check-config."""
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "c.json")
        with open(path, "w") as f:
            f.write('{\n  "max_qeue": 3,\n  "max_batch": "many", // no\n  "dtype": "f7"\n  "threads": 1,\n}\n')
        expected = [
            path + ":2:3: max_qeue: unknown key; did you mean max_queue?",
            path + ':3:16: max_batch: expected a whole number in 1..1024, got "many"',
            path + ':4:12: dtype: expected one of the texts auto, f32, f16, bf16, int8, fp8, int4, got "f7"',
            path + ":5:3: expected a comma before this key",
            path + ":5:15: a comma before the closing }",
            "environment: HEALTHGPT_KV_TOKEN: there is no such key; did you mean HEALTHGPT_KV_TOKENS?",
            "unknown option --listn: did you mean --listen?",
        ]
        for more in ([], ["--check-config"]):
            code, out, err = healthgptd(build, "--config", path, *more, "--listn=x", env={"HEALTHGPT_KV_TOKEN": "1"})
            equal(code, 64, "exit code")
            equal(err.split("\n")[:-1], ["healthgptd: " + line for line in expected], "errors")
            if more:
                equal(json.loads(out)["threads"], {"value": 1, "from": "file"}, "what was right")
    return "%d errors" % len(expected)


def check_what_only_the_values_together_show(build):
    for args, part in ((["--listen", "0.0.0.0:80"], "is not loopback"), (["--listen", "nowhere"], "listen: "),
                       (["--api-keys", "/nonexistent/keys.json"], "api_keys: "),
                       (["--model", "/nonexistent"], "model: --model /nonexistent")):
        code, _, err = healthgptd(build, "--check-config", *args)
        equal(code, 64, "exit code of %r" % args)
        require(part in err and err.count("\n") == 1, "%r: %r" % (args, err))
    equal(healthgptd(build, "--check-config", "--listen", "0.0.0.0:80", "--insecure")[0], 0, "exit code")


def check_a_flag_takes_a_variable_back(build):
    """The model layer reads two variables itself: it must not see what a flag has overruled."""
    with Daemon(build, "--model", "", "--gpu-memory-utilization", "0.5",
                env={"HEALTHGPT_MODEL": "/nonexistent", "HEALTHGPT_GPU_MEMORY_UTILIZATION": "0.3"}) as d:
        equal(d.health()["status"], "ok", "status")


def check_man_pages_render(build):
    names, notes = options(build), []
    pages = {}
    for page in ("1", "5"):
        code, pages[page], err = healthgptd(build, "--man", page)
        equal((code, err), (0, ""), "--man %s" % page)
    program = needs("groff", "mandoc")
    lint = shutil.which("mandoc")
    for page, text in pages.items():
        command = ["groff", "-ww", "-mdoc", "-Tascii", "-P-cbou"] if program == "groff" else ["mandoc", "-Tascii"]
        p = subprocess.run(command, input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        equal((p.returncode, p.stderr), (0, b""), "%s of page %s" % (program, page))
        shown = re.sub(r".\x08", "", p.stdout.decode())
        if page == "1":
            missing = [n for n in names if not re.search(r"--%s\b" % re.escape(n), shown)]
        else:
            missing = [n for n in names if n.replace("-", "_") not in shown and n not in (
                "config", "check-config", "print-schema", "completion", "man", "help", "version")]
        equal(missing, [], "not in page %s" % page)
        if lint:
            p = subprocess.run(["mandoc", "-Tlint", "-Wwarning"], input=text.encode(), stdout=subprocess.PIPE, timeout=60)
            equal((p.returncode, p.stdout), (0, b""), "mandoc -Tlint of page %s" % page)
        notes.append("%d lines" % shown.count("\n"))
    return "%s by %s%s" % (", ".join(notes), program, ", lint by mandoc" if lint else "")


def check_bash_completion(build):
    needs("bash")
    names = options(build)
    with tempfile.TemporaryDirectory() as d:
        script = os.path.join(d, "healthgptd")
        with open(script, "w") as f:
            f.write(healthgptd(build, "--completion", "bash")[1])
        open(os.path.join(d, "some.json"), "w").close()
        os.mkdir(os.path.join(d, "somedir"))

        def complete(*words):
            text = 'source ./healthgptd; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _healthgptd; printf "%s\\n" "${COMPREPLY[@]}"'
            p = subprocess.run(["bash", "-c", text, "bash", "healthgptd"] + list(words), cwd=d, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, timeout=60)
            equal(p.stderr, b"", "stderr of bash")
            return p.stdout.decode().split()

        equal(sorted(complete("--")), sorted("--" + n for n in names), "options")
        equal(complete("--max-q"), ["--max-queue", "--max-queue-tokens"], "--max-q")
        equal(complete("--kv-dtype", "i"), ["int8"], "--kv-dtype i")
        equal(complete("--kv-dtype", "=", "b"), ["bf16"], "--kv-dtype=b")
        equal(complete("--kv-dtype", "="), ["auto", "f32", "f16", "bf16", "int8"], "--kv-dtype=")
        equal(sorted(complete("--config", "some")), ["some.json", "somedir"], "--config")
        equal(sorted(complete("--model", "some")), ["some.json", "somedir"], "--model: a card file or a folder")
        equal(complete("--weights", "some"), ["somedir"], "--weights")
        equal(complete("--max-queue", ""), [], "a number")
        equal(complete("key"), ["keygen"], "keygen")


def check_zsh_completion(build):
    needs("zsh")
    with tempfile.TemporaryDirectory() as d:
        with open(os.path.join(d, "_healthgptd"), "w") as f:
            f.write(healthgptd(build, "--completion", "zsh")[1])
        equal(subprocess.run(["zsh", "-n", os.path.join(d, "_healthgptd")], timeout=60).returncode, 0, "zsh -n")
        # _arguments is what zsh gives it to; here it counts what it is given
        text = "_arguments() { for a in \"$@\"; do print -r -- $a; done }; source ./_healthgptd"
        out = subprocess.run(["zsh", "-f", "-c", text], cwd=d, stdout=subprocess.PIPE, timeout=60).stdout.decode()
        found = re.findall(r"^--([a-z0-9-]+)=?\[", out, re.M)
        equal(sorted(found), sorted(options(build)), "options")
        require("(auto f32 f16 bf16 int8)" in out, "values of --kv-dtype")


def check_what_install_puts_where(build):
    """make install into an empty folder: what it makes from the program is what the program says."""
    if build != "build/release":
        raise Skip("make install takes build/release")
    with tempfile.TemporaryDirectory() as d:
        p = subprocess.run(["make", "-s", "install", "DESTDIR=" + d, "PREFIX=/usr"], cwd=ROOT, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, timeout=600)
        equal(p.returncode, 0, "make install: %r" % p.stdout[-500:])
        for name, args in (("man/man1/healthgptd.1", ("--man", "1")), ("man/man5/healthgptd.conf.5", ("--man", "5")),
                           ("bash-completion/completions/healthgptd", ("--completion", "bash")),
                           ("zsh/site-functions/_healthgptd", ("--completion", "zsh")),
                           ("healthgpt/schema.json", ("--print-schema",))):
            path = os.path.join(d, "usr", "share", name)
            with open(path) as f:
                equal(f.read(), healthgptd(build, *args)[1], name)
            equal(oct(os.stat(path).st_mode & 0o777), "0o644", "mode of " + name)
        for name in ("demo/healthgpt.json", "healthgpt-m3.json", "healthgpt-l14.json", "healthgpt-xl32.json"):
            require(os.path.exists(os.path.join(d, "usr", "share", "healthgpt", "models", name)), "no card " + name)


def check_schema_accepts_the_default_file(build):
    """A small reading of JSON Schema: types, bounds, enums, no other keys."""
    schema = json.loads(healthgptd(build, "--print-schema")[1])
    with open(os.path.join(ROOT, "config", "schema.json")) as f:
        equal(json.load(f), schema, "config/schema.json (make schema)")
    with open(os.path.join(ROOT, "config", "default.json")) as f:
        values = json.loads("\n".join(re.sub(r"(^|[ ,{])//.*", "", line) for line in f))
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool}
    for key, value in values.items():
        p = schema["properties"][key]
        if "enum" in p:
            require(value in p["enum"], "%s: %r" % (key, value))
        else:
            require(isinstance(value, kinds[p["type"]]), "%s: %r" % (key, value))
        require(p.get("minimum", value) <= value <= p.get("maximum", value) if "minimum" in p else True, key)
        equal(value, p.get("default", value), "default of " + key)
    equal(sorted(values), sorted(schema["properties"]), "keys")
