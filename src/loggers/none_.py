"""Logger `none`: writes nothing, for trials and tests."""

from contextlib import nullcontext

from .logger import LOGGERS, RunLogger


@LOGGERS.register("none")
class NoneLogger(RunLogger):
    """Accepts every call and writes nothing."""

    def open(self, config, resume=False):
        return nullcontext()

    def check(self, resume=False):
        pass

    def rewind(self, step):
        pass

    def step(self, record):
        pass

    def history(self, record):
        pass

    def best(self, facts, model=None, tokenizer=None):
        pass

    def evaluation(self, stage, results):
        pass

    def model(self, model, tokenizer):
        pass

    def adapter(self, model, tokenizer, instead):
        pass

    def environment(self, facts):
        pass
