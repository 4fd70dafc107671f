"""Configuration files as people write them: what is read from them, or where and why they are refused.

A refusal is what the message says after `c.yaml:`, line first; an acceptance is a line of what `--dry-run` shows.
"""

import codecs

SEED = "trainer:\n  seed: {}\n"


def seed(word: str) -> str:
    return SEED.format(word)


def rate(word: str) -> str:
    return f"trainer:\n  learning_rate: {word}\n"


def laughs(links: int, width: int) -> str:
    """Each list holds the one above so many times."""
    lists = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, links)]
    return "\n".join(["a0: &a0 [ha]", *lists])


ACCEPTED: dict[str, tuple[str | bytes, str]] = {
    "plain": (seed("7"), "trainer.seed = 7  (c.yaml:2)"),
    "one line": ("trainer: {seed: 7}", "trainer.seed = 7  (c.yaml:1)"),
    "JSON": ('{\n\t"trainer": {\n\t\t"seed": 7\n\t}\n}\n', "trainer.seed = 7  (c.yaml:3)"),
    "CRLF": (seed("7").replace("\n", "\r\n"), "trainer.seed = 7  (c.yaml:2)"),
    "lone carriage returns": (seed("7").replace("\n", "\r"), "trainer.seed = 7  (c.yaml:2)"),
    "byte order mark": (codecs.BOM_UTF8 + seed("7").encode(), "trainer.seed = 7  (c.yaml:2)"),
    "start and end markers": (f"---\n{seed('7')}...\n", "trainer.seed = 7  (c.yaml:3)"),
    "a directive": (f"%YAML 1.2\n---\n{seed('7')}", "trainer.seed = 7  (c.yaml:4)"),
    "comments": (f"# one\n\n{seed('7 # two')}# three", "trainer.seed = 7  (c.yaml:4)"),
    "empty mapping": ("{}", "trainer.seed = 0  (default)"),
    "empty section": ("trainer: {}", "trainer.seed = 0  (default)"),
    "quoted key": ("\"trainer\": {'seed': 7}", "trainer.seed = 7  (c.yaml:1)"),
    "hexadecimal": (seed("0x10"), "trainer.seed = 16  (c.yaml:2)"),
    "octal of YAML 1.2": (seed("0o17"), "trainer.seed = 15  (c.yaml:2)"),
    "plus sign": (seed("+7"), "trainer.seed = 7  (c.yaml:2)"),
    "minus zero": (seed("-0"), "trainer.seed = 0  (c.yaml:2)"),
    "largest seed": (seed(str(2**32 - 1)), "trainer.seed = 4294967295  (c.yaml:2)"),
    "number without a dot": (rate("1e-5"), "trainer.learning_rate = 1.0e-05  (c.yaml:2)"),
    "number that begins with a dot": (rate(".5"), "trainer.learning_rate = 0.5  (c.yaml:2)"),
    "whole number as a fraction": (rate("1"), "trainer.learning_rate = 1"),
    "zeros": (rate("0.000e-999"), "trainer.learning_rate = 0.0"),
    "alias": ("trainer: {ppo_batch_size: &n 8, num_rollout_samples: *n}", "trainer.num_rollout_samples = 8"),
    "merge key": ("trainer:\n  <<: {seed: 7, grpo_beta: 0.1}\n  seed: 8", "trainer.seed = 8  (c.yaml:3)"),
    "quoted number as text": ('data: {system_prompt: "010"}', 'data.system_prompt = "010"  (c.yaml:1)'),
    "text that means no": ("data: {system_prompt: no}", 'data.system_prompt = "no"'),
    "a date as text": ("data: {system_prompt: 2024-01-01}", 'data.system_prompt = "2024-01-01"'),
    "block of text": ("data:\n  system_prompt: |\n    a: b\n    # c\n", r'data.system_prompt = "a: b\n# c\n"'),
    "text of every script": ("data: {system_prompt: \u65e5\u672c \U0001f600}", "data.system_prompt = "),
    "null": ("data: {system_prompt: null}", "data.system_prompt = null  (c.yaml:1)"),
    "tilde": ("data: {system_prompt: ~}", "data.system_prompt = null  (c.yaml:1)"),
    "nothing as null": ("data:\n  system_prompt:\n", "data.system_prompt = null  (c.yaml:2)"),
    "nine hundred kilobytes of comment": ("# x\n" * 230_000 + seed("7"), "trainer.seed = 7  (c.yaml:230002)"),
    "rewards in one line": ("rewards: [{name: exact_match, weight: 2}]", "rewards.0.weight = 2"),
    "the same reward twice": ("rewards: [{name: exact_match}, {name: exact_match}]", "rewards.1.name = exact_match"),
}

