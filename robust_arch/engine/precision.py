"""Where bfloat16 pays: on hardware that multiplies it by itself."""

import torch

PRECISIONS = ("32", "bf16-mixed")


def has_bf16_units(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; elsewhere it is emulated, and slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def decide_precision(device: torch.device) -> str:
    """bf16-mixed where the device has the units for it, else 32."""
    return "bf16-mixed" if has_bf16_units(device) else "32"
