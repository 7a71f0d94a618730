"""Counter-based noise: known answers, distribution, and what it depends on."""

import pytest
import torch

from maskpre.ops.noise import GivenNoise, KeyedNoise, philox, stream_key

FULL = 0xFFFFFFFF
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((FULL,) * 4, (FULL, FULL), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def noise(index, *, seed=0, epoch=0):
    index = torch.as_tensor(index)
    return KeyedNoise(seed, epoch=torch.full_like(index, epoch), index=index)


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers_of_random123(counter, key, words):
    assert tuple(philox(torch.tensor(counter), key).tolist()) == words


def test_philox_works_on_a_batch_of_counters():
    counters = torch.tensor([KNOWN_ANSWERS[0][0], KNOWN_ANSWERS[1][0]])
    alone = torch.stack([philox(counter, (1, 2)) for counter in counters])
    assert torch.equal(philox(counters, (1, 2)), alone)


def test_numbers_are_uniform():
    values = noise(range(500)).uniform("mask", 2000)
    assert values.dtype == torch.float32
    assert 0.0 <= values.min() < 1e-5
    assert 0.99999 < values.max() < 1.0
    counts = torch.histc(values, bins=100, min=0, max=1).double()
    # Chi-square with 99 degrees of freedom: 148 is passed by 99.9% of perfect generators.
    assert ((counts - 1e4) ** 2 / 1e4).sum() < 148


def test_neighbouring_numbers_samples_epochs_seeds_and_streams_are_uncorrelated():
    base = noise(range(200)).uniform("mask", 400)
    others = {
        "number": base.roll(1, dims=1),
        "sample": base.roll(1, dims=0),
        "epoch": noise(range(200), epoch=1).uniform("mask", 400),
        "seed": noise(range(200), seed=1).uniform("mask", 400),
        "stream": noise(range(200)).uniform("mask2", 400),
    }
    for name, other in others.items():
        correlation = torch.corrcoef(torch.stack([base.flatten(), other.flatten()]))[0, 1]
        assert correlation.abs() < 4 / 80_000**0.5, name


def test_a_sample_is_independent_of_its_batch():
    together = noise([5, 3, 2**33 + 3, 8]).uniform("mask", 10)
    for row, index in enumerate([5, 3, 2**33 + 3, 8]):
        assert torch.equal(noise([index]).uniform("mask", 10)[0], together[row])
    assert not torch.equal(together[1], together[2])


def test_asking_for_more_numbers_keeps_the_first():
    assert torch.equal(noise([1, 2]).uniform("mask", 10), noise([1, 2]).uniform("mask", 23)[:, :10])


def test_stream_keys_tell_seed_and_stream_apart():
    keys = {stream_key(seed, stream) for seed in range(20) for stream in ("mask", "mask2", "1/mask")}
    assert len(keys) == 60


def test_given_noise_replays_by_name():
    values = torch.rand(2, 3)
    assert GivenNoise({"mask": values}).uniform("mask", 3) is values


def test_given_noise_refuses_a_missing_stream_and_another_length():
    given = GivenNoise({"mask": torch.rand(2, 3)})
    with pytest.raises(ValueError, match=r"no noise was given for stream 'crop'; given: \['mask'\]"):
        given.uniform("crop", 3)
    with pytest.raises(ValueError, match="noise 'mask' has 3 numbers per sample, 4 are needed"):
        given.uniform("mask", 4)
