"""``measurements.json`` as the report reads it, schema 1."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from sparrow.evidence.record import Count, Many, Real, Some


class Measured(BaseModel):
    """Base of what was measured: rows may say more than a reader asks for."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class LatencyRecord(Measured):
    """Time of a call."""

    entry: str
    threads: Count
    runs: Count
    cpu: str
    median_ns: Real
    low_ns: Real
    high_ns: Real


class StepTimeRecord(Measured):
    """Time of a step."""

    ns: Real
    share: Real
    gflops: Real


class ProfileRecord(Measured):
    """Times of all steps of an entry point."""

    entry: str
    steps: Many[StepTimeRecord]


class ComparisonRecord(Measured):
    """An A/B run against another engine."""

    entry: str
    against: str
    version: str
    threads: Count
    ours_ns: Real
    theirs_ns: Real
    verdict: str


class PointRecord(Measured):
    """A moment of a long run."""

    seconds: Real
    median_ns: Real
    mhz: Count
    celsius: Real | None


class SustainedRecord(Measured):
    """Time of a call while calls follow each other for minutes."""

    entry: str
    device: str
    cpu: str
    first_ns: Real
    last_ns: Real
    points: Some[PointRecord]
    remarks: Many[str] = ()


class MeasurementsRecord(Measured):
    """``measurements.json``, as the report reads it."""

    schema_version: Literal[1]
    latencies: Many[LatencyRecord] = ()
    profiles: Many[ProfileRecord] = ()
    comparisons: Many[ComparisonRecord] = ()
    sustained: Many[SustainedRecord] = ()
