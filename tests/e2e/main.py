"""Run every check; see run.sh."""
import importlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import counts, run_module  # noqa: E402

MODULES = """
check_runner
check_cli
check_terminal
check_doctor
check_weights_dir
check_config
check_bad_input
check_body
check_http
check_framing
check_connections
check_guard
check_limits
check_hosts
check_cors
check_mutants
check_secrets
check_errors
check_fields
check_remote
check_daemon
check_keys
check_rates
check_idempotency
check_access
check_audit
check_streaming
check_sse
check_openai
check_openapi
check_synthetic
check_page
check_browser
check_examples
check_device
check_faults
check_load
check_full_size
check_memory
check_memory_runs_out
check_io_fails
check_kv_dtype
check_lock
check_numerics
check_quant
check_ops
check_metrics
check_logs
check_lifecycle
check_nginx
check_simt
check_gpu_programme
check_beside
check_eval_formats
check_eval_metrics
check_eval
""".split()


def main():
    build = sys.argv[1] if len(sys.argv) > 1 else "build/release"
    wanted = sys.argv[2:]
    for name in MODULES:
        if not wanted or any(w in name for w in wanted):
            print("# " + name[6:], flush=True)
            run_module(importlib.import_module(name), build)
    print("e2e: %(passed)d passed, %(failed)d failed, %(skipped)d skipped" % counts)
    return 1 if counts["failed"] else 0


sys.exit(main())
