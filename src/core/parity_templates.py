"""Templates that encode rows as other toolkits' evaluations do, for comparable figures. Never used in
training."""

from .encoding import Template
from .files import UserError
from .thinking import TAGS, Tags


class OpenUnlearningTemplate(Template):
    """Rows encoded as in OpenUnlearning (d3d7cf9, src/data/utils.py and collators.py). Differences from
    `Template`:

    - Question and answer are tokenised as one text, and the prompt has as many tokens as it has alone, so
      that an answer token that merges with the prompt's last blank is not scored; of an answer of that one
      token, EOS alone is.
    - One EOS is appended unless the last token is EOS already, after the chat template's end of turn; only
      that last token counts as terminator.
    - A tokenizer without a pad token pads with EOS, and the mask is `ids != pad`, so that attention reaches
      no EOS within a row.
    """

    allows_empty_answers = True

    def __init__(self, tokenizer, name: str = "auto", tags: Tags = TAGS):
        super().__init__(tokenizer, name, tags)
        if tokenizer.eos_token_id is None:
            raise UserError("evaluate.convention open_unlearning needs a tokenizer with an EOS token")
        self.unseen_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    def _parts(self, row: dict) -> tuple[list[int], list[int], list[int]]:
        if "question" not in row:
            return super()._parts(row)
        question, answer, turns = row["question"], row["answer"], row.get("turns", ())
        length = len(self.prompt_ids(question, turns=turns))
        if self.chat:
            text = self._chat(
                [*turns, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            )
        else:
            text = self.prompt_text(question, "direct", turns) + answer
        ids = self._ids(text, special=not self.chat)
        ids += [] if ids[-1:] == self._eos() else self._eos()
        return ids[:length], ids[length:-1], ids[-1:]


OPEN_UNLEARNING = "open_unlearning"
CONVENTIONS = {"none": Template, OPEN_UNLEARNING: OpenUnlearningTemplate}
"""`evaluate.convention` -> template of the evaluation."""
