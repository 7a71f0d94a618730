import pytest
from torch import nn

from maskpre.ops.tiles.windows import Window, windows_of


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [(3, 1, 1, 1), (3, 2, 1, 1), (7, 2, 3, 1), (3, 1, 2, 2), (4, 2, 1, 1), (5, 4, 1, 1), (2, 2, 0, 1)],
)
@pytest.mark.parametrize("size", [4, 8])
def test_windows_name_exactly_what_is_read_and_by_whom(kernel, stride, padding, dilation, size):
    window = Window(kernel, stride, padding, dilation)
    read = {
        output: {output * stride - padding + tap * dilation for tap in range(kernel)}
        for output in range(-20, 20)
    }
    inside = set().union(*(read[output] for output in range(size // stride)))
    readers = [output for output, inputs in read.items() if inputs & set(range(size))]
    assert window.keeps_tiles
    assert (window.inputs(size).start, window.inputs(size)[-1]) == (min(inside), max(inside))
    assert (window.outputs(size).start, window.outputs(size)[-1]) == (min(readers), max(readers))


@pytest.mark.parametrize("window", [Window(3, 1, 0), Window(3, 2, 2), Window(1, 1, 1)])
def test_windows_that_shift_outputs_against_inputs_keep_no_tiles(window):
    assert not window.keeps_tiles


def test_layers_say_their_windows_down_and_across():
    conv = nn.Conv2d(1, 1, (3, 5), (1, 2), (1, 2), 2)
    assert windows_of(conv) == (Window(3, 1, 1, 2), Window(5, 2, 2, 2))
    assert windows_of(nn.Conv2d(1, 1, 3, padding="same", dilation=2))[0] == Window(3, 1, 2, 2)
    assert windows_of(nn.Conv2d(1, 1, 3, padding="valid"))[0] == Window(3, 1, 0)
    assert windows_of(nn.AvgPool2d(3, 2, 1))[1] == Window(3, 2, 1)
