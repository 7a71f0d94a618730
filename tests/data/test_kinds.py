import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from maskpre.config import CONFIG_DIR
from maskpre.data import DemoData, FolderData, ImageNetData, PretrainData, RemoteData, WebDatasetData
from maskpre.errors import UserError


def composed(kind: str, *overrides: str) -> PretrainData:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        settings = [f"+data={kind}", "+seed=0", "data.num_workers=0", "data.batch_size=8", *overrides]
        return instantiate(compose(overrides=settings).data)


def first_batch(data: PretrainData):
    return next(iter(data.train_loader(num_steps=1)))


def test_a_folder_needs_its_root_alone(pictures):
    data = composed("folder", f"data.root={pictures}")
    assert isinstance(data, FolderData)
    assert first_batch(data)["image"].shape == (8, 3, 224, 224)


def test_shards_need_their_pattern_alone(shards):
    data = composed("webdataset", f"data.shards='{shards}/train-{{000000..000003}}.tar'")
    assert isinstance(data, WebDatasetData)
    assert data.num_train == 40
    assert set(first_batch(data)["label"].tolist()) <= {0, 1, 2, 3}


def test_image_size_reaches_the_transforms(pictures):
    data = composed("folder", f"data.root={pictures}", "data.image_size=32")
    assert first_batch(data)["image"].shape == (8, 3, 32, 32)
    assert next(iter(data.eval_loader("train")))["image"].shape == (8, 3, 32, 32)


def test_imagenet_has_two_folders_with_the_same_classes(pictures, tmp_path):
    (tmp_path / "train").symlink_to(pictures)
    data = composed("imagenet", f"data.root={tmp_path}")
    assert isinstance(data, ImageNetData)
    assert data.num_classes == 3
    with pytest.raises(UserError, match=r"the folder '.*/val' does not exist"):
        data.source("val")
    (tmp_path / "val" / "b").mkdir(parents=True)
    (tmp_path / "val" / "b" / "1.jpg").write_bytes((pictures / "b" / "001.jpg").read_bytes())
    assert data.source("val").labels.tolist() == [1]


def test_imagenet_needs_class_folders(tmp_path, jpeg):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "1.jpg").write_bytes(jpeg(1))
    with pytest.raises(UserError, match=r"1 of 1 pictures lie in no such folder, e.g. '1.jpg'"):
        composed("imagenet", f"data.root={tmp_path}").source("train")


def test_streams_are_sent_to_the_remote_kind():
    data = composed("webdataset", "data.shards='pipe:cat {0..3}.tar'")
    with pytest.raises(UserError, match=r"'pipe:cat .*' is a remote stream, .*: use data=remote"):
        data.source("train")
    assert isinstance(composed("remote", "data.shards='pipe:cat {0..3}.tar'"), RemoteData)


def test_demo_data_are_made_at_the_first_use(shards, tmp_path, monkeypatch):
    asked = []

    def ensure_demo(cache_dir, **recipe):
        asked.append((cache_dir, recipe))
        (tmp_path / "test-000000.tar").write_bytes((shards / "train-000000.tar").read_bytes())
        (tmp_path / "train-000000.tar").write_bytes((shards / "train-000001.tar").read_bytes())
        return tmp_path

    monkeypatch.setattr("maskpre.data.kinds.ensure_demo", ensure_demo)
    data = composed("demo", f"data.cache_dir={tmp_path}", "data.num_train=30", "data.scene_seed=5")
    assert isinstance(data, DemoData)
    assert not asked
    assert data.source("val").key(0) == f"{tmp_path}/test-000000.tar:00000"
    assert data.source("train").key(0) == f"{tmp_path}/train-000000.tar:00010"
    assert asked[0] == (tmp_path, {"image_size": 64, "num_train": 30, "num_test": 4000, "seed": 5})