REFUSED: dict[str, tuple[str | bytes, str]] = {
    # nothing, or something else
    "empty": ("", "1: empty, there is no value in it"),
    "blank": ("\n  \n\n", "1: empty, there is no value in it"),
    "only comments": ("# trainer:\n#   seed: 1\n", "1: empty, there is no value in it"),
    "only a marker": ("---\n", "1: a configuration file holds keys and values"),
    "null": ("null", "1: a configuration file holds keys and values"),
    "a word": ("trainer", "1: a configuration file holds keys and values"),
    "a number": ("42", "1: a configuration file holds keys and values"),
    "a list": ("- trainer: {seed: 1}", "1: a configuration file holds keys and values"),
    "a JSON list": ("[]", "1: a configuration file holds keys and values"),
    "INI": ("[trainer]\nseed = 1\n", "2: "),
    "TOML": ('seed = 1\n[trainer]\nname = "x"\n', "1: a configuration file holds keys and values"),
    "dotenv": ("GRPO_TRAINER__SEED=1\n", "1: a configuration file holds keys and values"),
    "Python": ("trainer = dict(seed=1)\n", "1: a configuration file holds keys and values"),
    "web page": ("<!DOCTYPE html>\n<html></html>\n", "1: a configuration file holds keys and values"),
    "NumPy": (b"\x93NUMPY\x01\0v\0", "1: not UTF-8 text (byte 0)"),
    "gzip": (b"\x1f\x8b\x08\0", "1: not UTF-8 text (byte 1)"),
    "zip": (b"PK\x03\x04\x14\0", "1: a character that YAML does not allow (0x0003)"),
    # bytes and characters
    "UTF-16": (seed("1").encode("utf-16"), "1: UTF-16 or UTF-32"),
    "UTF-32": (seed("1").encode("utf-32"), "1: UTF-16 or UTF-32"),
    "UTF-16 without a mark": (seed("1").encode("utf-16-le"), "1: a character that YAML does not allow (0x0000)"),
    "latin-1": (b"trainer:\n  seed: 1 # caf\xe9\n", "2: not UTF-8 text (byte 24)"),
    "NUL": (b"trainer:\n  seed: 1\n\0", "3: a character that YAML does not allow (0x0000)"),
    "bell after other letters": (f"# {chr(0xE9) * 50}\na: \x07", "2: a character that YAML does not allow (0x0007)"),
    "escape sequence": ("trainer: \x1b[31m", "1: a character that YAML does not allow (0x001b)"),
    "delete": ("trainer: \x7f", "1: a character that YAML does not allow (0x007f)"),
    "NUL as an escape": ('trainer:\n  output_dir: "a\\0b"', "2: trainer.output_dir: the text holds a NUL"),
    "NUL in a list": ('generation: {stop: ["\\0"]}', "1: generation.stop.0: the text holds a NUL"),
    "half a character as an escape": ('data: {system_prompt: "\\ud800"}', "1: while parsing a quoted scalar"),
    "tab": ("trainer:\n\tseed: 1", "2: indented with a tab"),
    "tab after spaces": ("trainer:\n  seed: 1\n  \tgrpo_beta: 0", "3: indented with a tab"),
    # structure
    "two documents": ("trainer: {seed: 1}\n---\ntrainer: {seed: 2}", "2: a second document starts here"),
    "two markers": ("---\n---\ntrainer: {seed: 1}", "2: a second document starts here"),
    "after the end": ("trainer: {seed: 1}\n...\ntrainer: {seed: 2}", "3: something follows the end of the document"),
    "after the brackets": ("{trainer: {seed: 1}}}", "1: "),
    "open bracket": ("rewards: [{name: exact_match}", "1: while parsing a flow sequence"),
    "open quote": ("data: {system_prompt: 'x}", "1: while scanning a quoted scalar"),
    "wrong indentation": ("trainer:\n  seed: 1\n grpo_beta: 0\n", "3: "),
    "two colons": ("trainer: seed: 1", "1: mapping values are not allowed"),
    "no space after the colon": ("trainer:\n  seed:1\n  grpo_beta: 0", "3: "),
    "a word between keys": ("trainer:\n  seed: 1\noops\nmodel: {}", "4: "),
    "at sign": ("data: {train_path: @x}", "1: while scanning for the next token"),
    "unknown version of YAML": ("%YAML 2.0\n---\ntrainer: {seed: 1}", "1: "),
    "100,000 brackets": ("[" * 100_000, "1: nested deeper than 40 levels"),
    "60 levels": ("a: " + "{b: " * 60, "1: nested deeper than 40 levels"),
    "40 levels by aliases": (laughs(60, 1), "1: a39: nested deeper than 40 levels"),
    "billion laughs": (laughs(10, 10), "more than 10000 values after aliases are expanded"),
    "alias of nothing": ("trainer: *defaults", "1: found undefined alias"),
    "alias inside itself": ("rewards: &r [*r]", "1: rewards.0: an alias stands inside its own anchor"),
    "merge of a list": ("trainer: {<<: [1]}", "1: trainer.<<: only mappings can be merged in"),
    "merge of nothing": ("trainer:\n  <<:\n", "2: trainer.<<: only mappings can be merged in"),
    "merged unknown key": ("trainer:\n  <<: {sed: 1}\n", "2: trainer.sed: unknown key"),
    "Python object": ("trainer: !!python/object/apply:os.getcwd []", "1: tags such as tag:yaml.org,2002:python/"),
    "tag of one's own": ("trainer: {seed: !env SEED}", "1: tags such as !env are not allowed"),
    "tag of a number": ("trainer: {seed: !!int 1}", "1: tags such as tag:yaml.org,2002:int are not allowed"),
    "binary": ("data: {system_prompt: !!binary aGk=}", "1: tags such as tag:yaml.org,2002:binary"),
    "timestamp": ("data: {system_prompt: !!timestamp 2024-01-01}", "1: tags such as tag:yaml.org,2002:timestamp"),
    "set": ("generation: {stop: !!set {a}}", "1: tags such as tag:yaml.org,2002:set"),
    # keys
    "key twice": ("trainer:\n  seed: 1\n  seed: 1\n", "3: trainer.seed: written twice, first in line 2"),
    "section twice": ("trainer: {seed: 1}\nmodel: {}\ntrainer: {grpo_beta: 0}", "3: trainer: written twice"),
    "key twice, once in quotes": ('trainer: {seed: 1, "seed": 2}', "1: trainer.seed: written twice"),
    "key twice in a list": ("rewards:\n- name: a\n  name: b", "3: rewards.0.name: written twice"),
    "merge key twice": ("a: &a {}\ntrainer:\n  <<: *a\n  <<: *a", "4: trainer.<<: written twice"),
    "number as a key": ("1: 2", "1: a key has to be a word"),
    "null as a key": ("trainer: {~: 1}", "1: trainer: a key has to be a word"),
    "boolean as a key": ("true: 1", "1: a key has to be a word"),
    "nothing as a key": ("{~: 1}", "1: a key has to be a word"),
    "list as a key": ("? [a, b]\n: 1", "1: a key has to be a word"),
    "empty key": ('"": 1', "1: '': unknown key"),
    "key with a line end": ('"a\\nb": 1', r"1: 'a\nb': unknown key"),
    "key with a no-break space": ("trainer\u00a0: {seed: 1}", r"1: 'trainer\xa0': unknown key"),
    "key with a zero-width space": ("trainer:\n  se\u200bed: 1", r"2: trainer.'se\u200bed': unknown key"),
    "dotted key": ("trainer.seed: 1", "1: 'trainer.seed': unknown key"),
    "merge key in quotes": ('trainer: {"<<": {seed: 1}}', "1: trainer.<<: unknown key"),
    # sections
    "section a number": ("trainer: 3", "1: trainer should be keys and values, not 3"),
    "section a text": ("model: builtin:tiny", "1: model should be keys and values, not 'builtin:tiny'"),
    "section a list": ("data: [train_path, x]", "1: data should be keys and values, not ["),
    "section null": ("trainer:\nmodel: {}", "1: trainer should be keys and values, not null"),
    "section inside null": ("trainer: {loss: null}", "1: trainer.loss should be keys and values, not null"),
    "single value a section": ("trainer: {seed: {value: 1}}", "1: trainer.seed should be a whole number, not {"),
    "single value a list": ("trainer:\n  seed: [1]", "2: trainer.seed should be a whole number, not [1]"),
    "list a text": ("plugins: mine.py", "1: plugins should be a list, not 'mine.py'"),
    "list a section": ("generation: {stop: {a: 1}}", "1: generation.stop should be a list, not {"),
    "list with a number": ("generation: {stop: [x, 1]}", "1: generation.stop.1 should be text, not 1"),
    "list with nothing": ('generation:\n  stop:\n  - ""', "3: generation.stop.0 should be text that is not empty"),
    # rewards
    "rewards a section": ("rewards: {exact_match: 1.0}", "1: rewards should be a list, not {"),
    "rewards a text": ("rewards: exact_match", "1: rewards should be a list, not 'exact_match'"),
    "rewards texts": ("rewards:\n- exact_match", "2: rewards.0 should be keys and values, not 'exact_match'"),
    "9,000 texts": (
        "rewards:\n" + "- exact_match\n" * 9000,
        "5: rewards.3 should be keys and values, not 'exact_match'",
    ),
    "rewards lists": ("rewards: [[exact_match]]", "1: rewards.0 should be keys and values, not ["),
    "rewards null": ("rewards:", "1: rewards should be a list, not null"),
    "rewards empty": ("rewards: []", "rewards (c.yaml:1) and trainer.algorithm (default): "),
    "reward without a name": ("rewards:\n- weight: 1", "2: rewards.0.name is missing"),
    "reward with an empty name": ('rewards: [{name: ""}]', "1: rewards.0.name should be text that is not empty"),
    "reward with a negative weight": (
        "rewards:\n- name: exact_match\n  weight: -1",
        "3: rewards.0.weight should be greater than or equal to 0, not -1",
    ),
    "rewards without weight": ("rewards: [{name: exact_match, weight: 0}]", "rewards.0.weight (c.yaml:1): "),
    "unknown reward": ("rewards:\n- name: exactmatch", "2: rewards.0.name: there is no reward called 'exactmatch'"),
    "unknown key of a reward": ("rewards:\n- name: exact_match\n  wieght: 1", "3: rewards.0.wieght: unknown key"),
    "config of a reward a list": ("rewards: [{name: exact_match, config: []}]", "1: rewards.0.config should be keys"),
    "unknown key of a reward's config": (
        "rewards:\n- name: exact_match\n- name: length_penalty\n  config:\n    target_length: 5\n    max_lenght: 9",
        "6: rewards.1.config.max_lenght: no such key",
    ),
    "wrong value of a reward's config": (
        "rewards:\n- name: length_penalty\n  config:\n    target_length: five",
        "4: rewards.0.config.target_length should be a whole number, not 'five'",
    ),
    # several at once, and settings that exclude each other
    "several problems": ("trainer:\n  seed: x\n  weight_decay: y", "2: trainer.seed should be a whole number, not 'x'"),
    "a batch that nobody means": (
        "trainer:\n  ppo_batch_size: 1000000000000\n",
        "trainer.ppo_batch_size (c.yaml:2) and trainer.grad_accum_steps (default) and trainer.num_rollout_samples",
    ),
    "unknown benchmark": ("evaluation: [{name: gsm9k}]", "1: evaluation.0: there is no benchmark called 'gsm9k'"),
    "unknown key of a benchmark": (
        "evaluation: [{name: mcq, config: {x: 1}}]",
        "1: evaluation.0.config.x: no such key",
    ),
    "evaluations of nothing": ("trainer: {eval_every: 5}\nevaluation: []", "1: trainer.eval_every: 5, and evaluation"),
    "a branch for a commit": ("data: {hf_revision: main}", "1: data.hf_revision should be text of the form ^[0-9a-f]"),
    "reference that is not there": (
        "trainer: {grpo_beta: 0.1}\nmodel: {ref_model_path: nowhere}",
        "2: model.ref_model_path: no model directory at nowhere",
    ),
    "a hub id with spaces": ("model: {model_path: a b/c d}", "1: model.model_path: Repo id must use"),
    "range the wrong way round": (
        "trainer:\n  thinking_layer_start: 3\n  thinking_layer_end: 2",
        "trainer.thinking_layer_start (c.yaml:2) and trainer.thinking_layer_end (c.yaml:3): ",
    ),
}

