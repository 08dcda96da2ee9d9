"""Starting, watching and ending runs: every wait has an end, only recorded processes are killed."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
LONG = 240.0  # seconds that anything may take on a busy machine


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Run:
    """A folder, an order for the driver, and the processes that were started with it."""

    def __init__(self, base: Path, name="run", *, cache=None, devices=1, settings=None, **order):
        self.base = base / name
        self.base.mkdir(parents=True, exist_ok=True)
        self.folder = self.base / "out"
        self.checkpoints = self.folder / "checkpoints"
        self.devices, self.cache, self.processes = devices, cache, []
        self.order = dict(folder=str(self.folder), settings=settings or {},
                          progress=str(self.base / "progress"),
                          result=str(self.base / "result"),
                          compiled=str(self.base / "compiled"), **order)  # fmt: skip

    def environment(self, **more):
        flags = "--xla_backend_optimization_level=0"
        flags += f" --xla_force_host_platform_device_count={self.devices}"
        cache = {}
        if self.cache:
            cache = dict(JAX_COMPILATION_CACHE_DIR=str(self.cache),
                         JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")  # fmt: skip
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "DIFFEDIT_"))}
        return {**clean, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT),
                "TF_CPP_MIN_LOG_LEVEL": "3", **cache, **more}  # fmt: skip

    def command(self, **changes):
        path = self.base / f"order{len(self.processes)}.json"
        path.write_text(json.dumps({**self.order, **changes}))
        return [sys.executable, "-m", "tests.chaos.driver", str(path)]

    def start(self, environment=None, command=None, **changes):
        log = (self.base / f"log{len(self.processes)}").open("w")
        process = subprocess.Popen(
            command or self.command(**changes), env=environment or self.environment(), cwd=ROOT,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        process.log = Path(log.name)
        self.processes.append(process)
        return process

    def start_ranks(self, count, heartbeat=10, address=None, **changes):
        address = address or f"127.0.0.1:{free_port()}"
        shared = dict(JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES=str(count),
                      DIFFEDIT_HEARTBEAT=str(heartbeat), DIFFEDIT_JOIN_TIMEOUT="120")  # fmt: skip
        return [self.start(self.environment(**shared, JAX_PROCESS_ID=str(i)), **changes)
                for i in range(count)]  # fmt: skip

    def supervised(self, *options, **changes):
        supervisor = [sys.executable, "-m", "diffedit_jax.training.supervisor", *options, "--"]
        return self.start(command=[*supervisor, *self.command(**changes)])

    def asked(self, index=0):
        """[(step, pid)] of every batch that a rank has asked for, over all its lives."""
        path = Path(f"{self.order['progress']}.{index}")
        rows = path.read_text().split("\n")[:-1] if path.exists() else []
        return [tuple(map(int, row.split())) for row in rows]

    def result(self):
        return json.loads(Path(self.order["result"]).read_text())

    def steps(self):
        return sorted(int(p.name) for p in self.checkpoints.glob("[0-9]*"))

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()


@contextlib.contextmanager
def running(*arguments, **options):
    run = Run(*arguments, **options)
    try:
        yield run
    finally:
        run.end()


def until(truth, process=None, seconds=LONG, pause=0.01):
    """Waits for truth() and returns what it said; fails when time or the process runs out."""
    end = time.monotonic() + seconds
    while not (found := truth()):
        if process is not None and process.poll() is not None:
            if found := truth():
                return found
            raise AssertionError(
                f"ended with {process.returncode}: {process.log.read_text()[-2000:]}"
            )
        assert time.monotonic() < end, "waited too long"
        time.sleep(pause)
    return found


def ended(process, code=0, seconds=LONG):
    """Waits for the exit code and compares; `code` may be a function."""
    found = process.wait(seconds)
    text = process.log.read_text()
    assert code(found) if callable(code) else found == code, f"{found}: {text[-3000:]}"
    return text


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
