"""Published numbers: HealthGPT, arXiv 2502.09838v3 (the ICML text differs slightly). In percent where a share."""
from __future__ import annotations

import re

# Table 1: closed / all of VQA-RAD, SLAKE, PathVQA; MMMU-Med; OmniMedVQA.
COMPREHENSION: dict[str, tuple[float, ...]] = {
    "Med-Flamingo": (58.6, 43.0, 47.0, 25.5, 61.9, 31.3, 28.7, 34.9),
    "LLaVA-Med": (60.2, 48.1, 58.4, 44.8, 62.3, 35.7, 30.0, 41.3),
    "HuatuoGPT-Vision": (66.9, 53.0, 59.8, 49.1, 52.9, 32.0, 42.0, 50.0),
    "BLIP-2": (43.4, 36.8, 41.6, 35.3, 48.5, 28.8, 27.3, 26.9),
    "LLaVA-v1.5": (51.8, 42.8, 37.1, 37.7, 53.5, 31.4, 32.7, 44.7),
    "InstructBLIP": (61.0, 44.8, 66.8, 43.3, 56.0, 32.3, 25.3, 29.0),
    "Yi-VL": (52.6, 42.1, 52.4, 38.4, 54.9, 30.9, 38.0, 50.2),
    "Show-o": (50.6, 33.9, 31.5, 17.9, 52.9, 28.2, 22.7, 45.7),
    "Unified-IO 2": (46.2, 32.6, 35.9, 21.9, 52.5, 27.0, 25.3, 33.0),
    "Janus": (70.9, 52.8, 34.7, 26.9, 51.9, 27.9, 30.0, 26.8),
    "HealthGPT-M3": (73.7, 55.9, 74.6, 56.4, 78.7, 39.7, 43.3, 68.5),
    "HealthGPT-L14": (77.7, 58.3, 76.4, 64.5, 85.9, 44.4, 49.2, 74.4),
}
# As printed: the mean of the eight, but for Show-o, Unified-IO 2 and Janus, whose rows give 35.4, 34.3 and 40.2.
AVERAGES = {"Med-Flamingo": 41.4, "LLaVA-Med": 47.6, "HuatuoGPT-Vision": 50.7, "BLIP-2": 36.1, "LLaVA-v1.5": 41.5,
            "InstructBLIP": 44.8, "Yi-VL": 44.9, "Show-o": 42.6, "Unified-IO 2": 33.8, "Janus": 33.5, "HealthGPT-M3": 61.3,
            "HealthGPT-L14": 66.4}
COMPREHENSION_COLUMNS = (("vqa-rad", "closed"), ("vqa-rad", "all"), ("slake", "closed"), ("slake", "all"), ("pathvqa", "closed"),
                         ("pathvqa", "all"), ("mmmu-med", "option"), ("omnimedvqa", "option_macro"))
# Table 9; its mean over the modalities is Table 1's number, so that one is unweighted.
MODALITIES = ("CT", "X-Ray", "Fundus", "Microscopy", "OCT", "MRI", "Ultrasound")
OMNIMEDVQA = {"HealthGPT-M3": (35.3, 81.9, 54.6, 88.2, 89.3, 78.5, 51.4),
              "HealthGPT-L14": (39.0, 86.6, 64.1, 88.6, 99.7, 80.9, 62.2)}
