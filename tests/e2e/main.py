"""Run every check; see run.sh."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import check_bad_input  # noqa: E402
import check_cli  # noqa: E402
import check_connections  # noqa: E402
import check_daemon  # noqa: E402
import check_device  # noqa: E402
import check_faults  # noqa: E402
import check_framing  # noqa: E402
import check_gpu_programme  # noqa: E402
import check_guard  # noqa: E402
import check_hosts  # noqa: E402
import check_http  # noqa: E402
import check_keys  # noqa: E402
import check_kv_dtype  # noqa: E402
import check_simt  # noqa: E402
import check_limits  # noqa: E402
import check_load  # noqa: E402
import check_streaming  # noqa: E402
import check_memory  # noqa: E402
import check_mutants  # noqa: E402
import check_runner  # noqa: E402
import check_terminal  # noqa: E402
from harness import counts, run_module  # noqa: E402


def main():
    build = sys.argv[1] if len(sys.argv) > 1 else "build/release"
    wanted = sys.argv[2:]
    for module in (check_runner, check_cli, check_terminal, check_bad_input, check_http, check_framing, check_connections, check_guard, check_limits, check_hosts, check_mutants,
                   check_daemon, check_keys, check_streaming, check_device, check_faults, check_load, check_memory, check_kv_dtype,
                   check_simt, check_gpu_programme):
        if not wanted or any(w in module.__name__ for w in wanted):
            print("# " + module.__name__[6:], flush=True)
            run_module(module, build)
    print("e2e: %(passed)d passed, %(failed)d failed, %(skipped)d skipped" % counts)
    return 1 if counts["failed"] else 0


sys.exit(main())
