"""A real SLURM on this machine, for the tests of this folder."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/local_slurm.sh"
PATIENCE = 600

# A module of the jobs' own: they are to last, without making the machine busy.
PAUSES = '''
import os
import time

from lightning import Callback


class Pause(Callback):
    """Waits after every step until the job has been requeued."""

    def __init__(self, *, seconds: float) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, *args: object) -> None:
        if os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
            time.sleep(self.seconds)
'''


class Cluster:
    """Commands to a SLURM that has been started."""

    def __init__(self, env: dict[str, str]) -> None:
        self.env = env

    def command(self, *arguments: str | Path) -> str:
        """What a command prints; fails if it fails."""
        ended = subprocess.run(
            [str(argument) for argument in arguments],
            env=self.env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def submit(self, output: Path, *options: str, train: list[str]) -> str:
        """Submit scripts/train.sbatch on CPUs; gives the job's id."""
        arguments = ["--parsable", f"--output={output}", "--cpus-per-task=1", *options]
        script = [ROOT / "scripts/train.sbatch", "trainer.accelerator=cpu", *train]
        return self.command("sbatch", *arguments, *script).strip()

    def state(self, job: str) -> str:
        """PENDING, RUNNING, COMPLETED, ..."""
        shown = self.command("scontrol", "show", "job", "-o", job)
        return shown.partition("JobState=")[2].split(" ")[0]

    def minutes(self, job: str) -> int:
        """Whole minutes for which a job has been running (less than an hour)."""
        shown = self.command("scontrol", "show", "job", "-o", job)
        return int(shown.partition("RunTime=")[2].split(":")[1])

    def paused(self, seconds: float) -> str:
        """An override that makes each step of a run last longer."""
        return f"callbacks.pause={{_target_: pauses.Pause, seconds: {seconds}}}"

    def step(self, folder: Path) -> int:
        """The last step in a run's log."""
        log = folder / "metrics.csv"
        lines = log.read_text().splitlines() if log.exists() else []
        return int(lines[-1].split(",")[0]) if len(lines) > 1 else 0

    def wait(self, failed: Callable[[], bool], done: Callable[[], object], output: Path) -> None:
        """Until something is so; fails with the output if that can't come any more, or takes too long.

        The output alone tells nothing: a process whose peer is killed may say so with a trace.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            over = failed() or time.monotonic() > deadline
            if done():
                return
            assert not over, output.read_text() if output.exists() else "no output"
            time.sleep(0.2)

    def wait_on(self, job: str, done: Callable[[], object], output: Path) -> None:
        """Until something is so, of a job that doesn't fail before."""
        self.wait(lambda: self.state(job) == "FAILED", done, output)

    def wait_for_end(self, job: str, output: Path) -> None:
        """Until a job has run to its end; fails if it failed."""
        self.wait_on(job, lambda: self.state(job) not in ("PENDING", "RUNNING", "COMPLETING"), output)
        assert self.state(job) == "COMPLETED", output.read_text()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """SLURM, started for the module's tests; skips where it can't be installed."""
    folder = tmp_path_factory.mktemp("cluster")
    env = {
        **os.environ,
        "LOCAL_SLURM_DIR": str(folder / "slurm"),
        "LOCAL_SLURM_PORT": str(26000 + 10 * (os.getpid() % 600)),
        "SLURM_CONF": str(folder / "slurm/slurm.conf"),
        "PYTHON": sys.executable,
        "PYTHONPATH": f"{folder}:{ROOT}",
        "OMP_NUM_THREADS": "1",
    }
    up = subprocess.run([SCRIPT, "up"], env=env, capture_output=True, text=True)
    if up.returncode != 0:
        subprocess.run([SCRIPT, "down"], env=env, capture_output=True)
        pytest.skip(f"no SLURM can be started here: {up.stderr.strip().splitlines()[-1]}")
    (folder / "pauses.py").write_text(PAUSES)
    try:
        yield Cluster(env)
    finally:
        subprocess.run([SCRIPT, "down"], env=env, check=True, capture_output=True)
