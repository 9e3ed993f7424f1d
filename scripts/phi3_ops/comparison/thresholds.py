"""What is known of each score: which way is better, its range, and what a gate asks. From a YAML file."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import OpsError


class Metric(BaseModel):
    """One score.

    Attributes:
        higher_is_better: None for a number that is neither better nor worse, such as a length.
        range: lowest and highest score.
        margin: how much worse than the baseline is still accepted; None asks for nothing.
        failed: what a line without an answer scores; the worst end of the range when left out.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    higher_is_better: bool | None = True
    range: tuple[float, float] | None = None
    margin: float | None = Field(None, ge=0)
    failed: float | None = None

    @model_validator(mode="after")
    def _complete(self) -> Metric:
        if self.range and self.range[0] >= self.range[1]:
            raise ValueError("range must be [lowest, highest]")
        if self.higher_is_better is False and self.failed is None and not self.range:
            raise ValueError("lower is better: say what a failed line scores (`failed` or `range`)")
        if self.higher_is_better is None and self.margin is not None:
            raise ValueError("neither better nor worse: it cannot have a margin")
        return self

    @property
    def worst(self) -> float | None:
        """The score of a line that failed; None where such a line has no place in the mean."""
        if self.failed is not None or self.higher_is_better is None:
            return self.failed
        if self.range:
            return self.range[0] if self.higher_is_better else self.range[1]
        return 0.0


class Thresholds(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    max_unparsed: float = Field(0.05, ge=0, le=1)
    metrics: dict[str, Metric] = Field(default_factory=dict)

    def metric(self, name: str) -> Metric:
        """What is known of a score; one that the file does not name is taken as better when higher."""
        return self.metrics.get(name) or Metric()


def load_thresholds(file: Path | None) -> Thresholds:
    """The thresholds of a file, or what holds without one.

    Raises:
        OpsError: naming the file, the field and what is wrong with it.
    """
    if file is None:
        return Thresholds()
    try:
        return Thresholds.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    except FileNotFoundError as error:
        raise OpsError(f"there is no file {file}", "Check --thresholds.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        reason = first["msg"].removeprefix("Value error, ")
        raise OpsError(f"{file}: `{where}`: {reason[:1].lower()}{reason[1:]}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise OpsError(f"cannot read {file}: {problem}", "It must be a YAML file.") from error
