"""The page: numbers where they belong, and text that stays text."""

import re

from illada.evaluate.page import page
from illada.evaluate.summary import summarize

SETTINGS = {"suite": "illada_base", "model": "tiny", "run": {"command": "illada eval --suite illada_base"}}


def test_table_plot_and_settings(line):
    lines = [line(n, correct=n % 4 != 0) for n in range(20)] + [line(n, task="bbh") for n in range(5)]
    shown = page(summarize(lines, {"gsm8k": 81.9}), lines, SETTINGS)
    assert "illada_base: tiny" in shown
    assert "<pre>illada eval --suite illada_base</pre>" in shown
    row = re.search(r"<tr><td>gsm8k</td>(.*?)</tr>", shown)[1]
    cells = re.findall(r"<td>(.*?)</td>", row)
    assert (cells[0], cells[1], cells[3]) == ("20", "75.0", "81.9")
    assert shown.count("class='dot'") == 2
    assert shown.count("class='paper'") == 1
    left = float(re.search(r"class='dot' cx='([\d.]+)'", shown)[1])
    assert left == 190 + 0.75 * (720 - 190 - 60)


def test_a_few_right_and_wrong_answers_are_shown(line):
    lines = [line(n, correct=n % 2 == 0) for n in range(20)]
    shown = page(summarize(lines, {}), lines, SETTINGS)
    assert "gsm8k: 6 of 20 answers" in shown
    assert shown.count("class='wrong'>") == shown.count("class='right'>") == 3


def test_what_a_model_writes_stays_text(line):
    evil = "<script>alert('x')</script>"
    lines = [line(1, task=evil, prompt=evil, output=evil, extracted=evil, note=evil, reference=evil, group=evil)]
    shown = page(summarize(lines, {}), lines, {**SETTINGS, "model": evil})
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown


def test_nothing_is_fetched_from_elsewhere(line):
    lines = [line(1)]
    assert not re.search(r"(src|href)=|url\(|http", page(summarize(lines, {}), lines, SETTINGS))


def test_a_long_prompt_is_shown_by_its_end(line):
    lines = [line(1, prompt="x" * 5000 + "the question")]
    shown = page(summarize(lines, {}), lines, SETTINGS)
    assert "the question" in shown
    assert "x" * 3000 not in shown


def test_the_average_is_of_the_tasks(line):
    lines = [line(n, correct=n < 5) for n in range(20)] + [line(n, task="bbh") for n in range(5)]
    assert "<tr><td>average</td><td></td><td>62.5</td>" in page(summarize(lines, {}), lines, SETTINGS)
    assert "average" not in page(summarize(lines[:20], {}), lines[:20], SETTINGS)


def test_subjects_have_a_table_of_their_own(line):
    lines = [line(n, group="law" if n % 4 else "art", correct=n % 2 == 0) for n in range(20)]
    shown = page(summarize(lines, {}), lines, SETTINGS)
    assert "gsm8k in parts" in shown
    assert "<tr><td>art</td><td>5</td><td>100.0</td>" in shown
    assert "<tr><td>law</td><td>15</td><td>33.3</td>" in shown
    assert "in parts" not in page(summarize([line(1)], {}), [line(1)], SETTINGS)


def test_remarks_and_what_was_left_out_are_told(line):
    asked = [{"task": "gsm8k", "remark": "paper & script differ"}, {"task": "bbh", "remark": ""}]
    shown = page(summarize([line(1)], {}), [line(1)], {**SETTINGS, "tasks": asked, "left_out": ["mmlu", "piqa"]})
    assert "<li>gsm8k: paper &amp; script differ</li><li>left out: mmlu, piqa</li>" in shown
    assert "<ul" not in page(summarize([line(1)], {}), [line(1)], SETTINGS)


def test_a_long_reference_is_a_block_and_an_empty_answer_is_said_to_be_one(line):
    program = "def check(f):\n    assert f(1) < 2\n"
    shown = page(summarize([line(1)], {}), [line(1, reference=program, output="", extracted=None)], SETTINGS)
    assert "expected<pre>def check(f):\n    assert f(1) &lt; 2\n</pre>" in shown
    assert "answered nothing</div>" in shown
    assert "<span class='soft'>nothing found</span>" in shown
    assert "expected &#x27;4&#x27; · found &#x27;4&#x27;" in page(summarize([line(1)], {}), [line(1)], SETTINGS)
