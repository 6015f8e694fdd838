"""Writes FOLDER/patients: 320 SIMULATED patients with a lung nodule: a scan with mask, laboratory values, a report in English
or Chinese, and whether the nodule was malignant. For tutorials; nothing in it is real.

Malignancy is drawn with the log odds 2 (roughness of the rim) + 1.2 (C-reactive protein) + 1.5 (growth, said only in the report),
standardised, so that each modality knows a part of it. About every eighth patient lacks the scan, the laboratory or the report.
"""
import csv
import json
import pathlib
import sys

import nibabel
import numpy

COUNT, EDGE, SPACING_MM = 320, 40, 6.0
SIDES = {"en": ("left", "right"), "zh": ("左", "右")}
SENTENCES = {
    "en": ("Nodule in the {side} lung, {mm:.0f} mm.", " It has grown since the last scan.", " Unchanged since the last scan."),
    "zh": ("{side}肺结节，{mm:.0f}毫米。", "较前增大。", "较前无变化。"),
}


def scan(random, right, radius_mm, roughness):
    """Voxels on a grid in RAS+ and the mask: two dark lungs in a body, a nodule in one of them."""
    axes = (numpy.arange(EDGE) - (EDGE - 1) / 2) * SPACING_MM
    x, y, z = numpy.meshgrid(axes, axes, axes, indexing="ij")
    voxels = numpy.where((x / 110) ** 2 + (y / 85) ** 2 < 1, 40.0, -1000.0)
    for side in (-1, 1):
        voxels[((x - side * 50) / 38) ** 2 + (y / 60) ** 2 + (z / 95) ** 2 < 1] = -850
    centre = numpy.array([(1 if right else -1) * random.uniform(35, 65), random.uniform(-25, 25), random.uniform(-50, 50)])
    distance = numpy.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
    mask = distance < radius_mm
    voxels[mask] = 20
    rim = numpy.abs(distance - radius_mm) < 6
    voxels[rim] += 600 * roughness * random.choice([-1, 1], rim.sum())
    return (voxels + random.normal(0, 30, voxels.shape)).astype("int16"), mask.astype("uint8")


def main(folder):
    out = pathlib.Path(folder) / "patients"
    (out / "scans").mkdir(parents=True, exist_ok=True)
    random = numpy.random.default_rng(20240601)
    rows = []
    for i in range(COUNT):
        name = f"p{i:03d}"
        roughness, crp, growth, right = random.uniform(0, 1), random.normal(), random.random() < 0.5, random.random() < 0.5
        radius_mm = random.uniform(12, 24)
        voxels, mask = scan(random, right, radius_mm, roughness)
        affine = numpy.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
        affine[:3, 3] = -(EDGE - 1) / 2 * SPACING_MM
        if i % 2:  # the same place in the patient, stored from left to right the other way
            voxels, mask = voxels[::-1], mask[::-1]
            affine[0] *= -1
        nibabel.save(nibabel.Nifti1Image(voxels, affine), out / "scans" / f"{name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask, affine), out / "scans" / f"{name}_mask.nii.gz")
        odds = 2 * (roughness - 0.5) / 0.29 + 1.2 * crp + 1.5 * (1 if growth else -1)
        language = "zh" if random.random() < 0.5 else "en"
        begin, grown, same = SENTENCES[language]
        report = begin.format(side=SIDES[language][int(right)], mm=2 * radius_mm) + (grown if growth else same)
        row = {"id": name, "ct": f"scans/{name}.nii.gz", "nodule": f"scans/{name}_mask.nii.gz", "age": round(random.normal(63, 9)),
               "crp_mg_l": round(float(numpy.exp(1.5 + 0.8 * crp)), 1), "smoker": "yes" if random.random() < 0.4 else "no", "report": report,
               "finding": "malignant" if random.random() < 1 / (1 + numpy.exp(-odds)) else "benign", "split": "test" if i % 4 == 3 else "train"}
        missing = random.integers(0, 24)
        for column in {0: ["ct", "nodule"], 1: ["age", "crp_mg_l", "smoker"], 2: ["report"]}.get(int(missing), []):
            row[column] = ""
        rows.append(row)
    with open(out / "patients.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    (out / "patients.json").write_text(json.dumps({
        "name": "simulated lung nodules", "simulated": True, "images": ["ct"], "mask": "nodule", "numbers": ["age", "crp_mg_l"],
        "categories": {"smoker": ["no", "yes"]}, "texts": ["report"], "label": "finding", "classes": ["benign", "malignant"], "split": "split"}, indent=2) + "\n")
    print(out)


if __name__ == "__main__":
    main(sys.argv[1])
