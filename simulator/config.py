"""What a simulation is asked for, checked before anything runs."""

from datetime import date
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from events.types import EARLIEST_MS, LATEST_MS

DAY_MS: Final = 86_400_000
LEGITIMATE: Final = "legitimate"
"""Value of `fraud_scenario` for a transaction that is no fraud."""

DEFAULT_MIX: Final[dict[str, float]] = {
    "amount_spike": 0.14,
    "compromised_terminal": 0.18,
    "account_takeover": 0.20,
    "card_testing": 0.16,
    "impossible_travel": 0.10,
    "transfer_then_cash_out": 0.12,
    "slow_mimicry": 0.10,
}
"""Share of the fraudulent transactions that each pattern makes up."""

SCENARIOS: Final = (LEGITIMATE, *DEFAULT_MIX)


class Drift(BaseModel):
    """From `day` on (0 is the first day) a pattern appears, disappears, or changes its manner."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pattern: str
    day: Annotated[int, Field(ge=0)]
    change: Literal["appears", "disappears", "changes"]

    @field_validator("pattern")
    @classmethod
    def _known(cls, pattern: str) -> str:
        if pattern not in DEFAULT_MIX:
            raise ValueError(f"unknown pattern {pattern!r}; known are {', '.join(DEFAULT_MIX)}")
        return pattern

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `pattern:day:change`, as on the command line. Raises ValueError."""
        try:
            pattern, day, change = text.split(":")
        except ValueError:
            raise ValueError(f"{text!r} is not pattern:day:change") from None
        return cls.model_validate({"pattern": pattern, "day": day, "change": change})


class SimulationConfig(BaseModel):
    """Size, rates and drift of a simulated world. Two equal configurations give equal traffic.

    Raises pydantic.ValidationError (a ValueError), naming each wrong field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    users: Annotated[int, Field(ge=10, le=50_000_000)] = 2_000
    terminals: Annotated[int, Field(ge=20, le=5_000_000)] = 1_000
    days: Annotated[int, Field(ge=1, le=3_650)] = 60
    start: date = date(2026, 1, 1)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    fraud_rate: Annotated[float, Field(ge=0, le=0.3)] = 0.005
    """Share of the transactions that are fraudulent."""
    transactions_per_user_day: Annotated[float, Field(gt=0, le=100)] = 2.0
    mix: dict[str, Annotated[float, Field(ge=0)]] = DEFAULT_MIX
    """Weight of each pattern, by number of transactions; a pattern not named has weight 0."""
    drift: tuple[Drift, ...] = ()
    label_delay_days: Annotated[float, Field(ge=0, le=365)] = 7.0
    """Mean time until a chargeback; a transaction without one counts as legitimate after it."""
    legitimate_labels: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the legitimate transactions that ever get a label. Fraud always gets one."""
    missing_rate: Annotated[float, Field(ge=0, le=1)] = 0.03
    """How often an optional field that would apply is missing all the same."""

    @property
    def start_ms(self) -> int:
        """Beginning of the first day, in ms since the epoch."""
        return (self.start.toordinal() - date(1970, 1, 1).toordinal()) * DAY_MS

    @property
    def end_ms(self) -> int:
        """End of the last day, in ms since the epoch."""
        return self.start_ms + self.days * DAY_MS

    @field_validator("mix")
    @classmethod
    def _known_patterns(cls, mix: dict[str, float]) -> dict[str, float]:
        unknown = sorted(mix.keys() - DEFAULT_MIX.keys())
        if unknown:
            raise ValueError(f"unknown pattern {unknown[0]!r}; known are {', '.join(DEFAULT_MIX)}")
        if sum(mix.values()) <= 0:
            raise ValueError("at least one pattern needs a weight above 0")
        return mix

    @model_validator(mode="after")
    def _within_the_contract(self) -> Self:
        # A label may come a year and more after the last transaction, and is an event time too.
        if self.start_ms < EARLIEST_MS or self.end_ms + 1_500 * DAY_MS > LATEST_MS:
            raise ValueError("start: the simulated days must lie between the years 2000 and 2095")
        return self

    def active_days(self, pattern: str) -> tuple[int, int]:
        """First day of a pattern and the day after its last, after its drift."""
        first, last = 0, self.days
        for drift in self.drift:
            if drift.pattern != pattern:
                continue
            if drift.change == "appears":
                first = drift.day
            if drift.change == "disappears":
                last = min(last, drift.day)
        return first, last

    def changed(self, pattern: str, day: int) -> bool:
        """Whether the pattern has changed its manner by `day`."""
        return any(d.pattern == pattern and d.change == "changes" and d.day <= day for d in self.drift)
