"""What a page is made from, with the texts from elsewhere marked: see :mod:`ceilings.foreign`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from ceilings import foreign
from ceilings.report.tables.evidence import Evidence
from ceilings.report.tables.frames import Tables

Plan = Mapping[str, Any]


def marked(plan: Plan, tables: Tables, evidence: Evidence | None = None) -> tuple[Plan, Tables, Evidence]:
    """The same plan, tables and evidence. What the plan says of cells stands in the tables too, but for their paths."""
    evidence = evidence or Evidence()
    records = {
        one.name: {key: foreign.marked(record) for key, record in getattr(evidence, one.name).items()}
        for one in fields(evidence)
    }
    shown = foreign.marked({key: value for key, value in plan.items() if key != "cells"})
    return {**shown, "cells": plan["cells"]}, tables.with_texts(foreign.marked), replace(evidence, **records)
