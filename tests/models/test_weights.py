"""Files of pretrained weights: what is read, what is refused, and that nothing in them is ever executed."""

import pickle
import time

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

from mmmil import params, variants
from mmmil.models import backbone, weights
from mmmil.models.ctranspath import CTransPath

NAMES = [variants.MOBILENET, "resnet50d", "ctranspath"]


class Payload:
    """Unpickled by an unguarded reader, it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture(scope="module")
def nets():
    return {name: CTransPath() if name == "ctranspath" else timm.create_model(name, pretrained=False) for name in NAMES}


def saved(net, path):
    """The net's tensors as a file, checkpoints under `model` as CTransPath's."""
    state = {name: value.contiguous() for name, value in net.state_dict().items()}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save({"model": state}, path)
    return path


def refusal(nets, name, folder):
    """What loading says; it has to name the file and the remedy, and to leave the net as it was."""
    before = nets[name].state_dict()["norm.weight" if name == "ctranspath" else "bn1.weight"].clone()
    with pytest.raises(weights.WeightsError) as caught:
        weights.load_weights(nets[name], name, weights.weights_file(name, str(folder)))
    assert torch.equal(nets[name].state_dict()["norm.weight" if name == "ctranspath" else "bn1.weight"], before)
    assert str(folder / name) in str(caught.value) and "<weights_dir>/" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", [variants.MOBILENET, "resnet50d"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_of_ones_own_gives_its_very_tensors(nets, tmp_path, name, suffix):
    saved(nets[name], tmp_path / f"{name}{suffix}")
    net = weights.pretrained(name, "imagenet", str(tmp_path))
    ours = net.state_dict()
    assert all(torch.equal(value, ours[key]) for key, value in nets[name].state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_a_truncated_file_is_refused_with_its_size(nets, tmp_path, name):
    for suffix in (".pth", ".safetensors"):  # the latter is read where both are there
        path = saved(nets[name], tmp_path / f"{name}{suffix}")
        whole = path.read_bytes()
        for size in (len(whole) * 9 // 10, 0):
            path.write_bytes(whole[:size])
            told = refusal(nets, name, tmp_path)
            assert path.name in told and f"{size:,} bytes, truncated" in told


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_another_architecture_are_refused(nets, tmp_path, name):
    other = NAMES[(NAMES.index(name) + 1) % 3]
    saved(nets[other], tmp_path / f"{name}.pth")
    assert f"is of another architecture than {name}" in refusal(nets, name, tmp_path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", ["alone", "beside tensors"])
def test_a_pickled_object_is_refused_and_nothing_is_executed(nets, tmp_path, name, where):
    mark, path = tmp_path / "executed", tmp_path / f"{name}.pth"
    state = dict(nets[name].state_dict())
    torch.save(Payload(mark) if where == "alone" else {"model": state, "optimizer": Payload(mark)}, path)
    told = refusal(nets, name, tmp_path)
    assert "holds a pickled object" in told and "open" in told
    path.write_bytes(pickle.dumps(Payload(mark)))  # no checkpoint of PyTorch at all
    refusal(nets, name, tmp_path)
    assert not mark.exists()
    pickle.loads(path.read_bytes()).close()  # the payload is a live one
    assert mark.exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_model_saved_in_place_of_its_weights_is_refused(nets, tmp_path, name):
    torch.save(nn.Linear(2, 2), tmp_path / f"{name}.pth")
    assert "holds a pickled object (torch.nn.modules.linear.Linear)" in refusal(nets, name, tmp_path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({}, "holds nothing"),
        ({"model": {}}, "holds nothing"),
        ({"epoch": 3, "loss": 0.5}, "holds no tensors by name (look at 'epoch')"),
        ([torch.zeros(2)], "holds no tensors by name (look at 'file')"),
    ],
)
def test_a_file_without_tensors_is_refused(nets, tmp_path, name, content, told):
    torch.save(content, tmp_path / f"{name}.pth")
    assert told in refusal(nets, name, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_an_error_that_says_where_to_put_it(tmp_path, name):
    with pytest.raises(weights.WeightsError, match=f"there is no {name}.safetensors and no {name}.pth") as caught:
        weights.pretrained(name, "imagenet", str(tmp_path))
    assert f"<weights_dir>/{name}." in str(caught.value) and str(tmp_path) in str(caught.value)
    assert weights.weights_file(name, str(tmp_path)) is None


def test_ctranspath_has_no_place_on_the_hub():
    with pytest.raises(weights.WeightsError, match=r"weights_dir \(not set\).*TransPath.*<weights_dir>/ctranspath.pth"):
        weights.pretrained("ctranspath", "imagenet")


@pytest.mark.parametrize("name", NAMES)
def test_random_is_its_own_choice_and_reads_no_file(tmp_path, name):
    (tmp_path / f"{name}.pth").write_bytes(b"never read")
    torch.manual_seed(0)
    one = weights.pretrained(name, "random", str(tmp_path)).state_dict()
    torch.manual_seed(1)
    two = weights.pretrained(name, "random", str(tmp_path)).state_dict()
    assert not all(torch.equal(one[key], two[key]) for key in one)
    assert weights.weights_key(name, "random", str(tmp_path)) == f"{name} random"


def test_the_key_of_a_result_follows_the_bytes_of_the_file(tmp_path):
    published = weights.weights_key("resnet50d", "imagenet", str(tmp_path))
    (tmp_path / "resnet50d.pth").write_bytes(b"one")
    first = weights.weights_key("resnet50d", "imagenet", str(tmp_path))
    (tmp_path / "resnet50d.pth").write_bytes(b"another")
    assert first != weights.weights_key("resnet50d", "imagenet", str(tmp_path)) != published
    (tmp_path / "resnet50d.safetensors").write_bytes(b"goes before")
    assert weights.weights_file("resnet50d", str(tmp_path)).suffix == ".safetensors"


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    return tmp_path / "hub"


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("name", NAMES[:2])
def test_without_network_and_cache_it_fails_within_seconds_and_says_what_to_do(empty_cache, monkeypatch, name, offline):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    start = time.monotonic()
    with pytest.raises(weights.WeightsError, match="not in timm's cache and not to be had") as caught:
        weights.pretrained(name)
    assert time.monotonic() - start < weights.HUB_TIMEOUT + 5
    told = str(caught.value)
    assert timm.get_pretrained_cfg(name).hf_hub_id in told and f"<weights_dir>/{name}.safetensors" in told
    assert ("HF_HUB_OFFLINE is set" in told) == offline


def test_published_weights_in_the_cache_need_no_network(nets, empty_cache):
    name = variants.MOBILENET
    folder = empty_cache / f"models--{timm.get_pretrained_cfg(name).hf_hub_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("a" * 40)
    (folder / "snapshots" / ("a" * 40)).mkdir(parents=True)
    path = saved(nets[name], folder / "snapshots" / ("a" * 40) / weights.FILE)
    assert weights.published_file(name) == path
    ours = backbone.TileEncoder("original").state_dict()
    whole = nets[name].state_dict()
    assert all(torch.equal(value, whole[key]) for key, value in ours.items())
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(weights.WeightsError, match="5,000 bytes, truncated"):
        weights.pretrained(name)


def test_the_first_difference_is_named_and_the_rest_counted():
    ours = {"a.weight": torch.zeros(2, 3), "b.num_batches_tracked": torch.tensor(0)}
    assert weights.first_difference({"a.weight": torch.ones(2, 3)}, ours) == ""
    assert weights.first_difference({"a.weight": torch.ones(3)}, ours) == "a.weight is (3,), not (2, 3)"
    told = weights.first_difference({"c": torch.ones(3)}, ours)
    assert told == "a.weight is missing, and 1 more differences"


def test_older_checkpoints_without_batch_counters_load(nets, tmp_path):
    name = variants.MOBILENET
    state = {key: value for key, value in nets[name].state_dict().items() if "num_batches_tracked" not in key}
    torch.save(state, tmp_path / f"{name}.pth")
    net = weights.pretrained(name, "imagenet", str(tmp_path))
    assert torch.equal(net.conv_stem.weight, nets[name].conv_stem.weight)


def test_weights_are_fetched_beforehand_and_what_is_not_to_be_had_is_told(tmp_path, monkeypatch):
    asked = []

    def file(name, weights_dir):
        asked.append(name)
        if name == "ctranspath":
            raise weights.WeightsError("no weights of ctranspath")
        return tmp_path

    monkeypatch.setattr(weights, "_file", file)
    found = weights.fetch(params.load("lgg", ""))
    assert found == {"ctranspath": "no weights of ctranspath", variants.MOBILENET: "", "resnet50d": ""}
    assert asked == list(found)
    assert weights.fetch(params.load("lgg", "demo")) == {}
    folder = params.load("real_lgg", "")
    assert variants.published(folder) == []
    own = params.load(
        "lgg", "demo", encoders={"uni": "hf-hub:a/b", "vit": "random:vit", "brought": f"features:{tmp_path}"}
    )
    assert variants.published(own) == ["hf-hub:a/b"]
