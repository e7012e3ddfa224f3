"""What a task's config says of a setting that a sweep varies by a variable."""

from dataclasses import dataclass
from pathlib import Path

from tapct import kinds
from tapct.sweep.experiment import Experiment, SweepError


@dataclass(frozen=True)
class TaskConfig:
    """A task's config, whatever the encoder.

    Attributes:
        task: Name of the task.
        config: Its config.
        overrides: Further configs, each over the ones before.
    """

    task: str
    config: Path
    overrides: tuple[Path, ...] = ()

    def settings(self, **variables: str) -> dict[str, str]:
        """Returns every key by its path, with these variables set and no others."""
        # The encoder is any: what is asked is what the config makes of the variables.
        own = {"task": self.task, "encoder": "", "label": "", "folder": Path()}
        return Experiment(**own, config=self.config, overrides=self.overrides, variables=variables).settings()  # type: ignore[arg-type]

    @property
    def heads(self) -> tuple[str, ...]:
        """Heads of adaptors that its probe takes; none where its head stands on the map, or it is none of a kind."""
        of = kinds.of_probe(self.settings().get("model.class_path", ""))
        return () if of is None else of.heads

    def require_variable(self, variable: str, setting: str, other: str, default: str) -> None:
        """Makes sure that a setting follows a variable.

        Args:
            variable: The variable.
            setting: Path of the setting.
            other: A value that the setting has not.
            default: What the setting is without the variable, for the error.

        Raises:
            SweepError: If it does not.
        """
        if self.settings(**{variable: other}).get(setting) == other:
            return
        name, files = setting.rsplit(".", 1)[-1], " over ".join(map(str, (*self.overrides[::-1], self.config)))
        raise SweepError(
            f"{files}: {setting} does not follow the variable {variable}, so no other {name} can be run on "
            f"{self.task}. Write: {name}: ${{oc.env:{variable}, {default}}}"
        )
