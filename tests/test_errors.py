"""What the system says of a disk is told without a stack trace; bugs keep theirs."""

import errno

import pytest

from maskpre.errors import UserError, full_disks_named


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_takes_nothing_more_is_named(number: int) -> None:
    with pytest.raises(UserError, match=r"runs/a\.png can't be written: no room"), full_disks_named():
        raise OSError(number, "no room", "runs/a.png")


def test_other_errors_of_the_system_stay_what_they_are() -> None:
    with pytest.raises(FileNotFoundError), full_disks_named():
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "x")
