"""What a person at a terminal sees, and what happens when nobody reads any more."""
import os
import pty
import re
import select
import signal
import subprocess
import tempfile
import time

from harness import LOG_ALARMS, ROOT, cli, cli_ok, equal, png_texts, require, require_synthetic, test_image

EVIL = "\x1b]0;owned\x07\x1b[31m"


def on_terminal(build, *args, stop_after=None):
    """Run with stdout and stderr on a pseudo-terminal; what arrived there, and the exit code."""
    master, slave = pty.openpty()
    env = dict(os.environ, TERM="xterm")
    p = subprocess.Popen([os.path.join(ROOT, build, "healthgpt")] + list(args), stdin=subprocess.DEVNULL,
                         stdout=slave, stderr=slave, cwd=ROOT, env=env,
                         preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # ignored by a shell's background job
    os.close(slave)
    got, end = b"", time.monotonic() + 120
    while time.monotonic() < end:
        if not select.select([master], [], [], 0.2)[0]:
            continue
        try:
            piece = os.read(master, 65536)
        except OSError:  # the last writer has closed
            break
        got += piece
        if stop_after and stop_after in got:
            p.send_signal(signal.SIGINT)
            stop_after = None
    os.close(master)
    code = p.wait(60)
    text = got.decode("utf-8", "replace")
    require(not LOG_ALARMS.search(text), "sanitizer: " + text[-2000:])
    return code, text


def check_draw_shows_a_bar_on_a_terminal_only(build):
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "x.png")
        code, seen = on_terminal(build, "draw", "Draw a chest X-ray.", "-o", path, "--seed", "1")
        equal(code, 0, seen)
        require("drawing [" in seen and "64/64" in seen, "a bar: %r" % seen[:200])
        require(seen.endswith("\r\x1b[K" + path + "\r\n"), "the bar is gone at the end: %r" % seen[-80:])
        equal(cli(build, "draw", "Draw a chest X-ray.", "-o", path, "--seed", "1"), (0, path + "\n", ""), "a pipe")


def check_ctrl_c_ends_a_drawing_and_leaves_no_file(build):
    with tempfile.TemporaryDirectory() as d:
        code, _ = on_terminal(build, "draw", "Draw a chest X-ray.", "-o", os.path.join(d, "x.png"), "--backend",
                              "ref", "--threads", "1", stop_after=b"drawing [")
        require(code in (-signal.SIGINT, 130), "exit %d" % code)
        equal(os.listdir(d), [], "files left")


def check_control_characters_do_not_reach_a_terminal(build):
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, EVIL + "x.png")
        code, seen = on_terminal(build, "draw", "Draw a chest X-ray.", "-o", path, "--json")
        equal(code, 0, seen)
        require(os.path.exists(path), "the file has its name")
        inside = os.path.join(d, EVIL + "dir")
        os.mkdir(inside)
        ids = cli_ok(build, "tokenize", "a\x1b[31mb").split()
        back = cli_ok(build, "detokenize", *ids)
        equal(back, "a\x1b[31mb\n", "a pipe gets the bytes")
        for args in (("draw", "Draw.", "-o", path), ("inspect", inside), ("inspect", path), ("ask", "x", "--image", inside),
                     ("ask", EVIL + "?", "--image", EVIL), (EVIL,), ("ask", "--" + EVIL, "x"), ("detokenize", *ids),
                     ("ask", "x", "--model", EVIL), ("doctor", "--model", EVIL), ("doctor", "--model", inside),
                     ("doctor", "--config", EVIL)):
            _, seen = on_terminal(build, *args)
            rest = re.sub(r"\rdrawing \[[#.]+\] \d+/\d+|\r\x1b\[K", "", seen)
            require(not re.search(r"[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f]", rest), "%r: %r" % (args, rest))


def gone(build, *args, stdin=b"", stdout=None, shell_tail=None):
    """Exit code and stderr with a stdout that cannot be written."""
    command = [os.path.join(ROOT, build, "healthgpt")] + list(args)
    with tempfile.TemporaryFile() as err:
        if stdout:
            with open(stdout, "wb") as out:
                p = subprocess.run(command, input=stdin, stdout=out, stderr=err, cwd=ROOT, timeout=120)
        else:
            r, w = os.pipe()
            os.close(r)
            p = subprocess.run(command, input=stdin, stdout=w, stderr=err, cwd=ROOT, timeout=120)
            os.close(w)
        err.seek(0)
        return p.returncode, err.read().decode("utf-8", "replace")


def check_a_full_disk_is_reported_and_a_closed_pipe_is_not(build):
    for args in (("ask", "Hi?"), ("ask", "Hi?", "--json"), ("--help",), ("inspect", "config/models/demo"),
                 ("tokenize", "x"), ("bench", "--prompt-tokens", "8", "--max-tokens", "2")):
        code, err = gone(build, *args, stdout="/dev/full")
        equal((code, err), (74, "healthgpt: cannot write to stdout: No space left on device\n"), "%r" % (args,))
        equal(gone(build, *args), (74, ""), "%r into a closed pipe" % (args,))


def check_closed_descriptors_are_not_reused(build):
    program = os.path.join(ROOT, build, "healthgpt")
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "x.png")
        p = subprocess.run('"%s" draw "Draw a chest X-ray." -o "%s" >&- <&-' % (program, path), shell=True,
                           stderr=subprocess.PIPE, cwd=ROOT, timeout=120)
        equal((p.returncode, p.stderr.decode()), (74, "healthgpt: cannot write to stdout: Bad file descriptor\n"), "end")
        with open(path, "rb") as f:
            require_synthetic(f.read())


def check_batch_stops_when_nobody_reads(build):
    lines = b'{"question":"Hi?","max_tokens":8}\n' * 100000  # minutes of work
    equal(gone(build, "batch", stdin=lines), (74, ""), "end")


def check_output_names_are_checked_before_the_work(build):
    with tempfile.TemporaryDirectory() as d:
        device = os.path.join(d, "pipe")
        os.mkfifo(device)
        for path, code, part in ((d, 64, "is a folder"), (os.path.join(d, "new/"), 64, "is a folder"),
                                 (os.path.join(d, "new", "x.png"), 66, "No such file"), ("", 64, "empty"),
                                 (device, 64, "not a regular file"), ("/dev/null", 64, "not a regular file")):
            # A model that is not there would be noticed first if it were loaded first.
            got, out, err = cli(build, "draw", "Draw.", "-o", path, "--model", "/nonexistent")
            equal((got, out), (code, ""), err)
            require(part in err, "%r: %s" % (path, err))
        require(not os.path.isfile("/dev/null"), "/dev/null is a device")
        equal(os.listdir(d), ["pipe"], "nothing was made")
    code, out, err = cli(build, "draw", "Draw.", "-o", "-", "--json")
    equal(code, 64, err)
    p = subprocess.run([os.path.join(ROOT, build, "healthgpt"), "draw", "Draw a chest X-ray.", "-o", "-"],
                       stdout=subprocess.PIPE, cwd=ROOT, timeout=120)
    require_synthetic(p.stdout)


def check_an_image_error_names_the_file(build):
    with tempfile.TemporaryDirectory() as d:
        good, bad = os.path.join(d, "good.png"), os.path.join(d, "bad.png")
        for path, data in ((good, test_image()), (bad, b"no picture")):
            with open(path, "wb") as f:
                f.write(data)
        code, _, err = cli(build, "ask", "Compare.", "--image", good, "--image", bad)
        equal(code, 65, err)
        require(bad + ": expected a PNG or JPEG" in err, err)
        require(png_texts(test_image()) == {}, "the good one is good")
