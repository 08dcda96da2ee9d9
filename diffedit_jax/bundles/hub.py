"""Models by hub id: which files to fetch, the local cache, and one clear line when offline."""

import re
from pathlib import Path, PurePosixPath

from diffedit_jax.checkpoints.folder import rank
from diffedit_jax.checkpoints.model_folder import NETWORKS
from diffedit_jax.checkpoints.parts import Parts
from diffedit_jax.errors import UserError

# Every published Stable Diffusion uses this vocabulary; SD 2 and SDXL pad differently.
CLIP_TOKENIZER = "openai/clip-vit-large-patch14"
SHARD = r"(?:\.[\w-]+)?-\d{5}-of-\d{5}(?:\.[\w-]+)?\.(?:safetensors|bin)"
SMALL = re.compile(
    r"model_index\.json|scheduler/scheduler_config\.json|(unet|vae|text_encoder(_2)?)/config\.json"
    r"|tokenizer(_2)?/(\w+\.json|merges\.txt)"
)


def fetch(repository: str, *, variant: str | None, local_files_only: bool) -> Path:
    """The folder of a hub model in the local cache, downloaded where needed and possible.

    Only configs, tokenizers and the best weight file of each component are fetched.

    Raises: UserError when the hub cannot be reached and the cache lacks the model.
    """
    hub = _hub()
    if not local_files_only:
        try:
            siblings = hub.HfApi().model_info(repository, timeout=10).siblings or []
            names = [file.rfilename for file in siblings]
            wanted = wanted_files(names, variant)
            return Path(hub.snapshot_download(repository, allow_patterns=wanted))
        except hub.errors.RepositoryNotFoundError:
            raise UserError(f"the hub has no model {repository!r} (or it wants a login)") from None
        except UserError:
            raise
        except Exception as error:  # every HTTP library has its own; then the cache decides
            return _cached(repository, _reason(error))
    return _cached(repository, "local_files_only was asked for")


def wanted_files(names: list[str], variant: str | None) -> list[str]:
    """Of a repository's file names, those to fetch.

    Raises: UserError when it is no diffusers model.
    """
    if "model_index.json" not in names:
        raise UserError("this hub repository is no diffusers model: it has no model_index.json")
    found = [name for name in names if SMALL.fullmatch(name)]
    for component in NETWORKS:
        inside = [PurePosixPath(n).name for n in names if str(PurePosixPath(n).parent) == component]
        best = rank(inside)
        chosen = best.get(variant) or best.get(None) or best.get("fp16")
        if chosen is not None:
            found += [f"{component}/{name}" for name in _with_shards(chosen, inside)]
    return found


def _with_shards(name: str, names: list[str]) -> list[str]:
    """A weight file, or an index with the shards of its stem and kind."""
    if not name.endswith(".json"):
        return [name]
    stem, kind = name.split(".")[0], ".bin" if ".bin." in name else ".safetensors"
    shards = [n for n in names if re.fullmatch(re.escape(stem) + SHARD, n) and n.endswith(kind)]
    return [name, *shards]


def _cached(repository: str, reason: str) -> Path:
    try:
        return Path(_hub().snapshot_download(repository, local_files_only=True))
    except Exception:
        raise UserError(
            f"cannot load {repository!r} from the hub ({reason}), and it is not in the local cache"
        ) from None


def fetch_tokenizer(parts: Parts, *, local_files_only: bool) -> list[Path]:
    """Folders of tokenizers for the text encoders of a single file, from the hub or its cache.

    An empty list, with a notice, where neither has it: weights can still be converted.
    """
    count = sum(name.startswith("text_encoder") for name in parts.weights)
    try:
        folder = Path(
            _hub().snapshot_download(
                CLIP_TOKENIZER,
                allow_patterns=["vocab.json", "merges.txt", "tokenizer_config.json"],
                local_files_only=local_files_only,
            )
        )
    except Exception as error:
        parts.notices.append(f"no tokenizer: {CLIP_TOKENIZER} cannot be had ({_reason(error)})")
        return []
    return [folder] * count


def _hub():
    import huggingface_hub

    return huggingface_hub


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:120]
