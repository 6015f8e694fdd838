"""fovea lesson: the list, a question, an answer judged, and what a learner can get wrong. The bands stand in tests/recipes."""
import json
import xml.etree.ElementTree as xml

from program import fovea, refused


def test_the_list_names_each_lesson_with_row_and_duration():
    lines = fovea("lesson").stdout.splitlines()
    names = [line.split()[0] for line in lines]
    assert names[0] == "first-attention" and "quadratic-wall" in names and len(set(names)) == len(names) >= 10
    assert "平方之墙" in fovea("lesson", "--lang", "zh").stdout
    assert {"lesson", "row", "title", "question"} <= set(json.loads(fovea("lesson", "--json").stdout)[0])


def test_a_question_does_not_give_its_answer_away():
    text = fovea("lesson", "ripples").stdout
    assert "corner token" in text and "--answer" in text and "15" not in text
    assert "角上的词元" in fovea("lesson", "ripples", "--lang", "zh").stdout


def test_right_and_wrong_answers_come_with_the_reason():
    right = fovea("lesson", "quadratic-wall", "--answer", 4096).stdout
    assert "Right." in right and "N/w³ = 2097152/512" in right
    wrong = fovea("lesson", "quadratic-wall", "--answer", 8).stdout
    assert "Wrong." in wrong and "4096" in wrong and "N/w³" in wrong
    assert "不对。" in fovea("lesson", "quadratic-wall", "--answer", 8, "--lang", "zh").stdout


def test_json_carries_question_answer_tolerance_and_seed(tmp_path):
    picture = tmp_path / "budget.svg"
    done = json.loads(fovea("lesson", "budget", "--answer", "40,5", "--json", "--seed", 3, "-o", picture).stdout)
    assert done["lesson"] == "budget" and done["row"] == "P1a" and done["seed"] == 3
    assert done["question"]["en"] and done["question"]["zh"] and abs(done["answer"] - 40) < done["tolerance"]
    assert done["right"] is False and done["right_each"] == [True, False] and done["flags"] == {"d": "64", "keys": "64"}
    assert done["picture"] == str(picture) and len(list(xml.parse(picture).getroot().iter())) > 50


def test_the_learners_flags_change_the_answer():
    text = fovea("lesson", "ripples", "--n", 16, "--window", 4, "--answer", 7).stdout
    assert "Right." in text and "worst 7 layers" in text


def test_kernel_regression_takes_a_table_of_ones_own(tmp_path):
    table = tmp_path / "own.csv"
    table.write_text("x,y,z\n" + "".join(f"{i / 40},{(i * 7) % 40},{(i / 40) ** 2}\n" for i in range(40)) + "0.5,NA,1\n")
    done = json.loads(fovea("lesson", "kernel-regression", "--table", table, "--json", "-o", tmp_path / "own.svg").stdout)
    assert done["found"][0]["en"].startswith("40 samples") and done["answer"] > 0
    table.write_text("x,z\n1,2\n")
    refused("lesson", "kernel-regression", "--table", table, says=["expected 5 to 5000 rows of numbers, found 1"])
    refused("lesson", "kernel-regression", "--table", tmp_path / "none.csv", says=["none.csv"])


def test_solution_prints_steps_and_answers():
    text = fovea("lesson", "free-heads", "--solution").stdout
    assert "1. " in text and "2362368" in text


def test_a_site_opens_offline(tmp_path):
    folder = tmp_path / "site"
    assert fovea("lesson", "--html", folder).stdout.strip() == str(folder / "index.html")
    pages = {p.name for p in folder.iterdir()}
    assert "index.html" in pages and "quadratic-wall.html" in pages
    assert not any("http://" in p.read_text().replace("http://www.w3.org/", "") or "https://" in p.read_text() for p in folder.iterdir())


def test_bad_input_is_one_line(tmp_path):
    refused("lesson", "riples", says=["no lesson is called 'riples'", "did you mean ripples?"])
    refused("lesson", "ripples", "--answer", "many", says=["'many' is no number", "layers until"])
    refused("lesson", "ripples", "--heads", 3, says=["takes no --heads", "--n, --window"])
    refused("lesson", "--answer", 3, says=["which one?"])
    refused("lesson", "--html", tmp_path / "site", "ripples", says=["give no name"], leaves=tmp_path)
    refused("lesson", "budget", "-o", tmp_path / "no" / "b.svg", says=["no"], leaves=tmp_path)
