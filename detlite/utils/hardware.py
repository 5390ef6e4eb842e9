"""What the processor computes itself."""

import torch


def computes_bf16(device: torch.device) -> tuple[bool, str]:
    """Whether a device has bf16 arithmetic for training and inference, and why so, for the log."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        has = major >= 8
        lacks = "" if has else ", below 8.0: no bf16 arithmetic"
        return has, f"the GPU has compute capability {major}.{minor}{lacks}"
    # oneDNN also says yes where it converts and computes in fp32 (AVX-512 without BF16, and
    # AVX2-VNNI-2), and on ARM, for which it has no backward convolution in bf16 but a slow
    # reference: `_is_mkldnn_bf16_supported` alone does not tell that bf16 is fast.
    sets = {
        "AMX": torch.cpu._is_amx_tile_supported(),
        "AVX512_BF16": torch.cpu._is_avx512_bf16_supported(),
    }
    found = [name for name, has in sets.items() if has]
    if not found:
        return False, "the CPU has no bf16 arithmetic (neither AMX nor AVX512_BF16)"
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False, f"the CPU has {found[0]}, but this torch does not use it for bf16"
    return True, f"the CPU computes bf16 ({found[0]})"
