"""Thresholds: the direction, the range and the accepted margin of each score, read from a YAML file."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..yaml_files import load_yaml_as


class Metric(BaseModel):
    """The direction, the range and the margin of one score.

    Attributes:
        higher_is_better: None if neither direction is better, for example for a length.
        range: lowest and highest possible score.
        margin: how much worse than the baseline a gate accepts; None means that `--gate all` skips the
            score.
        failed: score of a line without an answer; by default the worst end of the range.
        sampled: whether only a sample of the lines was scored, for example by people. Lines that have no
            score in any run are then left out, and do not count as lines without a score.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    higher_is_better: bool | None = True
    range: tuple[float, float] | None = None
    margin: float | None = Field(None, ge=0)
    failed: float | None = None
    sampled: bool = False

    @model_validator(mode="after")
    def _complete(self) -> Metric:
        if self.range and self.range[0] >= self.range[1]:
            raise ValueError("range must be [lowest, highest]")
        if self.higher_is_better is False and self.failed is None and not self.range:
            raise ValueError(
                "lower is better: the score of a failed line is unknown; set `failed` or `range`"
            )
        if self.higher_is_better is None and self.margin is not None:
            raise ValueError("neither direction is better, so it cannot have a margin")
        return self

    @property
    def worst(self) -> float | None:
        """The score of a failed line; None if failed lines are excluded from the mean."""
        if self.failed is not None or self.higher_is_better is None:
            return self.failed
        if self.range:
            return self.range[0] if self.higher_is_better else self.range[1]
        return 0.0


class Thresholds(BaseModel):
    """The content of a thresholds file.

    Attributes:
        max_unparsed: largest share of lines without a score at which a gate still decides, 0 to 1.
        max_failed: largest share of failed lines of a run at which a gate still decides, 0 to 1.
        metrics: score -> its direction, range and margin.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    max_unparsed: float = Field(0.05, ge=0, le=1)
    max_failed: float = Field(0.05, ge=0, le=1)
    metrics: dict[str, Metric] = Field(default_factory=dict)

    def metric(self, name: str) -> Metric:
        """Return the entry of a score; by default, higher is better and a failed line scores 0."""
        return self.metrics.get(name) or Metric()


def load_thresholds(file: Path | None) -> Thresholds:
    """Return the thresholds of a file; without a file, the defaults.

    Raises:
        OpsError: the file is missing or invalid; the error names the field.
    """
    if file is None:
        return Thresholds()
    return load_yaml_as(Thresholds, file, "Check --thresholds.")
