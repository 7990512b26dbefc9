"""Networks of the user's code: package.module:factory and path/to/file.py:factory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import drc
from drc.core.errors import ModelError, UsageError, WeightsError
from drc.networks.traits import get_traits
from drc.opening import open_network, open_saved

CODE = '''
import torch
from torch import nn
from torch.nn import functional as F

print("imported")
limit = 3

class Net(nn.Module):
    """Two layers before PixelShuffle."""
    def __init__(self, scale=2, channels=3):
        super().__init__()
        self.head = nn.Conv2d(channels, 16, 3, padding=1)
        self.tail = nn.Conv2d(16, channels * scale**2, 3, padding=1)
        self.up = nn.PixelShuffle(scale)

    def forward(self, x):
        return self.up(self.tail(F.relu(self.head(x))))

def grey(): return Net(channels=1)
def needs(width, *, depth): return Net()
def fails(): raise ValueError("no file\\nw.pth")
def leaves(): raise SystemExit(3)
def number(): return 3
def lazy():
    net = Net()
    net.head = nn.LazyConv2d(16, 3, padding=1)
    return net

built = Net()
'''


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the code above, as the current one."""
    (tmp_path / "own_code.py").write_text(CODE)
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").touch()
    (tmp_path / "own_package" / "nets.py").write_text("from own_code import Net\n")
    (tmp_path / "broken.py").write_text("import a_module_that_is_nowhere\n")
    (tmp_path / "unparsable.py").write_text("def f(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("own_code", "own_package", "own_package.nets", "net_file"):
        sys.modules.pop(name, None)


def test_a_class_or_function_gives_the_network(code: Path, capsys) -> None:
    for spec, channels in (("own_code:Net", 3), ("own_code:grey", 1), ("own_package.nets:Net", 3)):
        model = open_network(spec)
        traits = get_traits(model)
        assert (traits.scale, traits.channels, traits.preset) == (2, channels, None)
        assert not model.training
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err == "imported\n"


def test_a_file_is_imported_from_anywhere_with_its_neighbours(code: Path, monkeypatch) -> None:
    (code / "net_file.py").write_text("from own_code import Net\n\ndef make(): return Net(3)\n")
    monkeypatch.chdir("/")
    first, second = (open_network(f"{code}/net_file.py:make") for _ in range(2))
    assert get_traits(first).scale == 3
    assert type(first) is type(second)  # one import, one class


def test_weights_are_loaded_strictly(code: Path) -> None:
    trained = open_network("own_code:Net")
    torch.save({"state_dict": trained.state_dict()}, "w.pth")
    model = open_network("own_code:Net", "w.pth")
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), trained.parameters(), strict=True)
    )
    torch.save({**trained.state_dict(), "more": torch.ones(1)}, "w.pth")
    with pytest.raises(WeightsError, match="does not fit Net x2: unexpected more"):
        open_network("own_code:Net", "w.pth")
    with pytest.raises(WeightsError, match=r"there is no weights file nowhere\.pth"):
        open_network("own_code:Net", "nowhere.pth")


@pytest.mark.parametrize("weights", [None, "default", "none"])
def test_without_a_file_the_factorys_weights_stay(code: Path, weights) -> None:
    open_network("own_code:Net")  # its import draws numbers too
    torch.manual_seed(5)
    expected = open_network("own_code:Net").state_dict()
    torch.manual_seed(5)
    found = open_network("own_code:Net", weights).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_scale_must_agree(code: Path) -> None:
    assert get_traits(open_network("own_code:Net", scale=2)).scale == 2
    with pytest.raises(UsageError, match=r"--scale 4 is not that of the network: .* x2"):
        open_network("own_code:Net", scale=4)