HINTS = {
    "a byte order mark inside": (codecs.BOM_UTF8.decode().join(["", seed("1"), "model: {}\n"]), "files were joined"),
    "undefined alias": ("trainer: {seed: *x}", "&NAME before the value"),
    "indented by one more": ("trainer:\n  seed: 1\n   grpo_beta: 0\n", "indent every key of a section alike"),
    "indented by one less": ("trainer:\n  seed: 1\n grpo_beta: 0\n", "indented alike"),
    "open bracket": ("trainer: {seed: 1\n", "is a comma or a closing bracket missing?"),
    "open quote": ('trainer: {algorithm: "grpo}\n', "is a closing quote missing?"),
    "an infinity that is a word": (rate("Infinity"), "NaN and infinities are not allowed"),
    "digits of another script": (seed("\u0665"), "trainer.seed: Seed of everything"),
    "a reward's name alone": ("rewards: [exact_match]", "write {name: exact_match}"),
    "one reward, no list": ("rewards: {name: exact_match}", "write a list: [{name: exact_match}]"),
    "one plugin, no list": ("plugins: own.py", "write a list: [own.py]"),
    "a number in a list of texts": ("generation: {stop: [1]}", "put it in quotes to make it text"),
    "a reward's setting": ("rewards: [{name: exact_match, config: {require_mark: 1}}]", "write true or false"),
    "a reward's range": (
        "rewards: [{name: length_penalty, config: {min_length: -1}}]",
        "min_length: Shorter than this",
    ),
}
"""What the hint says, after which the file would be read."""

