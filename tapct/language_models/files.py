"""The files of a language model: a local folder, or a repository of the Hugging Face hub, as safetensors."""

import contextlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tapct._utils.content_hashes import ContentHashes
from tapct._utils.files import cache_folder, write_atomically
from tapct.encoders import network
from tapct.encoders.card import Weights
from tapct.encoders.download import HUB, TERMS, asked_hub, offline
from tapct.errors import WeightsError

CONFIG, WEIGHTS, SHARDS = "config.json", "model.safetensors", "model.safetensors.index.json"

TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("tokenizer.model", "vocab.json", "merges.txt"),
)
"""Files that a tokenizer may consist of; each model has some of them."""

_ON_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")
_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class ModelFiles:
    """A language model on this machine.

    Attributes:
        name: The repository, or the name of the folder.
        revision: The commit of the repository; None of a folder.
        folder: Where the files are.
        sha256: Hash of its config, tokenizer and weights, with their names: what tells two models apart.
    """

    name: str
    revision: str | None
    folder: Path
    sha256: str


def find(name: str, revision: str | None = None) -> ModelFiles:
    """Returns a language model, fetched once if it is one of the hub.

    Args:
        name: A folder, or a repository of the hub.
        revision: Branch, tag or commit of the repository; None for its main branch.

    Raises:
        WeightsError: If it is not there, cannot be had, or has no safetensors.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise WeightsError(f"the language model {name} is a folder, which has no revisions: leave {revision} out")
        return _in_folder(folder.resolve().name, None, folder)
    if folder.is_absolute() or name.startswith((".", "~")) or not _ON_HUB.fullmatch(name):
        raise WeightsError(f"there is no folder {name} to load a language model from, and no repository has that name")
    return _of_hub(name, revision)


def _in_folder(name: str, revision: str | None, folder: Path) -> ModelFiles:
    if (folder / "adapter_config.json").is_file() and not (folder / CONFIG).is_file():
        raise WeightsError(f"{folder} holds an adapter of peft, not a language model: name the model that it is of")
    needed = [folder / CONFIG, *(folder / file for file in _weights(folder))]
    if missing := [path.name for path in needed if not path.is_file()]:
        raise WeightsError(f"{folder} lacks {', '.join(missing)}: {_hint(folder)}")
    tokenizer = [folder / file for file in TOKENIZER if (folder / file).is_file()]
    if not tokenizer:
        raise WeightsError(f"{folder} has no tokenizer: save it there (tokenizer.save_pretrained)")
    try:
        sha256 = ContentHashes().of_files([*needed, *tokenizer], root=folder)
    except OSError as error:
        raise WeightsError(f"the language model in {folder} cannot be read: {error}") from error
    return ModelFiles(name, revision, folder, sha256)


def _hint(folder: Path) -> str:
    if any(folder.glob("pytorch_model*.bin")):
        return "its weights are pickled. Convert them (model.save_pretrained writes safetensors)"
    return "save the model there (model.save_pretrained), or name another folder"


def _weights(folder: Path) -> list[str]:
    """Returns the files of weights that a folder must have: one, or the index and the shards that it names."""
    if (folder / WEIGHTS).is_file() or not (folder / SHARDS).is_file():
        return [WEIGHTS]
    try:
        shards = json.loads((folder / SHARDS).read_text(encoding="utf-8"))["weight_map"].values()
        return [SHARDS, *sorted({str(shard) for shard in shards})]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise WeightsError(f"{folder / SHARDS} cannot be read: {type(error).__name__}: {error}") from error


def tokenizer_folder(name: str) -> Path:
    """Returns the folder with the config and the tokenizer of a language model, whose weights are not needed.

    What was fetched of a repository before is taken as it is, and the hub is not asked.

    Args:
        name: A folder, or a repository of the hub.

    Raises:
        WeightsError: If it is not there, or cannot be had.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or name.startswith((".", "~")) or not _ON_HUB.fullmatch(name):
        raise WeightsError(f"there is no folder {name} with a tokenizer, and no repository has that name")
    here = try_to_load_from_cache(name, CONFIG)
    if isinstance(here, str) and any((Path(here).parent / file).is_file() for file in TOKENIZER):
        return Path(here).parent
    config = _file(name, CONFIG, None)
    if not any([_is_there(name, file, None) for file in TOKENIZER]):  # noqa: C419  all of them are fetched
        raise WeightsError(f"{HUB}{name} has no tokenizer")
    return config.parent


# -- The hub -------------------------------------------------------------------------------------------


def _of_hub(name: str, revision: str | None) -> ModelFiles:
    """Returns a model of the hub. Its files are of one commit; which there are is asked once a commit, and kept."""
    config = _file(name, CONFIG, revision)
    folder = config.parent  # snapshots/COMMIT
    commit = folder.name if _COMMIT.fullmatch(folder.name) else revision
    kept = cache_folder() / "language_models" / name.replace("/", "--") / f"{commit}.json"
    if not (kept.is_file() and all((folder / file).is_file() for file in json.loads(kept.read_text("utf-8")))):
        found = [CONFIG, *(file for file in TOKENIZER if _is_there(name, file, commit))]
        if not _is_there(name, WEIGHTS, commit):
            _is_there(name, SHARDS, commit)
        weights = _weights(folder)
        if weights != [WEIGHTS]:
            for file in weights:
                _file(name, file, commit)
        model = _in_folder(name, commit, folder)  # before it is noted as whole
        with contextlib.suppress(OSError):
            write_atomically(kept, json.dumps([*found, *weights]))
        return model
    return _in_folder(name, commit, folder)


def _is_there(name: str, file: str, revision: str | None) -> bool:
    """Fetches a file of a repository, and returns whether the repository has it.

    Without a network by a variable of the user's, what is not here is taken for absent: they vouch for their cache.
    """
    try:
        _file(name, file, revision)
    except WeightsError as error:
        if isinstance(error.__cause__, EntryNotFoundError) or offline() is not None:
            return False
        raise
    return True


def _file(name: str, file: str, revision: str | None) -> Path:
    found = try_to_load_from_cache(name, file, revision=revision)
    here, page = Path(found) if isinstance(found, str) else None, f"{HUB}{name}"
    is_settled = revision is not None and _COMMIT.fullmatch(revision) is not None
    if here is not None and (is_settled or offline() is not None):
        return here
    if (variable := offline()) is not None:
        raise network.UnreachableError(
            f"you have set {variable}, so {page} is not asked for {file}, which was not fetched before. Unset "
            f"{variable} to fetch it, or name a folder that holds the language model"
        )
    try:
        return asked_hub(name, Weights(file=file, revision=revision), network.NAME_S, network.ANSWER_S)
    except (EntryNotFoundError, RevisionNotFoundError) as error:
        raise WeightsError(f"{page} has no {file}{f' at {revision}' if revision else ''}") from error
    except (WeightsError, RepositoryNotFoundError, FileMetadataError, OSError) as error:
        if here is not None:
            return here
        raise _explained(error, page) from error


def _explained(error: Exception, page: str) -> WeightsError:
    if isinstance(error, GatedRepoError):
        return WeightsError(f"{page} is gated: {TERMS}")
    if isinstance(error, RepositoryNotFoundError):
        return WeightsError(f"there is no {page} (or it is private), and no folder of that name")
    kind = network.UnreachableError if isinstance(error, network.UnreachableError) else WeightsError
    return kind(f"{page} cannot be had: {str(error).splitlines()[0]}. A folder that holds the model does as well")
