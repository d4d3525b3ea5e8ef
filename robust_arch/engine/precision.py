"""The choice of precision: bfloat16 on hardware that multiplies it, elsewhere float32."""

import torch

PRECISIONS = ("32", "bf16-mixed")


def processor_has(unit: str) -> bool:
    """Whether the CPU has a unit, by torch's name for it; False if this version of torch cannot tell."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get(unit))


def decide_precision(device: torch.device) -> str:
    """bf16-mixed where the device multiplies bfloat16 in hardware, else 32, as emulation is slower than float32."""
    if device.type == "cuda":
        in_hardware = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        in_hardware = processor_has("avx512_bf16") or processor_has("amx_bf16")
    return "bf16-mixed" if in_hardware else "32"