NUMBERS = {
    '"1"': "should be a whole number, not '1'",
    "'0x10'": "should be a whole number, not '0x10'",
    "1.0": "should be a whole number, not 1.0",
    "1.5": "should be a whole number, not 1.5",
    "1e3": "should be a whole number, not 1000.0",
    "true": "should be a whole number, not true",
    "yes": "should be a whole number, not 'yes'",
    "null": "should be a whole number, not null",
    "": "should be a whole number, not null",
    "[]": "should be a whole number, not []",
    "1_000": "should be a whole number, not '1_000'",
    "1,000": "should be a whole number, not '1,000'",
    "1 000": "should be a whole number, not '1 000'",
    "1k": "should be a whole number, not '1k'",
    "1:30": "should be a whole number, not '1:30'",
    "0b11": "should be a whole number, not '0b11'",
    "0X10": "should be a whole number, not '0X10'",
    "-0x10": "should be a whole number, not '-0x10'",
    "2024-01-01": "should be a whole number, not '2024-01-01'",
    "\u0661\u0662": "should be a whole number, not ",
    "\uff11": "should be a whole number, not ",
    "\u00bd": "should be a whole number, not ",
    "017": "017 is octal to some and decimal to others",
    "-08": "-08 is octal to some and decimal to others",
    ".inf": ".inf is not a finite number",
    "-.INF": "-.INF is not a finite number",
    ".nan": ".nan is not a finite number",
    "inf": "should be a whole number, not 'inf'",
    "NaN": "should be a whole number, not 'NaN'",
    "1e400": "1e400 is too large for a number",
    "1e-400": "1e-400 is too small for a number",
    "9" * 200: "a number of 200 characters",
    "0x" + "f" * 5000: "a number of 5002 characters",
    str(2**63): f"{2**63} is too large for a whole number",
    "0xffffffffffffffffff": "0xffffffffffffffffff is too large for a whole number",
    str(2**32): f"should be less than or equal to 4294967295, not {2**32}",
    "-2": "should be greater than or equal to -1, not -2",
}
"""Written as `trainer.seed`."""

