"""What a field of the settings says of itself, and what is made from that."""

from __future__ import annotations

import pytest

from drc.cli.options import options_of, overrides, training_overrides
from drc.core.errors import UsageError
from drc.settings import (
    AdaptRun,
    AdaptSettings,
    RecoverySettings,
    RunSettings,
    SearchSettings,
    TrainRun,
    fields_of,
    identity,
    refused,
)

FREE = {
    "device", "output", "data.workers", "data.cache_gb", "recovery.checkpoint_every",
    "recovery.log_every", "recovery.log_with", "recovery.auto_batch",
}  # fmt: skip


@pytest.mark.parametrize("kind", [RunSettings, TrainRun, AdaptRun])
def test_every_setting_says_what_it_is(kind):
    for setting in fields_of(kind):
        assert setting.help and not setting.help.endswith("."), setting.place
        assert setting.flag.startswith("--"), setting.place


def test_another_default_keeps_the_rest():
    recovery, adapt = (
        {setting.place: setting for setting in fields_of(kind)}
        for kind in (RecoverySettings, AdaptSettings)
    )
    assert (recovery["steps"].default, adapt["steps"].default) == (300, 500)
    assert (recovery["steps"].help, recovery["steps"].flag) == (
        adapt["steps"].help, adapt["steps"].flag,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SearchSettings(ratio=2), "ratio is 2, but it should be less than 1"),
        (lambda: RecoverySettings(stepz=3), "there is no setting 'stepz'; did you mean steps?"),
        (lambda: RunSettings(search={"ratio": 2}), "search.ratio is 2, but it should be"),
    ],
)
def test_settings_built_in_python_refuse_in_one_line(build, message):
    with pytest.raises(UsageError) as caught:
        build()
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_identity_is_everything_that_decides_the_result():
    run = RunSettings(model="drn_s")
    places = {setting.place for setting in fields_of(RunSettings)}
    assert set(identity(run)) == places - FREE
    recovery = identity(RecoverySettings(milestones=(0.5,)))
    assert recovery["milestones"] == [0.5]  # as a file would hold it
    assert not {"checkpoint_every", "log_with"} & set(recovery)


@pytest.mark.parametrize(
    ("changes", "command", "resume", "expected"),
    [
        ({"seed": 1}, "drc prune", False, []),
        ({"seed": 1}, "drc compress", True, ["seed"]),
        ({"search": {"budget": "macs", "patches": 8}}, "drc finetune", False, ["search.budget"]),
        ({"search": {"ratio": 0.5}}, "drc prune", False, ["search.ratio"]),
        ({"device": "cpu", "data": {"workers": 2}}, "drc search", True, []),
        ({"recovery": {"checkpoint_every": 7, "lr": 1.0}}, "drc finetune", True, ["recovery.lr"]),
    ],
)
def test_what_a_run_may_not_change(changes, command, resume, expected):
    stored, given = RunSettings(model="drn_s"), RunSettings(model="drn_s", **changes)
    assert refused(stored, given, command, resume) == expected


def test_prune_may_take_another_of_the_plans_of_a_run():
    stored = RunSettings(model="drn_s", search={"ratio": [0.3, 0.5]})
    given = stored.model_copy(update={"search": stored.search.model_copy(update={"ratio": 0.5})})
    assert refused(stored, given, "drc prune") == []
    assert refused(stored, given, "drc finetune") == ["search.ratio"]


def test_one_option_may_set_several_steps_and_another_command_one_of_them():
    places = {
        command: {option.name: option.places for option in options_of(command)}
        for command in ("search", "finetune", "adapt")
    }
    assert places["search"]["patch"] == ("search.patch", "recovery.patch")
    assert places["finetune"]["recovery_patch"] == ("recovery.patch",)
    assert places["adapt"]["unpaired_batch"] == ("train.unpaired",)
    assert overrides({"patch": 16}) == {"search": {"patch": 16}, "recovery": {"patch": 16}}
    assert overrides({"recovery_patch": 16}) == {"recovery": {"patch": 16}}
    assert training_overrides({"unpaired": "x", "unpaired_batch": 4}) == {
        "data": {"unpaired": "x"}, "train": {"unpaired": 4},
    }  # fmt: skip


def test_options_win_over_set_and_what_was_not_given_is_left_out():
    given = {
        "set": ["search.patches=8", "search.ratio=0.5"],
        "patches": 4,
        "ratio": (),
        "seed": None,
    }
    assert overrides(given) == {"search": {"patches": 4, "ratio": 0.5}}
