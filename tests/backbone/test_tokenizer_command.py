from __future__ import annotations

from pathlib import Path

import pytest
import spacy
import typer
from spacy.tokens import DocBin
from typer.testing import CliRunner

from spacy_vaner.backbone import SubwordTokenizer, train_bpe
from spacy_vaner.cli.tokenizer import tokenizer_command
from spacy_vaner.errors import VanerError

from .conftest import TEXTS


def write_docs(path: Path, texts: list[str]) -> Path:
    nlp = spacy.blank("en")
    DocBin(docs=[nlp.make_doc(text) for text in texts]).to_disk(path)
    return path


def test_trains_on_spacy_and_text_files_and_tells_size_and_fertility(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [write_docs(tmp_path / "a.spacy", TEXTS[:2]), tmp_path / "b.txt"]
    files[1].write_text("\n".join(TEXTS[2:]), encoding="utf8")
    output = tmp_path / "new" / "tokenizer"
    tokenizer_command(files, output, vocab_size=380, min_frequency=2)
    found = SubwordTokenizer.from_folder(output)
    expected = train_bpe(TEXTS, vocab_size=380)
    assert found.fingerprint() == expected.fingerprint()
    n_subwords = sum(len(expected.encode(text)[0]) for text in TEXTS)
    n_words = sum(len(text.split()) for text in TEXTS)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{expected.n_tokens} subwords, {n_subwords / n_words:.2f} per word" in printed


@pytest.mark.parametrize("name", ["missing.txt", "table.csv", "broken.spacy", "latin1.txt"])
def test_a_file_that_cannot_be_read_is_named_and_nothing_is_written(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "table.csv").write_text("a,b")
    (tmp_path / "broken.spacy").write_bytes(b"no DocBin")
    (tmp_path / "latin1.txt").write_bytes("für".encode("latin1"))
    with pytest.raises(VanerError, match=f"VE115: .*{name}"):
        tokenizer_command([tmp_path / name], tmp_path / "out", vocab_size=400)
    assert not (tmp_path / "out").exists()


def test_the_command_line_takes_files_and_then_the_output(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(tokenizer_command)
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("\n".join(TEXTS), encoding="utf8")
    arguments = [str(tmp_path / name) for name in ("a.txt", "b.txt", "out")]
    result = CliRunner().invoke(app, [*arguments, "--vocab-size", "300"])
    assert result.exit_code == 0, result.output
    assert SubwordTokenizer.from_folder(tmp_path / "out").n_tokens == 300
