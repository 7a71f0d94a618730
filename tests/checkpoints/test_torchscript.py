"""CLIP's archives give their weights; nothing in them is executed."""

import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from maskpre.checkpoints.read import read_torch
from maskpre.checkpoints.sources import open_source
from maskpre.errors import UserError
from maskpre.teachers.frozen import FrozenTeacher

SIZE, PATCH, WIDTH, DEPTH, OUT = 16, 8, 8, 2, 6


class Block(nn.Module):
    """A block of CLIP's, by its names."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, 2)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(WIDTH, 4 * WIDTH))
        self.mlp.add_module("c_proj", nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Something that uses all weights."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        hidden = self.mlp.c_fc(self.ln_2(x))
        return x + self.mlp.c_proj(hidden * torch.sigmoid(1.702 * hidden))


class Transformer(nn.Module):
    """The blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*[Block() for _ in range(DEPTH)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """All blocks, tokens first as in CLIP."""
        return self.resblocks(x.transpose(0, 1)).transpose(0, 1)


class Tower(nn.Module):
    """CLIP's image tower without pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(WIDTH))
        self.positional_embedding = nn.Parameter(torch.randn((SIZE // PATCH) ** 2 + 1, WIDTH))
        self.ln_pre, self.ln_post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.transformer = Transformer()
        self.proj = nn.Parameter(torch.randn(WIDTH, OUT))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Projected tokens."""
        tokens = self.conv1(x).flatten(2).mT
        tokens = torch.cat([self.class_embedding.expand(len(x), 1, -1), tokens], dim=1)
        tokens = self.transformer(self.ln_pre(tokens + self.positional_embedding))
        return self.ln_post(tokens) @ self.proj


class Clip(nn.Module):
    """The tower where CLIP has it, and what else its archives hold."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = Tower()
        self.logit_scale = nn.Parameter(torch.tensor(4.6))
        self.register_buffer("steps", torch.arange(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of the tower."""
        return self.visual(x) * self.logit_scale * self.steps.sum()


@pytest.fixture(scope="module")
def clip() -> Clip:
    torch.manual_seed(0)
    made = Clip().eval()
    for weight in made.parameters():
        nn.init.normal_(weight, std=0.3)
    return made


@pytest.fixture(scope="module")
def archive(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("clip") / "ViT.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(clip, torch.randn(1, 3, SIZE, SIZE), check_trace=False).save(str(path))
    return str(path)


def test_all_weights_are_read_by_their_names(clip: Clip, archive: str) -> None:
    expected, read = clip.state_dict(), read_torch(archive)
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[name], expected[name]) for name in expected)
    assert not any(value.requires_grad for value in read.values())
    assert open_source(archive).kind.startswith("official, ")


def test_an_archive_is_a_teacher(clip: Clip, archive: str) -> None:
    teacher = FrozenTeacher(
        name="vit_base_patch16_clip_quickgelu_224",
        weights=archive,
        view_size=SIZE,
        view_mean=[0.0] * 3,
        view_std=[1.0] * 3,
        mean=[0.0] * 3,
        std=[1.0] * 3,
        patch_size=PATCH,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=2,
        norm_eps=1e-5,
        projection_dim=OUT,
    )
    x = torch.randn(2, 3, SIZE, SIZE)
    torch.testing.assert_close(teacher(x).with_class(), clip.visual(x), rtol=1e-4, atol=1e-5)


class Trap:
    """Runs code when it is unpickled by an ordinary unpickler."""

    def __reduce__(self) -> tuple:
        return print, ("executed",)


@pytest.mark.parametrize("content", [Trap(), {"visual": Trap()}])
def test_no_code_is_run(content: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(tmp_path / "trap.pt", "w") as file:
        file.writestr("trap/constants.pkl", pickle.dumps(()))
        file.writestr("trap/data.pkl", pickle.dumps(content))
    with pytest.raises(UserError, match=r"can't be read as a checkpoint: trap holds a .*, no module"):
        read_torch(tmp_path / "trap.pt")
    assert capsys.readouterr().out == ""


def test_a_damaged_archive_is_named(archive: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(tmp_path / "part.pt", "w") as part:
        for name in whole.namelist():
            if not name.endswith("data/3"):
                part.writestr(name, whole.read(name))
    with pytest.raises(UserError, match=r"part\.pt can't be read as a checkpoint"):
        read_torch(tmp_path / "part.pt")
