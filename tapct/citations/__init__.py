"""How to cite what stands behind a result: the task's data, the encoder, eva and this benchmark."""

from tapct.citations.cited import BENCHMARK, EVA, Cited, of_encoder, of_record, of_task
from tapct.citations.works import works

__all__ = ["BENCHMARK", "EVA", "Cited", "of_encoder", "of_record", "of_task", "works"]
