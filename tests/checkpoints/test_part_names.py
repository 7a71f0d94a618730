import pytest

from maskpre.checkpoints.part_names import PartNames

NAMES = PartNames("Theirs", {"head": "predictors.main"})


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        ("head.weight", "predictors.main.weight"),
        ("head", "predictors.main"),
        ("headless.weight", "encoder.headless.weight"),
        ("blocks.0.head.weight", "encoder.blocks.0.head.weight"),
    ],
)
def test_the_first_part_decides_there_and_back(official: str, ours: str) -> None:
    assert NAMES.model_name(official) == ours
    assert NAMES.official_name(ours) == official
    assert NAMES.covers(official) == (not ours.startswith("encoder."))


@pytest.mark.parametrize("name", ["encoder.mask_token", "predictors.other.weight"])
def test_a_name_they_never_had_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' has no name in Theirs's official checkpoints"):
        NAMES.official_name(name)
