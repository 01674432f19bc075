import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from mmmil.models import costs


def test_macs_of_a_small_convolution_are_those_counted_by_hand():
    conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    # 4 x 4 outputs of 8 channels, each of 3 x 3 x 3 products; the bias is an addition alone.
    assert costs.macs(conv, 1, 3, 8, 8) == 4 * 4 * 8 * 3 * 3 * 3 == 3456
    assert costs.macs(nn.Conv2d(6, 6, 3, padding=1, groups=6), 2, 6, 5, 5) == 2 * 5 * 5 * 6 * 9
    assert costs.macs(nn.Linear(7, 5), 3, 7) == 3 * 7 * 5
    assert costs.macs(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), 1, 3, 8, 8) == 0


class Attention(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


def test_attention_is_counted_as_its_two_matrix_products():
    assert costs.macs(Attention(), 2, 3, 10, 16) == 2 * 3 * (10 * 10 * 16) * 2


def test_counting_leaves_the_module_and_the_generator_as_they_were():
    conv = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    costs.macs(conv, 1, 3, 8, 8)
    assert conv.training and conv[1].num_batches_tracked == 0


def test_size_on_disk_is_that_of_the_saved_file(tmp_path):
    net = costs.encoder("reduced")
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    assert costs.disk_bytes(net) == (tmp_path / "net.safetensors").stat().st_size


@pytest.fixture(scope="module")
def table_2():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    found = costs.backbones()
    assert torch.equal(torch.get_rng_state(), before)
    return found


def test_table_2_is_counted_on_the_real_modules(table_2):
    assert table_2["parameters"].to_dict() == {
        **costs.RECEIPTS,
        "resnet50d": 23_527_264,
        "ctranspath": 27_520_038,
    }
    assert table_2["token"].to_dict() == {
        "original": 480,
        "uib": 480,
        "reduced": 96,
        "resnet50d": 2048,
        "ctranspath": 768,
    }
    assert table_2["px"].tolist() == [256] * 4 + [224]
    # Four bytes a parameter; beside them the buffers of batch norm and the names.
    assert (table_2["bytes"] > 4 * table_2["parameters"]).all()
    # 480 - 96 channels of a 1 x 1 convolution over 64 channels on a grid of 8 x 8 are what APoZ takes away.
    assert table_2.loc["uib", "macs"] - table_2.loc["reduced", "macs"] == 8 * 8 * 64 * (480 - 96)
    assert 0.6 < table_2.loc["reduced", "macs"] / table_2.loc["original", "macs"] < 0.7  # what the section page says
    # Published at 224 px: 4.4 GMACs of ResNet50d and 4.5 of Swin-T, which counts a head and another stem.
    assert costs.macs(costs.encoder("resnet50d"), 1, 3, 224, 224) == pytest.approx(4.4e9, rel=0.03)
    assert table_2.loc["ctranspath", "macs"] == pytest.approx(4.5e9, rel=0.03)


def test_receipts_say_whether_they_hold(table_2):
    assert costs.beside_paper(table_2)["equal"].all()
    other = table_2.copy()
    other.loc["uib", "parameters"] += 1
    assert costs.beside_paper(other)["equal"].tolist() == [True, False, True]
    shown = costs.table(table_2)
    assert shown.loc["MobileNetV4, UIBs removed + APoZ", "parameters"] == "68,880"
    assert shown.loc["MobileNetV4, UIBs removed + APoZ", "times the original"] == "0.20"
