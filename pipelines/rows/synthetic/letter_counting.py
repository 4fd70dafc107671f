"""How often a letter occurs in some words: easy to see, hard for a model that reads tokens."""

from __future__ import annotations

from collections import Counter
from math import comb
from string import ascii_lowercase

from pipelines.rows.synthetic.base import Example, NumberedTask, thought
from pipelines.rows.synthetic.draws import Draw, multiset

_COMMON = """
abandon academy account address advance affair against airport alcohol amazing ancient animal answer apparent apple
appoint arrange article attempt attract average balance balloon banana barrel basket battle beaver because bedroom
beetle belief better between bicycle biscuit blanket blossom bottle bottom bridge brother bubble bullet business butter
button cabbage calcium camera cancel candle canyon captain careful carrot cassette cattle ceiling cellar century
channel cheese cherry chicken circle classic climate clothes coconut coffee collect college colour comedy command
comfort common company compass concert connect cookie copper cotton council country cousin cricket culture current
curtain custom daughter decide deliver desert dessert detail develop diamond differ dinner discuss distance divide
doctor dollar double dragon drawer dream effect effort eleven embassy emerald energy engine enough error essence
evening event express fabric factory failure falcon feather fellow festival fiction finger finish follow forest forgive
freedom freeze funnel future gallery garlic general gentle giraffe glitter goggles grammar gravity grocery guitar
habitat hammer happen harbor harmony helmet hidden history hollow honest horizon hundred hunter illness imagine
immense improve indeed insect instead interest island jacket jealous jelly journey jungle kettle keyboard kitchen
kitten ladder language lantern leather lesson letter lettuce library little lizard lottery machine magic manner marble
massage maximum meadow measure medicine melon memory message middle million minimum mirror mission mistake moment
monster morning mountain muffin museum mushroom mustard narrow nation necklace needle nothing number object occasion
ocean office onion opinion opposite orange orbit pepper parallel parrot passage pattern pencil penguin people perhaps
pickle pillow planet pocket possible potato pottery present pretty process puzzle
"""
WORDS = _COMMON.split()
QUESTIONS = 3
"""About the same words: their most frequent letter, their rarest, and one that is missing; so no answer is common."""


class LetterCounting(NumberedTask):
    """A difficulty of d gives d words. The same words are never asked twice for a letter, in whatever order."""

    name = "letter_counting"
    checked_by = "exact_match"
    hardest = 6

    @property
    def size(self) -> int:
        return comb(len(WORDS) + self.difficulty - 1, self.difficulty) * QUESTIONS

    def example(self, index: int, draw: Draw) -> Example:
        chosen, which = divmod(index, QUESTIONS)
        words = draw.shuffled([WORDS[number] for number in multiset(chosen, self.difficulty)])
        text = " ".join(words)
        letter = _asked(text, which, draw)
        prompt = f"How many times does the letter {letter} occur in: {text}"
        steps = _counted(words, letter)
        return Example(prompt, thought(steps, str(text.count(letter))), {"text": text, "letter": letter})


def _asked(text: str, which: int, draw: Draw) -> str:
    """The letter of a question; among letters that are equally frequent, the ends of the alphabet."""
    counts = Counter(text.replace(" ", ""))
    if which == 0:
        return draw.pick([letter for letter in ascii_lowercase if letter not in counts])
    return (min if which == 1 else max)(counts, key=lambda letter: (counts[letter], letter))


def _counted(words: list[str], letter: str) -> str:
    """Each letter with the count so far: `a0 p1 p2 l2 e2` for p in apple; a comma between words."""
    count, spelled = 0, list[str]()
    for word in words:
        parts: list[str] = []
        for character in word:
            count += character == letter
            parts.append(f"{character}{count}")
        spelled.append(" ".join(parts))
    return ", ".join(spelled)
