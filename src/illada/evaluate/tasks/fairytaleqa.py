"""FairytaleQA (arXiv 2203.13947): questions on a passage of a fairy tale, answered in a few words."""

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from illada.evaluate.task import HubData, Question, Row, Verdict
from illada.evaluate.tasks.rows import FileTask, no_shots, read_rows

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, kw_only=True)
class FairytaleQA(FileTask):
    """The passage, then the question. An answer is right if it is that of one of the two annotators.

    Case, punctuation, articles and blanks do not count, as in SQuAD (arXiv 1606.05250). The passages of the local files
    are put together from the stories beside the questions: of `qa_val.jsonl` from `stories_val.jsonl`.
    """

    def local_rows(self, folder: Path) -> Iterator[Row]:
        """Questions with the passage that they are about.

        Raises:
            FileNotFoundError: questions or stories are not there.
            ValueError: a question on a story or a passage that there is not.
        """
        file = folder / self.file
        sections = {
            row["story"]: row["sections"] for row in read_rows(file.with_name(file.name.replace("qa_", "stories_")))
        }
        for row in read_rows(file):
            places = [int(place) - 1 for place in str(row["cor_section"]).split(",")]
            story = sections.get(row["story"], [])
            if not all(0 <= place < len(story) for place in places):
                raise ValueError(f"{file}: the story {row['story']!r} has no passage {row['cor_section']}")
            answers = [row[name] for name in ("answer1", "answer4") if row.get(name)]
            passage = "\n".join(story[place] for place in places)
            yield {"passage": passage, "question": row["question"], "answers": answers}

    def hub_row(self, row: Row) -> Row:
        """The hub names the passage `story_section`, and the answers one by one."""
        answers = [row[name] for name in ("answer1", "answer2") if row.get(name)]
        return {"passage": row["story_section"], "question": row["question"], "answers": answers}

    def questions(self, rows: Iterator[Row], folder: Path | None, shots: int | None) -> Iterator[Question]:
        """One question for each row.

        Raises:
            ValueError: examples are asked for.
        """
        no_shots(self.name, shots)
        for number, row in enumerate(rows):
            yield Question(
                id=str(number), ask=f"{row['passage']}\n\n{row['question']}", reference="\n".join(row["answers"])
            )

    def judge(self, question: Question, answer: str) -> Verdict:
        """Compare with every answer that was given."""
        said = plain(answer)
        return Verdict(correct=said in map(plain, question.reference.split("\n")), extracted=said or None)


def plain(text: str) -> str:
    """Lower case, without punctuation, articles and needless blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


FAIRYTALEQA_TASKS: dict[str, FairytaleQA] = {
    "fairytaleqa": FairytaleQA(
        name="fairytaleqa",
        kind="text",
        hub=(HubData(path="WorkInTheDark/FairytaleQA", split="validation"),),
        file="fairytaleqa/qa_val.jsonl",
    )
}
"""By name."""
