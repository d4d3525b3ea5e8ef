"""Where bfloat16 pays: on hardware that multiplies it by itself."""

import torch

PRECISIONS = ("32", "bf16-mixed")


def has_bf16_units(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; elsewhere it is emulated, and slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return processor_has("avx512_bf16") or processor_has("amx_bf16")


def processor_has(unit: str) -> bool:
    """Whether the CPU has a unit, by torch's name for it; False where this torch does not say."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get(unit))


def decide_precision(device: torch.device) -> str:
    """bf16-mixed where the device has the units for it, else 32."""
    return "bf16-mixed" if has_bf16_units(device) else "32"
