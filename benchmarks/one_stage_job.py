"""The user stage alone, for the price of a stage: Kafka -> micro-batches -> user stage -> nowhere."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pydantic_settings import CliApp
from pyflink.datastream import DataStream
from pyflink.java_gateway import get_gateway

from flink_jobs.scoring import TOPICS, Scoring
from flink_jobs.settings import ScoringSettings
from models.signing import Keyring


class OneStage(Scoring):
    """The scoring job cut off behind its user stage."""

    def _terminal_stage(self, users: DataStream, letter_bytes: int) -> DataStream:
        raise NotImplementedError

    def build(self) -> None:
        """Wire source, micro-batches, user stage and a sink that drops."""
        users = self._user_stage(self._micro_batches(), self._io.check(self._settings, TOPICS))
        sink = get_gateway().jvm.org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink()
        users._j_data_stream.sinkTo(sink)
        self._env.execute("one stage")


if __name__ == "__main__":
    OneStage(CliApp.run(ScoringSettings), Keyring({})).build()
