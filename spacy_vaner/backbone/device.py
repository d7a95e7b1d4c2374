"""Where and how precisely the tagger computes: the settings `device` and `precision`."""

from __future__ import annotations

import torch

from ..errors import Messages, VanerError

PRECISIONS = ("auto", "fp32", "bf16")


def choose_device(setting: str) -> torch.device:
    """Turn the setting `device` into a device that is there.

    setting: "auto" (CUDA where there is one, then the CPU), "cpu", "cuda" or "cuda:1".
    RAISES VanerError: VE103, another value; VE104, a CUDA device that is not there.
    """
    if setting == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(setting)
    except RuntimeError:
        raise VanerError(Messages.VE103.format(value=setting)) from None
    if device.type not in ("cpu", "cuda"):
        raise VanerError(Messages.VE103.format(value=setting))
    if device.type == "cuda":
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= n_devices:
            raise VanerError(Messages.VE104.format(value=setting, n_devices=n_devices))
    return device


def choose_precision(setting: str, device: torch.device) -> str:
    """Turn the setting `precision` into "fp32" or "bf16".

    setting: "fp32", "bf16", or "auto": bf16 where the device computes it in hardware (CUDA from
        compute capability 8.0, processors with AVX512-BF16 or AMX); elsewhere it is emulated
        and slower than fp32.
    RAISES VanerError: VE105, another value.
    """
    if setting not in PRECISIONS:
        raise VanerError(Messages.VE105.format(value=setting))
    if setting != "auto":
        return setting
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    return "bf16" if _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    # Both probes are private to torch: where a version lacks them, fp32 is right, only slower.
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, probe, bool)()) for probe in probes)