# SSIM (x100), PSNR, MSE by group.
PICTURES: dict[str, tuple[tuple[str, ...], dict[str, tuple[tuple[float, float, float], ...]]]] = {
    "reconstruction": (("CT brain", "CT pelvis", "MRI brain", "MRI pelvis"), {     # Table 11
        "SEED-X": ((20.18, 27.66, 112.11), (21.53, 28.02, 102.87), (4.90, 27.62, 112.86), (6.31, 27.89, 106.21)),
        "Unified-IO 2": ((83.93, 36.09, 17.95), (85.36, 35.10, 25.46), (87.50, 34.25, 25.47), (86.31, 33.53, 29.80)),
        "HealthGPT-M3": ((91.73, 36.42, 15.46), (94.26, 37.30, 12.53), (88.76, 33.97, 27.05), (84.40, 33.11, 32.62)),
    }),
    "conversion": (("CT->MRI brain", "CT->MRI pelvis", "MRI->CT brain", "MRI->CT pelvis"), {     # Table 2
        "pix2pix": ((71.09, 32.65, 36.85), (59.17, 31.02, 51.91), (78.79, 33.85, 28.33), (72.31, 32.98, 36.19)),
        "CycleGAN": ((54.76, 32.23, 40.56), (54.54, 30.77, 55.00), (63.75, 31.02, 52.78), (50.54, 29.89, 67.78)),
        "BBDM": ((71.69, 32.91, 34.44), (57.37, 31.37, 48.06), (86.40, 34.12, 26.61), (79.26, 33.15, 33.60)),
        "Vmamba": ((69.54, 32.67, 36.42), (63.01, 31.47, 46.99), (79.63, 34.12, 26.49), (77.45, 33.53, 31.85)),
        "DiffMa": ((71.47, 32.74, 35.77), (62.56, 31.43, 47.38), (79.00, 34.13, 26.45), (78.53, 33.68, 30.51)),
        "HealthGPT-M3": ((79.38, 33.03, 33.48), (71.81, 31.83, 43.45), (85.06, 34.40, 25.49), (84.23, 34.29, 27.99)),
        "HealthGPT-L14": ((79.73, 33.10, 32.96), (71.92, 31.87, 43.09), (85.31, 34.29, 26.20), (84.96, 34.14, 28.13)),
    }),
    "super-resolution": (("IXI 4x",), {     # Table 3
        "SRGAN": ((71.34, 32.01, 41.27),), "DASR": ((71.57, 32.34, 38.25),), "Real-ESRGAN": ((67.30, 31.87, 42.57),),
        "LIIF": ((73.27, 32.13, 40.14),), "BSRGAN": ((69.97, 31.97, 41.52),),
        "HealthGPT-M3": ((78.19, 32.76, 34.47),), "HealthGPT-L14": ((77.94, 32.71, 35.19),),
    }),
}
NAMES = ("vqa-rad", "slake", "pathvqa", "mmmu-med", "omnimedvqa", *PICTURES, "vqa-med-2019", "pmc-vqa", "chexpert")
SHOWN = ("LLaVA-Med", "HealthGPT-M3", "HealthGPT-L14")


def of(paper: str, metric: str, group: str = "") -> dict[str, float]:
    """model -> published value of a metric, or nothing."""
    if group:
        if paper == "omnimedvqa" and metric == "option" and modality(group):
            at = MODALITIES.index(modality(group))
            return {m: v[at] for m, v in OMNIMEDVQA.items()}
        groups, rows = PICTURES.get(paper, ((), {}))
        if fold(group) in map(fold, groups) and metric in ("ssim", "psnr", "mse"):
            at = [fold(g) for g in groups].index(fold(group))
            return {m: v[at][("ssim", "psnr", "mse").index(metric)] for m, v in rows.items()}
        return {}
    if (paper, metric) in COMPREHENSION_COLUMNS:
        at = COMPREHENSION_COLUMNS.index((paper, metric))
        return {m: v[at] for m, v in COMPREHENSION.items()}
    return {}


def fold(name: str) -> str:
    return " ".join(name.lower().split())


def modality(name: str) -> str:
    """The paper's name of an OmniMedVQA modality_type ("CT(Computed Tomography)", "MR (Mag-netic Resonance Imaging)"), or ""."""
    first = re.match(r"[a-z-]*", name.lower()).group()
    return {"ct": "CT", "x-ray": "X-Ray", "fundus": "Fundus", "microscopy": "Microscopy", "oct": "OCT", "mr": "MRI", "mri": "MRI",
            "ultrasound": "Ultrasound"}.get(first, "")