def test_a_compressed_network_opens_by_its_factory_alone(code: Path) -> None:
    model = open_network("own_code:Net")
    loader = [(torch.rand(4, 3, 16, 16), torch.rand(4, 3, 32, 32))]
    result = drc.compress(
        model, loader, search=drc.SearchSettings(patches=2, dual_steps=1),
        recovery=drc.RecoverySettings(steps=1), test=None,
    )  # fmt: skip
    result.save("small.safetensors")
    image = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        expected = result.model(image)
        assert torch.equal(open_saved("own_code:Net", "small.safetensors")(image), expected)
        again = open_network("own_code:Net", "small.safetensors")
        assert torch.equal(again(image), expected)
    for opened in (
        lambda: open_saved(None, "small.safetensors"),
        lambda: drc.load("small.safetensors"),
    ):
        with pytest.raises(
            WeightsError, match=r"holds own_code\.Net, which drc cannot build.*apply"
        ):
            opened()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (":Net", "':Net' names no factory; write package.module:factory or"),
        ("own_code:", "'own_code:' names no factory"),
        ("own_codes:Net", "there is no module own_codes here; run drc in the folder that holds it"),
        ("own_package.net:Net", r"there is no module own_package\.net here"),
        ("missing.py:Net", r"there is no file .*missing\.py"),
        ("broken:Net", "importing broken failed: ModuleNotFoundError: .*a_module_that_is_nowhere"),
        ("broken.py:Net", r"importing .*broken\.py failed: .*broken\.py, line 1"),
        ("unparsable:Net", r"importing unparsable failed: SyntaxError: .*unparsable\.py, line 1"),
        ("own_code:Nett", "there is no Nett in own_code; did you mean Net"),
        ("own_code:zzz", "there is no zzz in own_code; it has Net, grey, needs, fails"),
        ("own_code:limit", "own_code:limit is a int; it must be a class, or a function"),
        ("own_code:built", "own_code:built is a Net; it must be a class, or a function"),
        ("own_code:needs", "own_code:needs needs width, depth, and drc calls it without"),
        ("own_code:fails", r"calling own_code:fails failed: ValueError: no file \(.*, line \d+\)"),
        ("own_code:leaves", "calling own_code:leaves failed: SystemExit: 3"),
        ("own_code:number", r"own_code:number returned a int; it must return a torch\.nn\.Module"),
        ("own_code.Net", r"no network is called 'own_code\.Net'.*code of your own is --model"),
    ],
)
def test_what_can_go_wrong_is_one_line(code: Path, spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        open_network(spec)
    assert "\n" not in str(error.value) and error.value.exit_code == 2


def test_a_network_that_drc_cannot_work_on(code: Path) -> None:
    with pytest.raises(ModelError, match=r"head\.weight is lazy"):
        open_network("own_code:lazy")


# Networks recognised by their weights ---------------------------------------------------------


def test_weights_of_a_registered_network_name_it(tmp_path: Path) -> None:
    model = drc.create_model("drn_tiny")
    torch.save({"params": model.state_dict()}, tmp_path / "w.pth")
    found = open_network(None, str(tmp_path / "w.pth"))
    assert get_traits(found).preset == "drn_tiny"
    assert all(
        torch.equal(a, b) for a, b in zip(found.parameters(), model.parameters(), strict=True)
    )


def test_a_file_of_drcs_is_loaded(tmp_path: Path) -> None:
    model = drc.create_model("drn_tiny", widths=[4] * 20)
    drc.save(model, tmp_path / "w.safetensors")
    found = open_network(None, str(tmp_path / "w.safetensors"))
    assert get_traits(found) == get_traits(model)


@pytest.mark.parametrize("weights", [None, "none", "default"])
def test_neither_model_nor_weights(weights) -> None:
    with pytest.raises(UsageError, match="which network"):
        open_network(None, weights)


def test_a_registered_name_opens_as_ever() -> None:
    assert get_traits(open_network("drn_tiny")).scale == 4
    assert get_traits(open_network("drn_s", "none", 8)).scale == 8
    with pytest.raises(UsageError, match="has no scale x3"):
        open_network("drn_s", "none", 3)
    assert isinstance(open_network("drn_tiny", "none"), nn.Module)
