"""Pretrained backbones: where their files are, what identifies them, and loading them.

Everything works on a folder. A hub name is turned into the folder of its snapshot in the hub's
cache; the network is asked only where that snapshot is not complete. Only safetensors are read,
and code from the hub is never run.
"""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import nn

from ..errors import Messages, VanerError
from .attention import ENCODERS
from .settings import HFBackbone, SmallLlama
from .tokenizer import TOKENIZER_FILE, VOCABULARY_FILES
from .word_features import add_word_features, declared_features, word_embedding

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_TOKENIZER_FILES = (TOKENIZER_FILE, *VOCABULARY_FILES)
_SMALL_FILES = (_CONFIG, _INDEX, *_TOKENIZER_FILES, "merges.txt", "tokenizer_config.json")

# What decides the function that the weights compute. The rest of config.json changes whenever
# another version of transformers saves it.
_CONFIG_KEYS = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
    "hidden_act",
    "rms_norm_eps",
)
# The same for encoders; only those that a config has are hashed.
_ENCODER_CONFIG_KEYS = (
    "layer_norm_eps",
    "norm_eps",
    "type_vocab_size",
    "local_attention",
    "global_attn_every_n_layers",
)
_PEFT_CONFIG = "adapter_config.json"
# In a pipeline of spacy-transformers, and in the folder of its component.
_SPACY_TRANSFORMERS = ("transformer/model", "model")
# transformers 4 does not find the weights of Gemma 3 under the names of its language model.
_NAMES_IN_FILES: dict[str, dict[str, Any]] = {"gemma3_text": {"key_mapping": {r"^model\.": ""}}}
_SAMPLE_BYTES = 1024
_MAX_ERROR_LENGTH = 300


class DecoderConfig(Protocol):
    """What we read of transformers' config of a decoder or an encoder."""

    model_type: str
    hidden_size: int
    max_position_embeddings: int
    vocab_size: int

    def to_json_string(self, use_diff: bool = ...) -> str: ...


def find_backbone(settings: HFBackbone) -> Path:
    """Find the folder with a backbone's files: a local folder, the hub's cache, then the hub.

    A snapshot that is complete in the cache is taken as it is; pin `revision` to a commit where
    the hub's copy may change. HF_HUB_OFFLINE is respected.
    RAISES VanerError: VE120, it is nowhere; VE121, weights in another form than safetensors; VE156,
        an adapter's folder.
    """
    folder = Path(settings.name).expanduser()
    if folder.is_dir():
        weight_files(folder)
        return folder
    # The cached snapshot first, so that nothing touches the network when all is there.
    for local_files_only in (True, False):
        try:
            folder = _snapshot(settings, local_files_only=local_files_only)
            missing = _missing_files(folder)
        except VanerError:
            if not local_files_only:
                raise
        except (OSError, ValueError) as error:
            reason = hub_failure(error)
        else:
            if not missing:
                return folder
            reason = f"its cached copy lacks {', '.join(missing)}"
    raise VanerError(Messages.VE120.format(name=settings.name, error=reason))


def weight_files(folder: Path) -> list[Path]:
    """Name the safetensors shards of a folder, sorted; a shard may be missing.

    RAISES VanerError: VE121, there are none; VE122, an index that cannot be read; VE156, an adapter
        saved by PEFT; VE161, a pipeline of spacy-transformers.
    """
    if (folder / _INDEX).is_file():
        try:
            shards = set(json.loads((folder / _INDEX).read_bytes())["weight_map"].values())
        except (ValueError, KeyError, AttributeError) as error:
            raise VanerError(Messages.VE122.format(path=folder / _INDEX, error=error)) from None
        return sorted(folder / shard for shard in shards)
    if not (folder / _WEIGHTS).is_file():
        if any((folder / name).is_file() for name in _SPACY_TRANSFORMERS):
            raise VanerError(Messages.VE161.format(folder=folder))
        if (folder / _PEFT_CONFIG).is_file():
            raise VanerError(Messages.VE156.format(folder=folder, base=_peft_base(folder)))
        raise VanerError(Messages.VE121.format(folder=folder))
    return [folder / _WEIGHTS]


