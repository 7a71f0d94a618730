"""The scaling model against arithmetic, and the document against the model."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("model_scaling", ROOT / "scripts/model_scaling.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "model_scaling", module)
        spec.loader.exec_module(module)
    return module


@pytest.fixture
def cluster(script):
    speeds = {"within": 100, "between": 10, "latency": 0, "decoded": 100, "storage": 1}
    return script.Cluster(per_node=8, cores=10, image_bytes=1e5, **speeds)


@pytest.fixture
def job(script):
    return script.Job(images_per_second=100, parameters=1e8, global_batch=1600, bucket=0.1)


def test_one_node_and_two(script, cluster) -> None:
    one = 2 * 7 / 8 * 4e8 / 100e9
    assert script.all_reduce_seconds(8, 4e8, cluster) == pytest.approx(one)
    two = 2 * 1 / 2 * (4e8 / 8) / 10e9
    assert script.all_reduce_seconds(16, 4e8, cluster) == pytest.approx(one + two)


def test_data_are_read_from_one_storage_and_decoded_in_every_node(script, job, cluster) -> None:
    assert script.model_step(8, job, cluster).data == pytest.approx(1600 / 1000)
    assert script.model_step(1024, job, cluster).data == pytest.approx(1600 * 1e5 / 1e9)


def test_what_the_backward_pass_is_too_short_to_hide_is_added(script, job, cluster) -> None:
    long, short = script.model_step(16, job, cluster), script.model_step(1024, job, cluster)
    assert long.compute == pytest.approx(1.0)
    assert long.exposed == pytest.approx(0.1 * long.all_reduce)
    assert short.exposed == pytest.approx(
        short.all_reduce - min(0.9 * short.all_reduce, 2 / 3 * short.compute)
    )
    assert [script.model_step(number, job, cluster).limit for number in (8, 16)] == ["compute", "compute"]


def test_more_gpus_never_take_longer_to_compute(script, job, cluster) -> None:
    times = [script.model_step(number, job, cluster).compute for number in script.GPUS]
    assert times == sorted(times, reverse=True)


def test_every_table_of_the_document_is_what_the_script_says(script) -> None:
    text = (ROOT / "docs/scaling.md").read_text()
    commands = re.findall(r"    python scripts/model_scaling\.py (.*)\n\n((?:\|.*\n)+\n.*)", text)
    assert len(commands) == 4
    for arguments, shown in commands:
        assert shown == script.main(arguments.split())
