"""Batches, as Machine Learning Server answered them and as its Python client reads them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from sessionpools.web.models.base import Answer

__all__ = ["BatchStarted", "BatchState"]


class BatchStarted(BaseModel):
    """The id, by both names: the swagger has the one, Machine Learning Server's Python client reads the other."""

    id: str = Field(serialization_alias="batchExecutionId")
    id_again: str = Field(serialization_alias="BatchExecutionId")


class BatchState(Answer):
    """How far a batch is."""

    state: Literal["pending", "inProgress", "complete"]
    completed_item_count: int
    total_item_count: int
    batch_execution_results: list[dict[str, Any]]
    """Answers of calls (docs/reference/calls.md) in the order of the items, each with its `index`. All when the batch
    is complete; before that those there are, if asked for."""
