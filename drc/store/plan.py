"""plan.yaml: how many channels every group keeps, and the budget that this meets."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from drc.core.errors import RunError
from drc.core.files import write_yaml

if TYPE_CHECKING:
    from torch import nn

SCHEMA_VERSION = 1

_ODD_YAML = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)
"""What PyYAML lets through where a value does not suit its tag, or nesting has no end."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class GroupWidth(_Strict):
    """One group's width: `keep` of its `of` atoms stay."""

    keep: int = Field(ge=1, lt=2**63)
    of: int = Field(ge=1, lt=2**63)

    @model_validator(mode="after")
    def _fits(self) -> GroupWidth:
        if self.keep > self.of:
            raise ValueError(f"keeps {self.keep} of {self.of} channels")
        return self


class FrozenChannels(_Strict):
    """Channels that stay whole, and why."""

    name: str
    channels: int = Field(ge=1)
    reason: str


class Budget(_Strict):
    """What the plan had to meet, in parameters, multiply-adds, or microseconds of one forward pass.

    Attributes:
        kind: what is counted.
        ratio: the fraction to remove, between 0 and 1.
        before: the count of the dense network.
        limit: the largest count allowed after.
        predicted: the count that this plan gives.
        lr_size: height and width of the LR image for which MACs are counted or time is measured;
            None for parameters.
    """

    kind: Literal["params", "macs", "latency"]
    ratio: float = Field(gt=0, lt=1)
    before: int = Field(ge=1, lt=2**63)
    limit: int = Field(ge=0, lt=2**63)
    predicted: int = Field(ge=0, lt=2**63)
    lr_size: tuple[int, int] | None = Field(default=None, strict=False)

    @property
    def unit(self) -> str:
        """What `shown` gives the counts in."""
        return {"params": "parameters", "macs": "MACs", "latency": "ms"}[self.kind]

    def shown(self, count: int) -> int | float:
        """A count for people to read: a time in milliseconds, others as they are."""
        return count / 1000 if self.kind == "latency" else count


class Plan(_Strict):
    """The result of a search.

    Attributes:
        schema_version: raised when a reader of the older files would misread the new ones.
        model: registered name, or the class of a network of the user's.
        scale: HR side over LR side.
        base_checksum: `fingerprint` of the network that was searched.
        strategy: the strategy's registered name.
        groups: group name -> width, in the order of the network.
        budget: what the plan meets.
        seed: the seed of the search.
        expected_loss: what the strategy expects the plan to add to the loss it went by, to compare
            plans of one search; None where it expects nothing.
        notes: what a reader should know, one sentence each.
        frozen: the channels that no plan can remove.
    """

    schema_version: int = Field(default=SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION)
    model: str
    scale: int = Field(ge=1)
    base_checksum: str
    strategy: str
    groups: dict[str, GroupWidth]
    budget: Budget
    seed: int
    expected_loss: float | None = None
    notes: list[str] = Field(default_factory=list)
    frozen: list[FrozenChannels] = Field(default_factory=list)

    @property
    def kept(self) -> float:
        """The share of the removable channels that stay, 0 to 1."""
        widths = self.groups.values()
        return sum(width.keep for width in widths) / sum(width.of for width in widths)

    def save(self, path: Path | str) -> None:
        """Write the plan as YAML, atomically. Raises RunError when the system refuses."""
        write_yaml(path, self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: Path | str) -> Plan:
        """Read a plan.

        Raises:
            RunError: the file is missing, is no plan, or was written by a newer drc.
        """
        content = read_yaml(path, "a plan; run `drc search` to write one")
        check_version(content.get("schema_version"), SCHEMA_VERSION, path)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            reason = first_problem(error)
            raise RunError(f"{path} is not a valid plan: {reason}; run `drc search`") from error


def read_yaml(path: Path | str, what: str) -> dict[str, Any]:
    """Read a YAML mapping with text keys.

    Args:
        path: the file.
        what: completes "... is not" in the message: what the file should be, and what to do.

    Raises:
        RunError: the file is missing, unreadable, or holds something else.
    """
    try:
        content = yaml.safe_load(Path(path).read_text("utf-8"))
    except FileNotFoundError:
        raise RunError(f"there is no file {path}; it should be {what}") from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, *_ODD_YAML) as error:
        place = getattr(error, "problem_mark", None)
        where = f"; line {place.line + 1} is not YAML" if place else ""
        raise RunError(f"{path} is corrupt{where}; it should be {what}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise RunError(f"{path} is corrupt or cut short; it should be {what}")
    return content


def check_version(version: object, known: int, path: Path | str) -> None:
    """Raise RunError unless `version`, read from `path`, is one this drc knows, 1 to `known`."""
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise RunError(
            f"{path} has no schema_version that drc knows, so it is damaged or not a file of "
            "drc's; make it anew, or put back a whole one"
        )
    if version > known:
        raise RunError(
            f"{path} has schema version {version} and this drc reads up to {known}; update drc"
        )


def first_problem(error: ValidationError) -> str:
    """The first problem pydantic found, as `place: what is wrong`."""
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    message = "unknown key" if problem["type"] == "extra_forbidden" else message.lower()
    return f"{place}: {message}" if place else message


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of a network's state, in hexadecimal.

    Equal for equal weights on any device; any changed bit changes it.
    """
    import torch  # reading a plan does not need it, and it is slow to import

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            continue
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
