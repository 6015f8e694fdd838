"""`fovea predict -m METHOD -i ALIGNMENT`: which columns of a user's own alignment touch."""
import csv
import gzip
import json
import random
import xml.etree.ElementTree

import pytest
from program import fovea, refused

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
COLUMNS = 12


@pytest.fixture(scope="module")
def rows():
    """Column 9 copies column 2 in most sequences; all others are noise."""
    draw = random.Random(4)
    made = [[draw.choice(LETTERS) for _ in range(COLUMNS)] for _ in range(300)]
    for row in made:
        if draw.random() < 0.9:
            row[8] = row[1]
    return ["".join(row) for row in made]


def fasta(rows):
    return "".join(f">s{n}\n{row}\n" for n, row in enumerate(rows))


@pytest.fixture
def family(rows, tmp_path):
    path = tmp_path / "family.fasta"
    path.write_text(fasta(rows))
    return path


@pytest.mark.parametrize("method", ["factored", "potts", "covariance", "mi"])
def test_columns_that_change_together_come_first_by_every_method(family, rows, tmp_path, method):
    table = tmp_path / "contacts.csv"
    assert fovea("predict", "-m", method, "-i", family, "-o", table).stdout.split() == [str(table), str(tmp_path / "contacts.svg")]
    found = list(csv.DictReader(table.open()))
    assert (found[0]["i"], found[0]["j"]) == ("2", "9")
    assert (found[0]["residue_i"], found[0]["residue_j"]) == (rows[0][1], rows[0][8])
    assert len(found) == COLUMNS * (COLUMNS - 1) // 2
    scores = [float(row["score"]) for row in found]
    assert scores == sorted(scores, reverse=True)
    assert xml.etree.ElementTree.parse(tmp_path / "contacts.svg").getroot().tag.endswith("svg")


def test_one_seed_gives_one_table_and_another_seed_another(family, tmp_path):
    def table(name, seed):
        fovea("predict", "-m", "tied", "-i", family, "-o", tmp_path / name, "--seed", seed)
        return (tmp_path / name).read_bytes()

    first = table("a.csv", 3)
    assert table("b.csv", 3) == first
    assert table("c.csv", 4) != first


def test_every_format_of_one_alignment_gives_the_same_table(family, rows, tmp_path):
    (tmp_path / "family.a3m").write_text("".join(f">s{n}\n{row[:4]}{'' if n == 0 else 'acd'}{row[4:]}\n" for n, row in enumerate(rows)))
    (tmp_path / "family.sto").write_text("# STOCKHOLM 1.0\n" + "".join(f"s{n} {row}\n" for n, row in enumerate(rows)) + "//\n")
    (tmp_path / "family.aln").write_text("CLUSTAL W\n\n" + "".join(f"s{n} {row}\n" for n, row in enumerate(rows)))
    (tmp_path / "family.fa.gz").write_bytes(gzip.compress(fasta(rows).encode()))
    tables = []
    for name in ("family.fasta", "family.a3m", "family.sto", "family.aln", "family.fa.gz"):
        fovea("predict", "-m", "mi", "-i", tmp_path / name, "-o", tmp_path / "contacts.csv")
        tables.append((tmp_path / "contacts.csv").read_bytes())
    assert all(table == tables[0] for table in tables)


def test_distances_are_written_and_counted_beside_chance(family, tmp_path):
    known = [(i, j) for i in range(1, COLUMNS + 1) for j in range(i + 1, COLUMNS + 1) if (i, j) != (1, 8)]
    distances = tmp_path / "distances.dat"
    distances.write_text("".join(f"{i} {j} 0 {4 if (i, j) == (2, 9) else 20}\n" for i, j in known))
    done = json.loads(fovea("predict", "-m", "mi", "-i", family, "--distances", distances, "-o", tmp_path / "c.csv", "--json").stdout)
    assert (done["sequences"], done["columns"], done["effective_sequences"]) == (300, COLUMNS, 300)
    assert done["precision"]["mutual information"]["L/5"] == 0.5  # one contact among two pairs
    assert done["precision"]["chance"]["L"] == pytest.approx(1 / 20)
    found = {(row["i"], row["j"]): row["distance_angstrom"] for row in csv.DictReader((tmp_path / "c.csv").open())}
    assert found[("2", "9")] == "4" and found[("1", "8")] == "" and found[("1", "9")] == "20"
    assert "below 8" in (tmp_path / "c.svg").read_text()
    fovea("predict", "-m", "mi", "-i", family, "-o", tmp_path / "without.csv")
    assert "below 8" not in (tmp_path / "without.svg").read_text()


def test_equal_sequences_score_nothing_and_are_said_to_be_few(tmp_path):
    (tmp_path / "same.fasta").write_text(fasta(["ACDEFGHIKL"] * 5))
    done = fovea("predict", "-m", "mi", "-i", tmp_path / "same.fasta", "-o", tmp_path / "c.csv")
    assert {float(row["score"]) for row in csv.DictReader((tmp_path / "c.csv").open())} == {0}
    assert "1 sequences differ" in done.stderr


@pytest.mark.parametrize("text, says", [
    (fasta(["ACDEFGHIKL", "ACDEFGHIK", "ACDEFGHIKL"]), ["s1", "9", "10"]),
    (fasta(["ACDEFGHIKL", "ACDE1GHIKL"]), ["line 4", "'1'"]),
    (fasta(["ACDEFGHIKL"]), ["1 sequences of 10 columns", "at least 2"]),
    ("", ["empty"]),
    ("no alignment\n", ["expected an alignment"]),
])
def test_what_is_no_alignment_is_one_line_and_writes_nothing(tmp_path, text, says):
    path = tmp_path / "family.fasta"
    path.write_text(text)
    (tmp_path / "output").mkdir()
    refused("predict", "-m", "factored", "-i", path, "-o", tmp_path / "output/contacts.csv", says=[path, *says], leaves=tmp_path / "output")


def test_wrong_flags_are_one_line(family, tmp_path):
    bad = tmp_path / "bad.dat"
    bad.write_text("1 2 0\n")
    table = tmp_path / "contacts.csv"
    refused("predict", "-m", "mi", "-i", family, "-o", table, "--distances", bad, says=[bad, "line 1", "i j score distance"], leaves=tmp_path)
    refused("predict", "-m", "mi", "-i", family, "-o", table, "--distances", tmp_path / "none.dat", says="none.dat", leaves=tmp_path)
    refused("predict", "-m", "mi", "-i", family, "-o", tmp_path / "contacts.txt", says="expected a .csv", leaves=tmp_path)
    refused("predict", "-m", "mi", "-i", family, "-o", tmp_path / "no/contacts.csv", says="does not exist", leaves=tmp_path)
    refused("predict", "-m", "mi", "-i", family, "-i", family, "-o", table, says="one alignment", leaves=tmp_path)
    refused("predict", "-m", "mi", "-i", family, "-o", table, "--overlap", "0.5", says="--overlap", leaves=tmp_path)
    refused("predict", "-m", "information", "-i", family, "-o", table, says="information", leaves=tmp_path)
