from pathlib import Path

import pytest

from maskpre.data.scenes import SceneRanges
from maskpre.data.scenes.pictures import ScenePictures
from maskpre.data.scenes.shards import RenderJob, write_shards


def _jobs(folder: Path, number: int) -> list[RenderJob]:
    return [
        RenderJob(
            path=folder / f"{place}.tar",
            collection=ScenePictures(seed=0, image_size=16, ranges=SceneRanges()),
            first_index=20 * place,
            first_key=0,
            count=20,
        )
        for place in range(number)
    ]


def test_processes_write_the_same_bytes_as_one_and_summarise_in_order(tmp_path: Path) -> None:
    heard: list[int] = []
    summaries = {}
    for num_workers in (1, 2):
        folder = tmp_path / str(num_workers)
        folder.mkdir()
        jobs = _jobs(folder, 3)
        summaries[num_workers] = write_shards(jobs, num_workers=num_workers, on_samples=heard.append)
    assert heard == [20] * 6
    for job in _jobs(tmp_path / "1", 3):
        assert job.path.read_bytes() == (tmp_path / "2" / job.path.name).read_bytes()
    sums = [[s.pixel_sum.tolist() for s in summaries[n]] for n in (1, 2)]
    assert sums[0] == sums[1]
    assert [summary.file for summary in summaries[2]] == ["0.tar", "1.tar", "2.tar"]


@pytest.mark.slow
def test_interrupt_begins_no_further_shard(tmp_path: Path) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(_jobs(tmp_path, 40), num_workers=2, on_samples=interrupt)
    assert 0 < len(list(tmp_path.iterdir())) < 15
