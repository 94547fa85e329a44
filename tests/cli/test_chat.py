"""Conversations: the turns and commands, through a pipe, and at a terminal."""

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from illada.cli import chat
from illada.cli.conversation import Conversation
from illada.pipeline import load
from illada.sample.request import SamplingParams


@pytest.fixture
def conversation(saved_model):
    return Conversation(model=load(saved_model), params=SamplingParams(length=8))


# --- turns and commands -------------------------------------------------------------------------------------------


def test_every_question_is_asked_behind_what_was_said(conversation):
    conversation.system = "Be brief."
    conversation.answered("the fox?", "jumps")
    assert [turn["content"] for turn in conversation.messages("the dog?")] == [
        "Be brief.",
        "the fox?",
        "jumps",
        "the dog?",
    ]
    assert conversation.command("/reset") == "the conversation is forgotten"
    assert [turn["role"] for turn in conversation.messages("why?")] == ["system", "user"]


def test_the_oldest_turns_are_forgotten_when_the_context_is_full(conversation):
    for number in range(12):
        conversation.answered(f"the fox {number}", "the lazy dog")
    forgotten = conversation.make_room("the quick brown fox")
    assert forgotten > 0
    assert forgotten + len(conversation.turns) == 24
    used = len(conversation.model.chat_template.encode(conversation.messages("the quick brown fox")))
    assert used + 16 <= 64
    assert conversation.make_room("the quick brown fox") == 0
    assert conversation.turns[0]["role"] == "user"


def test_a_saved_conversation_is_a_line_of_dialogues(conversation, tmp_path):
    conversation.answered("the fox?", "jumps é")
    assert conversation.command(f"/save {tmp_path / 'a.jsonl'}") == f"saved in {tmp_path / 'a.jsonl'}"
    saved = json.loads((tmp_path / "a.jsonl").read_text(encoding="utf-8"))
    assert saved == {"messages": conversation.turns}


def test_settings_are_shown_and_changed(conversation):
    assert "temperature   0.0" in conversation.command("/settings")
    assert conversation.command("/settings temperature 0.7") == "temperature is 0.7"
    assert conversation.command("/settings steps 4") == "steps is 4"
    assert conversation.command("/settings steps none") == "steps is one per token"
    assert conversation.command("/settings canvas fixed") == "canvas is fixed"
    assert conversation.params == SamplingParams(length=8, temperature=0.7, canvas="fixed")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/dance", "there is no command /dance; /help lists them"),
        ("/save", "say where to: /save FILE"),
        ("/settings temperature", "name one setting and its value"),
        ("/settings colour blue", "there is no setting colour; there are: length, canvas"),
        ("/settings length many", "length takes a number, got 'many'"),
        ("/settings temperature -1", "temperature must be 0 or more, got -1.0"),
    ],
)
def test_a_command_given_wrongly_changes_nothing(conversation, line, message):
    before = conversation.params
    with pytest.raises(ValueError, match=message):
        conversation.command(line)
    assert conversation.params == before


# --- through a pipe -----------------------------------------------------------------------------------------------


def test_every_line_of_a_pipe_is_a_question_and_every_answer_a_paragraph(saved_model, illada, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("the fox?\n\n/settings seed 3\nthe dog?\n/quit\nnever asked\n"))
    answer = illada("chat", "--model", saved_model, "--length", 6, "--temperature", 1)
    assert answer.code == 0
    model = load(saved_model)
    params = SamplingParams(length=6, temperature=1.0)
    first = [{"role": "user", "content": "the fox?"}]
    [one] = model.chat([first], params)
    then = [*first, {"role": "assistant", "content": one.text}, {"role": "user", "content": "the dog?"}]
    [two] = model.chat([then], params, seed=3)
    assert answer.out == "".join(chat.printable(text.text) + "\n" for text in (one, two))
    assert answer.err == "seed is 3\n"


def test_a_bad_command_in_a_pipe_does_not_end_it(saved_model, illada, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("/dance\nthe fox?\n"))
    answer = illada("chat", "--model", saved_model, "--length", 2)
    assert answer.code == 0
    assert "there is no command /dance" in answer.err


def test_a_question_that_fills_the_context_is_refused_and_the_next_is_answered(saved_model, illada, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("x" * 100 + "\nthe fox?\n"))
    answer = illada("chat", "--model", saved_model, "--length", 4)
    [completion] = load(saved_model).chat([[{"role": "user", "content": "the fox?"}]], length=4)
    assert (answer.code, answer.out) == (0, chat.printable(completion.text) + "\n")
    assert answer.err.startswith("illada: the prompt has ")


def test_a_missing_model_is_refused_with_the_names_there_are(refusal):
    assert refusal("chat", "--model", "nowhere").startswith("nowhere does not exist: give a run folder or a checkpoint")


# --- at a terminal ------------------------------------------------------------------------------------------------


def talk(arguments, keys, *, home):
    """Type `keys` (or send signals), one at each prompt, into a terminal with `illada chat`; returns what it shows."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "ILLADA_CACHE": str(home), "TERM": "xterm", "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    command = [sys.executable, "-m", "illada", "chat", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment,
        start_new_session=True,
        # under nohup the child would ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(follower)
    shown, waiting, deadline = b"", list(keys), time.monotonic() + 60
    seen = 0
    while time.monotonic() < deadline:
        if select.select([leader], [], [], 0.2)[0]:
            try:
                shown += os.read(leader, 65536)
            except OSError:
                break
        if waiting and shown.count(b"you> ") > seen:
            seen = shown.count(b"you> ")
            time.sleep(0.2)  # the prompt is shown just before the line is waited for
            key = waiting.pop(0)
            process.send_signal(key) if isinstance(key, signal.Signals) else os.write(leader, key)
        if process.poll() is not None and not select.select([leader], [], [], 0.1)[0]:
            break
    process.kill()
    os.close(leader)
    return shown.decode(errors="replace"), process.wait()


def test_a_conversation_at_a_terminal(saved_model, tmp_path):
    shown, code = talk(
        ["--model", saved_model, "--length", "6"],
        [b"the fox?\n", signal.SIGINT, b"/settings seed 5\n", b"/quit\n"],
        home=tmp_path,
    )
    assert code == 0, shown
    assert "/help lists the commands" in shown
    assert " forwards, " in shown
    assert "/quit leaves" in shown  # what Ctrl-C at the prompt says
    assert "seed is 5" in shown
    assert "the fox?" in (tmp_path / "chat_history").read_text()
