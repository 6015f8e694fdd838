"""fovea/io/word_pieces against the `tokenizers` library (BERT uncased rules) on every kind of character and text."""
import json
import random
import unicodedata

import pytest
from tokenizers import BertWordPieceTokenizer

from probe import ask

REPORTS = [
    "An 8 mm solid nodule in the right upper lobe, abutting the pleura (SUVmax 4.2).",
    "Kein Rundherd; Bülau-Drainage li. basal, Z.n. Lobektomie – größenstabil.",
    "右肺上叶见8毫米实性结节，边缘毛刺；左肺未见异常。",
    "Nódulo de 12 mm no lobo inferior esquerdo… ¿benigno?",
    "",
    "   ",
    "2.5x3.1cm,L>R|T1=~low^2 $5 `a`",
]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """Words and inner pieces of the reports, single letters, and a part of the Chinese block."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    words += ["##" + chr(c) for c in range(97, 123)] + ["##" + str(d) for d in range(10)]
    words += ["nodule", "lobe", "right", "upper", "##s", "##ule", "nod", "mm", "rund", "##herd", "kein", "groß", "##max", "suv"]
    words += [chr(c) for c in range(0x4E00, 0x9FA6, 3)] + list("右肺上叶见毫米实性结节，；。")
    path = tmp_path_factory.mktemp("words") / "vocab.txt"
    path.write_text("\n".join(dict.fromkeys(words)) + "\n", encoding="utf-8")
    return path


def compare(vocabulary, tmp_path, texts):
    (tmp_path / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    ours = ask("pieces", vocabulary, tmp_path / "texts.json")
    theirs = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
    return [(text, a, theirs.encode(text).ids) for text, a in zip(texts, ours) if a != theirs.encode(text).ids]


def test_reports_give_the_same_numbers(vocabulary, tmp_path):
    assert compare(vocabulary, tmp_path, REPORTS) == []


def test_random_mixtures_of_scripts_give_the_same_numbers(vocabulary, tmp_path):
    rng = random.Random(0)
    blocks = [(32, 127), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x530), (0x4E00, 0x9FA6), (0x3000, 0x3100), (0xFF00, 0xFFEF), (0x2000, 0x2070)]
    texts = ["".join(chr(rng.randrange(*rng.choice(blocks))) for _ in range(rng.randrange(1, 60))) for _ in range(2000)]
    assert compare(vocabulary, tmp_path, texts) == []


def test_every_settled_character_is_treated_alike(tmp_path):
    """Each character between two letters: joined, split, made a word of its own, lowered, or dropped. Characters whose
    category is younger than Unicode 3.2 are left out: the library's own table of categories is some versions old."""
    old, new = unicodedata.ucd_3_2_0, unicodedata
    characters = [chr(c) for c in range(1, 0x30000) if new.category(chr(c)) not in ("Cn", "Cs") and old.category(chr(c)) == new.category(chr(c))]
    assert len(characters) > 90000
    decomposed = [unicodedata.normalize("NFD", c).lower() for c in characters]
    pieces = {p for text in decomposed for p in text if p.strip() and unicodedata.category(p) != "Mn"}
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    (tmp_path / "vocab.txt").write_text("\n".join(marks + sorted(pieces) + sorted("##" + p for p in pieces)) + "\n", encoding="utf-8")
    wrong = compare(tmp_path / "vocab.txt", tmp_path, [f"a{c}b" for c in characters])
    assert [f"U+{ord(text[1]):04X}" for text, _, _ in wrong] == []