FRACTIONS = {
    '"1e-5"': "should be a number, not '1e-5'",
    "false": "should be a number, not false",
    "1e": "should be a number, not '1e'",
    "1e-5.0": "should be a number, not '1e-5.0'",
    "1/3": "should be a number, not '1/3'",
    "10%": "should be a number, not '10%'",
    "0,5": "should be a number, not '0,5'",
    "1d-5": "should be a number, not '1d-5'",
    "1e\u22125": "should be a number, not ",
    "-1e-5": "should be greater than or equal to 0, not -1e-05",
    "+.Inf": "+.Inf is not a finite number",
    "0." + "0" * 200 + "1": "a number of 203 characters",
    str(10**30): "is too large for a whole number",
}
"""Written as `trainer.learning_rate`."""

BOOLEANS = ("yes", "no", "on", "off", "y", "1", "0", '"true"', "'False'", "tRUE", "null", "[]", "1.0", "t")
"""Written as `model.use_lora`, of which none is true or false."""

SPELLINGS = {
    "sed": "trainer.seed",
    "Seed": "trainer.seed",
    "SEED": "trainer.seed",
    "learning-rate": "trainer.learning_rate",
    "learningRate": "trainer.learning_rate",
    "Learning Rate": "trainer.learning_rate",
    "lr": "trainer.learning_rate",
    "max_steps": "trainer.num_training_steps",
    "num_generations": "trainer.num_rollout_samples",
    "max_tokens": "data.max_gen_len",
    "loss_type": "trainer.loss.type",
    "model_path": "model.model_path",
    "epochs": "known here are trainer.algorithm",
    '"seed "': "trainer.seed?",
    "\u0455eed": "trainer.seed? '\\u0455eed' only looks like it",
    "\uff53\uff45\uff45\uff44": "trainer.seed?",
    "lora_rank": "model.lora_rank",
    "temperature": "generation.temperature",
    "loss.type": "write sections inside each other",
}
"""Unknown keys of `trainer`, and what the hint says."""