def weights_fingerprint(folder: Path) -> str:
    """Hash a fixed sample of the weights: per shard, every tensor's name, form and 1 KiB.

    The sample comes from the middle of each tensor. An index or a config alone does not tell a
    model from its fine-tuned relative.
    RAISES VanerError: VE122, a shard that is missing or damaged.
    """
    digest = hashlib.sha256()
    for path in weight_files(folder):
        header, first = _read_header(path)
        try:
            with path.open("rb") as file:
                for name in sorted(header):
                    start, end = header[name]["data_offsets"]
                    file.seek(first + start + max(0, end - start - _SAMPLE_BYTES) // 2)
                    sample = file.read(min(end - start, _SAMPLE_BYTES))
                    facts = [name, header[name]["dtype"], header[name]["shape"], sample.hex()]
                    digest.update(json.dumps(facts).encode("utf8"))
        except (OSError, ValueError, KeyError) as error:
            raise VanerError(Messages.VE122.format(path=path, error=error)) from None
    return digest.hexdigest()


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Read what a shard says it holds.

    RETURNS: per tensor its dtype, shape and data_offsets; where in the file offset 0 is.
    RAISES VanerError: VE122, it is missing, damaged or cut off.
    """
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            first = file.tell()
        header.pop("__metadata__", None)
        expected = first + max((facts["data_offsets"][1] for facts in header.values()), default=0)
        if path.stat().st_size != expected:
            raise ValueError(f"it has {path.stat().st_size} of {expected} bytes")
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        MemoryError,
    ) as error:
        raise VanerError(Messages.VE122.format(path=path, error=error)) from None
    return header, first


def config_fingerprint(folder: Path) -> str:
    """Hash the values of config.json that decide what the weights compute.

    RAISES VanerError: VE122, a config that is missing or damaged.
    """
    config = _read_config(folder)
    facts = {key: config.get(key) for key in _CONFIG_KEYS}
    facts.update({key: config[key] for key in _ENCODER_CONFIG_KEYS if key in config})
    # transformers 5 moved it.
    parameters = config.get("rope_parameters") or {}
    facts["rope_theta"] = config.get("rope_theta", parameters.get("rope_theta"))
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode("utf8")).hexdigest()


def position_fingerprint(folder: Path) -> str:
    """Hash the values of config.json by which positions are turned, theta aside.

    RAISES VanerError: VE122, a config that is missing or damaged.
    """
    config = _read_config(folder)
    # transformers 5 moved the scaling, and nests it where kinds of layers differ.
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    local = scaling.get("sliding_attention") or {}
    scaling = scaling.get("full_attention") or scaling
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    others = {k: v for k, v in scaling.items() if k not in ("rope_type", "type", "rope_theta")}
    facts = {
        "head_dim": config.get("head_dim")
        or config.get("hidden_size", 0) // config.get("num_attention_heads", 1),
        "rope_type": kind,
        "scaling": others if kind != "default" else {},
        "local_theta": config.get("rope_local_base_freq", local.get("rope_theta")),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode("utf8")).hexdigest()


def longest_input(config: DecoderConfig) -> int:
    """How many positions a backbone can read as it was trained to.

    Some layers of Mistral and Gemma see a stretch of this length only. Our mask lets them see all
    of it, which is the same as long as no input is longer.
    """
    longest = config.max_position_embeddings
    stretch = getattr(config, "sliding_window", None)
    if (
        stretch
        and config.model_type not in ENCODERS
        and getattr(config, "use_sliding_window", True)
    ):
        longest = min(longest, stretch)
    return longest


def checkpoint_layers(decoder: nn.Module, name: str) -> None:
    """Let a backbone compute its layers' insides again for the gradients, in training.

    name: the backbone's, for the message.
    RAISES VanerError: VE155, it cannot.
    """
    model: Any = decoder
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise VanerError(Messages.VE155.format(backbone=name))
    # transformers 5 renamed it. Reentrant checkpoints would need inputs that have a gradient, which
    # frozen embeddings do not give.
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
    enable = next(getattr(model, name) for name in names if hasattr(model, name))
    enable({"use_reentrant": False})
    # transformers 5 then hooks a closure to the embeddings, which only reentrant checkpoints need
    # and which cannot be pickled.
    if hasattr(model, "_require_grads_hook"):
        model.disable_input_require_grads()


def load_pretrained(folder: Path, settings: HFBackbone) -> nn.Module:
    """Load the decoder or encoder without what is over its states, on the CPU, for evaluation.

    RAISES VanerError: VE122, no config, or a shard that is missing or cut off; VE123, transformers
        cannot load it; VE124, weights are missing in the files; VE107, it is no decoder like LLaMA;
        VE160, it has no sdpa attention;
        VE153, its weights are quantised already; VE154, sdpa would leave out a part of its
        attention.
    """
    # Without a model_type, transformers guesses from the folder's name: a folder "llama" would
    # become a LLaMA of 7 billion random weights.
    model_type = _read_config(folder)["model_type"]
    for path in weight_files(folder):
        _read_header(path)
    dtype = settings.dtype if settings.dtype == "auto" else getattr(torch, settings.dtype)
    try:
        with quiet_transformers():
            config = _transformers().AutoConfig.from_pretrained(
                str(folder), trust_remote_code=False, local_files_only=True
            )
            _check_config(config, folder, settings)
            model, report = _transformers().AutoModel.from_pretrained(
                str(folder),
                # The default differs: fp32 in transformers 4, the files' dtype in 5.
                torch_dtype=dtype,
                attn_implementation=settings.attn_implementation,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **_class_options(model_type),
                **_NAMES_IN_FILES.get(model_type, {}),
            )
    except VanerError:
        raise
    except Exception as error:  # any of transformers', safetensors' and torch's own
        _check_sdpa(error, model_type, settings.attn_implementation)
        raise VanerError(Messages.VE123.format(folder=folder, error=_brief(error))) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise VanerError(
            Messages.VE124.format(folder=folder, n_missing=len(missing), first=missing[0])
        )
    for key in ("hidden_size", "max_position_embeddings", "vocab_size"):
        if not hasattr(model.config, key):
            reason = f"its config has no {key}"
            raise VanerError(Messages.VE107.format(backbone=settings.name, error=reason))
    decoder: nn.Module = model
    _never_compile(decoder)
    features = declared_features(model.config)
    if features is not None:
        add_word_features(decoder, features)
        _set_word_features(decoder, folder)
    return decoder.eval()


def _set_word_features(decoder: nn.Module, folder: Path) -> None:
    """Read what transformers does not know of; the rest of the embedding is in place."""
    embedding = word_embedding(decoder)
    assert embedding is not None
    places = {f"embed_tokens.{name}": place for name, place in embedding.state_dict().items()}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for name in places.keys() & set(file.keys()):
                tensor = file.get_tensor(name)
                if tensor.shape == places[name].shape:
                    places.pop(name).copy_(tensor)
    if places:
        raise VanerError(
            Messages.VE124.format(folder=folder, n_missing=len(places), first=min(places))
        )


def fresh_decoder(config: DecoderConfig, attn_implementation: str) -> nn.Module:
    """Make a decoder with random fp32 weights from the global generator, in evaluation mode."""
    with quiet_transformers():
        try:
            decoder: nn.Module = _transformers().AutoModel.from_config(
                config, attn_implementation=attn_implementation, **_class_options(config.model_type)
            )
        except ValueError as error:
            _check_sdpa(error, config.model_type, attn_implementation)
            raise
    _never_compile(decoder)
    features = declared_features(config)
    if features is not None:
        add_word_features(decoder, features)
    return decoder.eval()


def _class_options(model_type: str) -> dict[str, bool]:
    encoder = ENCODERS.get(model_type)
    return {"add_pooling_layer": False} if encoder and encoder.has_pooler else {}


def _check_sdpa(error: Exception, model_type: str, attn_implementation: str) -> None:
    """RAISES VanerError: VE160, where this is what transformers complains about."""
    if attn_implementation == "sdpa" and "scaled_dot_product_attention" in str(error):
        version = _transformers().__version__
        raise VanerError(Messages.VE160.format(model_type=model_type, version=version)) from error


def _never_compile(decoder: nn.Module) -> None:
    # ModernBERT compiles its layers by itself where it finds triton; minutes for the first rows.
    config: Any = decoder.config
    if hasattr(config, "reference_compile"):
        config.reference_compile = False


def small_llama_config(settings: SmallLlama, n_subwords: int) -> DecoderConfig:
    """Turn our settings into transformers' config; n_subwords: rows of the embedding."""
    # Special ids are set to nothing: the tagger neither generates nor reads padding.
    config: DecoderConfig = _transformers().LlamaConfig(
        vocab_size=n_subwords,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.n_layers,
        num_attention_heads=settings.n_heads,
        num_key_value_heads=settings.n_heads,
        max_position_embeddings=settings.max_positions,
        tie_word_embeddings=False,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    return config


def config_from_json(values: Mapping[str, Any]) -> DecoderConfig:
    """Undo a config's `to_json_string`, parsed.

    RAISES KeyError, TypeError, ValueError: no config of a kind that transformers knows.
    """
    arguments = {key: value for key, value in values.items() if key != "model_type"}
    config: DecoderConfig = _transformers().AutoConfig.for_model(values["model_type"], **arguments)
    return config


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' own reports and progress bars; we check what they would say."""
    logging = _transformers().utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _check_config(config: Any, folder: Path, settings: HFBackbone) -> None:
    quantized = getattr(config, "quantization_config", None)
    if quantized is not None:
        method = dict(quantized).get("quant_method", "by an unknown method")
        raise VanerError(Messages.VE153.format(folder=folder, method=method))
    # transformers 4 takes sdpa and leaves the caps out, transformers 5 refuses it.
    if getattr(config, "attn_logit_softcapping", None) and settings.attn_implementation == "sdpa":
        raise VanerError(Messages.VE154.format(backbone=settings.name))


def _missing_files(folder: Path) -> list[str]:
    missing = [path.name for path in weight_files(folder) if not path.is_file()]
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        missing.append(_TOKENIZER_FILES[0])
    return missing


def _peft_base(folder: Path) -> str:
    try:
        return str(json.loads((folder / _PEFT_CONFIG).read_bytes())["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"{_PEFT_CONFIG} does not tell"


def hub_failure(error: Exception) -> str:
    """Say in a line why a name cannot be had from the hub."""
    from huggingface_hub.errors import HFValidationError

    # Its own message speaks of identifiers, where what was given is the path of a missing folder.
    return (
        "it is no name that the hub takes"
        if isinstance(error, HFValidationError)
        else _brief(error)
    )


def _brief(error: Exception) -> str:
    # Some messages list every model that there is.
    first_line = str(error).partition("\n")[0]
    return textwrap.shorten(first_line, _MAX_ERROR_LENGTH, placeholder=" …")


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_bytes())
        if not config.get("model_type"):
            raise ValueError("it names no model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise VanerError(Messages.VE122.format(path=path, error=error)) from None
    return config


def _transformers() -> Any:
    # Imported late, and untyped: its annotations differ between the two generations.
    import transformers

    return transformers


def _snapshot(settings: HFBackbone, *, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download

    def fetch(names: list[str]) -> Path:
        return Path(
            snapshot_download(
                settings.name,
                revision=settings.revision,
                allow_patterns=names,
                local_files_only=local_files_only,
            )
        )

    # Small files first: the index says which shards there are, so that a second copy of the
    # weights in another layout is not fetched.
    folder = fetch(list(_SMALL_FILES))
    if (folder / _INDEX).is_file():
        return fetch([path.name for path in weight_files(folder)])
    folder = fetch([_WEIGHTS])
    weight_files(folder)
    return folder
