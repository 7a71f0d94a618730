import pytest

from maskpre.data.progress import progress


def test_lines_when_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("Counting", total=200) as advance:
        for _ in range(50):
            advance(4)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("Counting: 20/200, ")
    assert lines[-1].startswith("Counting: 200/200, ")
    assert lines[-1].endswith("0 s left")
