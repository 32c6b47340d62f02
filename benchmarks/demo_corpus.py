"""The generated rows of the demo corpus: a seeded grammar of financial headlines and posts, of any size for scale tests.

    python benchmarks/demo_corpus.py           # writes src/findistill/data/demo/corpus.jsonl anew, the same byte for byte
    python benchmarks/demo_corpus.py 100000 > rows.jsonl

A pattern is text with `(a|b)` choices and `{slot}`s. The label belongs to the pattern and nothing else in the row
changes it: openers and closers are neutral, and figures are drawn so that small < middle < large. "Hard" patterns mix
good and bad signals, compare figures or negate.

No two of the first `NAMES` rows have the same text, although none is stored: row i is about company number
(start + i * STRIDE) mod NAMES, and every pattern shows that number as a name, a ticker or an index level.
"""

import datetime
import json
import math
import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from findistill.data.demo import CORPUS, ROWS, WRITTEN


def _words(text: str) -> list[str]:
    return text.split()


FIRST = _words("""
Ael Ager Alder Alm Amber Ander Ankar Ard Arn Ash Aster Atten Auber Bal Barr Bask Bel Benn Berg Birk Blen Bor Brack
Bram Bren Brig Cald Cam Carn Cass Cedar Chal Cind Clar Cor Cran Dal Dar Del Dor Drum Dun Eber Eck Eld Elm Ems Esk
Fal Fair Farn Fen Ferr Fjell Fors Gal Gart Glen Gran Grev Hal Hamm Har Hasl Hels Holm Hul Ill Ing Ister Jad Jar Kal
Kast Kel Kirk Kron Kö Lam Lang Lar Lind Lor Lun Łod Mar Mel Mer Mor Nar Nord Nov Oak Ol Orm Ost Pal Pell Pern Quar
Rad Ran Ros Rud Sal Sand Śre Sol Stav Sund Tam Tarr Tel Thorn Tor Ul Val Var Vest Vin Wal Wend Wick Yar Zan Ås Çel
Øst
""")
SECOND = _words("""
acre alo anda ansk aro avia beck borg brook burn by canto combe cott dene dorf edra elio emar ento eros feld ford
gate grave haven heim hurst idra inga isko itz land leigh low mark mere mont nes onde oria ova pool ridge sby shaw
stad stoke tane thal ton uvia vale vik ward wold worth yard zell
""")
# The last words of company names, and the products they sell.
SECTORS = {
    "Foods Dairy Brewing Bakeries Coffee": "frozen meals, oat milk, alcohol-free beer, snack bars",
    "Bank Bancorp Credit Mutual": "mortgages, business loans, savings accounts, credit cards",
    "Motors Mobility Batteries Tyres": "electric vans, battery packs, winter tyres, compact cars",
    "Pharma Biotech Diagnostics Therapeutics": "asthma inhalers, vaccines, blood tests, insulin pens",
    "Energy Wind Solar Utilities Power": "offshore turbines, rooftop panels, heat pumps, grid batteries",
    "Steel Mining Copper Lithium Cement": "steel plate, copper concentrate, lithium salts, clinker",
    "Software Systems Semiconductor Robotics": "cloud services, memory chips, payment software, sensors",
    "Airways Freight Shipping Logistics Rail": "cargo space, parcel delivery, car transport, charters",
    "Retail Apparel Cosmetics Jewellers": "sportswear, perfume, school uniforms, wedding rings",
    "Telecom Media Studios Games": "fibre lines, streaming plans, mobile games, prepaid cards",
    "Homes Estates Properties Hotels": "family homes, office space, student rooms, hotel rooms",
    "Insurance Assurance Reinsurance": "car policies, travel cover, storm cover, pet insurance",
}
SECTOR_WORDS = [(word, products.split(", ")) for words, products in SECTORS.items() for word in words.split()]
FORMS = (
    "",
    " & Co",
    " Group",
    " Holdings",
    " International",
    " Partners",
    " Industries",
    " Europe",
    " Pacific",
    " Nordic",
)
NAMES = len(FIRST) * len(SECOND) * len(SECTOR_WORDS) * len(FORMS)
"""The number of companies, and of rows that are guaranteed to differ."""

STRIDE = int(NAMES * (math.sqrt(5) - 1) / 2)
while math.gcd(STRIDE, NAMES) > 1:  # coprime: the walk visits every company before the first one again
    STRIDE += 1

CURRENCIES = (
    "EUR {} million",
    "${} million",
    "£{}m",
    "SEK {} million",
    "{} billion yen",
    "C${} million",
    "{} million francs",
)
PERIODS = ("first quarter", "second quarter", "third quarter", "fourth quarter", "half-year", "financial year")
PLACES = _words("""
Norway Poland Chile Vietnam Kenya Ohio Bavaria Quebec Kerala Sardinia Jutland Gansu Texas Morocco Peru Ghana Estonia
Queensland Lombardy Hokkaido Yucatán Galicia Silesia Antwerp Busan Lyon Oslo Leeds Porto Osaka Lagos Zürich
""")
INDICES = _words("Nordic Baltic Iberian Alpine Gulf Andean Pacific Benelux Adriatic Continental Atlantic Emerging")
MEASURES = ("operating profit", "net profit", "pretax profit", "core earnings", "cash flow", "EBITDA")
CAPITALISED = tuple(measure[0].upper() + measure[1:] for measure in MEASURES)
DATES = [(datetime.date(2016, 1, 1) + datetime.timedelta(days)).isoformat() for days in range(3650)]

HEADLINES = {
    ("positive", "easy"): """
{name} (raises|lifts|hikes|bumps up) its (full-year|annual) (outlook|forecast|guidance) after brisk sales of {product}
{Measure} at {name} (climbed|rose|jumped|increased) to {large} from {small} a year (earlier|ago)
{name} wins {middle} (order|contract) for {product} in {place}
(Record|Soaring|Strong) demand for {product} (lifts|boosts) {period} {measure} at {name} by {percent}
{name} (doubles|raises|increases) dividend and (announces|launches) {middle} share buyback
(Regulator|Court|Watchdog) clears {name} of all charges over {product}
{name} (beats|tops|exceeds) (expectations|forecasts|estimates) with {period} {measure} of {large}
{name} agrees to be bought by {other} at a {percent} premium
Broker upgrades {name} to buy, sees {percent} upside
{name} swings to {period} profit of {middle} from a loss of {small}
{name} shares (surge|soar|rally|jump) {percent} on (upbeat|strong) {period} results
{name} gains market share in {place} as (rival|competitor) {other} retreats
{name} cuts debt by {middle}, regains investment grade
Sales of {product} (up|rose|grew) {percent} at {name}, its best {period} (ever|on record)
{name} secures {large} in fresh funding at record valuation
{name} opens sold-out {product} plant in {place} ahead of schedule
Margin at {name} widens to highest in (a decade|five years|eight years) on pricier {product}
""",
    ("positive", "hard"): """
{Measure} at {name} fell to {middle} from {large}, (far|well) above the {small} analysts had (feared|braced for)
{name} posts {period} loss of {small}, (narrower|smaller) than the {large} lost a year ago
{name} to cut {count} jobs; shares (rise|climb|gain) {percent} as investors (cheer|welcome) {middle} in savings
{name} (exits|quits|sells) loss-making {product} business in {place}, a step investors had long demanded
{name} pays {small} to settle lawsuit over {product}, having set aside {large}
Costs at {name} rose {percent}, but sales of {product} rose twice as fast
{name} (scraps|drops) dividend to redeem costly debt, a move (applauded|welcomed) by shareholders
{other} withdraws rival {product}, leaving the market in {place} to {name}
Downgrade of {name} averted as lenders agree to (extend|refinance) {middle}
Not a single {product} customer lost at {name} despite price rises of {percent}
""",
    ("negative", "easy"): """
{name} (cuts|lowers|slashes) its (full-year|annual) (outlook|forecast) as sales of {product} (slump|weaken|stall)
{Measure} at {name} (fell|dropped|slid|declined) to {small} from {large} a year (earlier|ago)
{name} loses {middle} (order|contract) for {product} in {place}
(Weak|Sluggish|Collapsing) demand for {product} (drags|pulls) {period} {measure} at {name} down {percent}
{name} (suspends|cancels|halves) dividend to preserve cash
(Regulator|Court|Watchdog) fines {name} {middle} over (mislabelled|overpriced|mis-sold) {product}
{name} (misses|falls short of) (expectations|forecasts|estimates) with {period} {measure} of {small}
{other} walks away from {name} takeover; shares (plunge|tumble|sink) {percent}
Broker downgrades {name} to sell, sees {percent} downside
{name} swings to {period} loss of {middle} from a profit of {small}
{name} shares (slump|plunge|tumble|sink) {percent} after profit warning
{name} loses market share in {place} to {other}
{name} breaches loan covenant, debt rises to {large}
Sales of {product} (down|fell|dropped) {percent} at {name}, its worst {period} (ever|on record)
{name} (halts|stops) production of {product} in {place} after (fire|flood|cyberattack)
Auditor (resigns|quits) at {name} over {middle} hole in accounts
{name} must withdraw {product} in {place}, books charge of {middle}
""",
    ("negative", "hard"): """
{Measure} at {name} rose to {middle} from {small}, (well|far) short of the {large} it had (promised|targeted)
{name} grows sales {percent} on (steep|deep) discounts for {product}; margin (collapses|shrinks to a record low)
{name} beats {period} estimates but (guides|points) next year (well|far) below (consensus|expectations)
{name} wins auction for {product} assets of {other}; investors balk at price of {large}
{name} pays {large} to settle lawsuit over {product}, having set aside only {small}
{Measure} at {name} owed entirely to one-off sale of land in {place}; {product} business lost {small}
Revenue at {name} rose {percent}, but costs rose twice as fast
{name} raises {middle} in share sale at a {percent} discount
{name} insists demand for {product} is healthy but stops publishing orders
Refinancing succeeds at {name}, though interest on its {large} debt doubles
""",
    ("neutral", "easy"): """
{name} to publish {period} (results|figures|report) on {day}
{name} (appoints|names) new (head of compliance|company secretary|auditor|board member)
{name} moves (headquarters|registered office|warehouse) to {place}
{name} to (hold|host) (annual general meeting|investor day|capital markets day) in {place}
{name} (opens|starts) public consultation on {product} site in {place}
Total number of voting rights in {name} stands at {count},{digits}
{name} renews (lease|insurance cover|supply agreement) in {place} on (the same|unchanged) terms
{name} and {other} sign memorandum to study {product} in {place}
{name} issues {middle} bond to refinance notes of the same size
{name} presents {product} at trade fair in {place}
{name} (declares|proposes) unchanged dividend for the {period}
{name} employs {count} people and sells {product} in {place}
Shares of {name} trade ex-dividend on {day}
Financial terms of {product} agreement between {name} and {other} were not disclosed
""",
    ("neutral", "hard"): """
{Measure} at {name} of {middle} (matches|is in line with) (forecasts|consensus|expectations) and last year's figure
{name} (denies|rejects) report of {middle} talks with {other}
{name} keeps (annual|full-year) guidance unchanged (despite|after) {percent} swing in price of {product}
No material effect from (fire|flood|power cut) at empty {product} depot in {place}, {name} says
{name} pays {middle} fine, fully covered by existing provisions
{name} shuts {product} plant in {place} for planned two-week maintenance
Loss of {product} customer in {place} offset by new one of the same size, {name} says
Broker trims {name} target, keeps neutral rating
Gain of {small} in {product} cancels out equal drop elsewhere at {name}
{name} says it is too early to judge effect of tariffs on {product}
""",
}
MARKETS = {
    ("positive", "easy"): """
{index} index (surges|jumps|rallies) {move} to {level} after surprise rate cut
{index} index closes at record {level} as (banks|miners|carmakers) rally
""",
    ("positive", "hard"): """
{index} index shrugs off weak jobs data, gains {move} to {level}
""",
    ("negative", "easy"): """
{index} index (tumbles|plunges|slumps) {move} to {level} on recession fears
{index} index sinks to {level}, its lowest this year, as (banks|miners|carmakers) slide
""",
    ("negative", "hard"): """
{index} index opens higher, then drops {move} to {level} as good jobs data kills hope of rate cut
""",
    ("neutral", "easy"): """
{index} index (little changed|flat|steady) at {level} (before|ahead of) central bank meeting
{index} index ends at {level} in thin holiday trade, unchanged on the day
""",
    ("neutral", "hard"): """
{index} index ends where it began at {level} as {move} drop in (miners|banks) is offset by carmakers
""",
}
POSTS = {
    ("positive", "easy"): """
{firm} (breaking out|ripping|flying) today, {percent} and still going, (adding more|staying long|loading up)
bought {count} more {firm}, {product} sales are through the roof
{firm} raised guidance again, up {percent}, (love it|what a company|easy hold)
{firm} (crushed|smashed) earnings, {measure} up {percent}
insiders at {firm} buying with both hands, (I'm in|so am I|long)
{firm} at {multiple}x earnings with zero debt is the cheapest stock I know
my store can't keep {product} from {firm} on the shelf, calls it is
""",
    ("positive", "hard"): """
everyone panics because {firm} is down {percent}, I'm happily buying every share they throw at me
{firm} missed by a penny but that outlook!! up {percent} after hours
shorts in {firm} must be having a lovely {day}, up {percent} already
thought {firm} was dead, was wrong, {product} orders doubled in {place}
bad headline, great numbers underneath: {firm} lost {percent} of sales it never earned a cent on
""",
    ("negative", "easy"): """
{firm} (breaking down|bleeding|sinking) today, {percent} and no bid, (I'm out|sold everything|took the loss)
sold {count} shares of {firm}, {product} sales are falling off a cliff
{firm} cut guidance again, down {percent}, (done with it|what a mess|never again)
{firm} (bombed|butchered) earnings, {measure} down {percent}
insiders at {firm} dumping stock all month, (I'm out|so am I|short)
{firm} at {multiple}x sales with a pile of debt, puts all day
nobody in {place} buys {product} from {firm} any more, stay away
""",
    ("negative", "hard"): """
oh great, another strategic review at {firm}, down {percent} since the last one, surely this fixes it 🙄
congrats to everyone who bought the {percent} dip in {firm}, and the dip after that
{firm} beats by a penny and cuts the year by a dime, down {percent} after hours
love how {firm} calls losing half its {product} customers in {place} a 'normalisation'
a {percent} yield on {firm}, what could possibly go wrong
""",
    ("neutral", "easy"): """
anyone know when {firm} reports? my calendar says {day}
does {firm} sell {product} in {place} or only online?
reading up on {firm}, any good links on {product}?
{firm} call is on {day}, transcript goes up afterwards
which broker lets me buy {firm} from {place}?
""",
    ("neutral", "hard"): """
{firm} up {percent} on {day}, down the same the day after, net result nothing
half of you want {firm} to double, half want it at zero, I have no position and no clue
{firm} numbers exactly as expected, {measure} flat, back to sleep
trimmed {firm} by {count} shares, just rebalancing, view unchanged
not buying {firm}, not selling {firm}, just watching {product} news from {place}
""",
}
OPENERS: tuple[str, ...] = ("", "", "", "", "", "", "Update: ", "Brief: ", "Newswire: ", "Correction: ")
CLOSERS: tuple[str, ...] = (
    "",
    "",
    "",
    "",
    "",
    "",
    "",
    " - filing",
    " - statement",
    " - local press",
    " - agency report",
)
POST_OPENERS: tuple[str, ...] = (
    "",
    "",
    "",
    "",
    "",
    "fyi ",
    "ok so ",
    "well, ",
    "morning all. ",
    "posting from the train: ",
)
POST_CLOSERS: tuple[str, ...] = ("", "", "", "", "", ". not advice", ". imo", ". just my view", "...", " #stocks")
LABELS = ("neutral",) * 36 + ("positive",) * 34 + ("negative",) * 30
HARD_SHARE, POST_SHARE, TICKER_SHARE = 0.30, 0.33, 0.5
MARKET_SHARE = 0.06  # of the headlines

_T = TypeVar("_T")
Pattern = list[str | tuple[str, ...]]  # literal text and slots alternate with choices; a slot is its braced name
Book = dict[tuple[str, str], list[Pattern]]


def _parse(patterns: str) -> list[Pattern]:
    """Split each line, a pattern, into its pieces: literals, `{slot}` strings and tuples of choices."""
    pieces = re.compile(r"(\{\w+\}|\([^()]*\|[^()]*\))")
    return [
        [tuple(piece[1:-1].split("|")) if piece.startswith("(") else piece for piece in pieces.split(line) if piece]
        for line in patterns.strip().splitlines()
    ]


_HEADLINES, _MARKETS, _POSTS = ({key: _parse(patterns) for key, patterns in book.items()} for book in (HEADLINES, MARKETS, POSTS))


def company_name(number: int) -> str:
    """The name of company `number` (0 <= number < NAMES); different numbers have different names."""
    number, form = divmod(number, len(FORMS))
    number, word = divmod(number, len(SECTOR_WORDS))
    first, second = divmod(number, len(SECOND))
    return f"{FIRST[first]}{SECOND[second]} {SECTOR_WORDS[word][0]}{FORMS[form]}"


def ticker(number: int) -> str:
    """The cashtag of company `number`: five letters, different for different numbers."""
    letters = []
    for _ in range(5):
        number, letter = divmod(number, 26)
        letters.append("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[letter])
    return "$" + "".join(letters)


class _Scene:
    """The companies and figures of one row; `fill` turns a slot into text."""

    def __init__(self, number: int, draw: Callable[[], float]) -> None:
        self.number = number
        self.draw = draw
        self.currency = self.pick(CURRENCIES)
        self.base = 2 + 90 * draw() * draw()

    def pick(self, options: Sequence[_T]) -> _T:
        return options[int(self.draw() * len(options))]

    def amount(self, low: float, high: float) -> str:
        """An amount between low and high times the row's base, so that amounts from disjoint ranges are ordered."""
        return self.currency.format(f"{self.base * (low + (high - low) * self.draw()):.1f}")

    def fill(self, slot: str) -> str:
        return _SLOTS[slot](self)


_SLOTS: dict[str, Callable[[_Scene], str]] = {
    "{name}": lambda s: company_name(s.number),
    "{firm}": lambda s: ticker(s.number) if s.draw() < TICKER_SHARE else company_name(s.number),
    "{other}": lambda s: company_name((s.number + 1 + int(s.draw() * (NAMES - 1))) % NAMES),
    "{level}": lambda s: f"{1000 + s.number // 100:,}.{s.number % 100:02d}",
    "{index}": lambda s: s.pick(INDICES),
    "{product}": lambda s: s.pick(SECTOR_WORDS[s.number // len(FORMS) % len(SECTOR_WORDS)][1]),
    "{place}": lambda s: s.pick(PLACES),
    "{period}": lambda s: s.pick(PERIODS),
    "{measure}": lambda s: s.pick(MEASURES),
    "{Measure}": lambda s: s.pick(CAPITALISED),
    "{small}": lambda s: s.amount(1.0, 1.3),
    "{middle}": lambda s: s.amount(1.6, 2.0),
    "{large}": lambda s: s.amount(2.5, 4.0),
    "{percent}": lambda s: s.pick((f"{3 + int(s.draw() * 38)}%", f"{3 + 22 * s.draw():.1f}%")),
    "{move}": lambda s: f"{1 + 3 * s.draw():.1f}%",
    "{count}": lambda s: str(100 + 10 * int(s.draw() * 80)),
    "{digits}": lambda s: f"{int(s.draw() * 1000):03d},{int(s.draw() * 1000):03d}",
    "{multiple}": lambda s: str(4 + int(s.draw() * 30)),
    "{day}": lambda s: s.pick(("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")),
}
_COMPANIES = {"{name}", "{firm}", "{other}"}


def _write(opener: str, pattern: Pattern, closer: str, scene: _Scene) -> tuple[str, list[list[int]]]:
    """The text of a pattern, and the spans of its companies."""
    text, spans = opener, []
    for piece in pattern:
        if isinstance(piece, tuple):
            text += scene.pick(piece)
        elif piece[0] == "{":
            filled = scene.fill(piece)
            if piece in _COMPANIES:
                spans.append([len(text), len(text) + len(filled)])
            text += filled
        else:
            text += piece
    return text + closer, spans


def generate(rows: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield `rows` labelled texts with ids from g0000001; the hand-written rows are not included.

    Fields are those of corpus.jsonl. The first n rows do not depend on `rows`. About 36% are neutral, 34% positive and
    30% negative; a third are posts, 30% are hard, and 4% are about an index and name no company.
    """
    rng = random.Random(seed)
    draw = rng.random
    start = rng.randrange(NAMES)
    for row in range(rows):
        scene = _Scene((start + row * STRIDE) % NAMES, draw)
        label = scene.pick(LABELS)
        difficulty = "hard" if draw() < HARD_SHARE else "easy"
        kind = "post" if draw() < POST_SHARE else "headline"
        if kind == "post":
            book, openers, closers = _POSTS, POST_OPENERS, POST_CLOSERS
        else:
            book, openers, closers = _MARKETS if draw() < MARKET_SHARE else _HEADLINES, OPENERS, CLOSERS
        pattern = scene.pick(book[label, difficulty])
        text, spans = _write(scene.pick(openers), pattern, scene.pick(closers), scene)
        yield {
            "id": f"g{row + 1:07d}",
            "kind": kind,
            "text": text,
            "label": label,
            "companies": spans,
            "date": scene.pick(DATES),
            "difficulty": difficulty,
        }


def corpus() -> str:
    """The content of the file: its hand-written lines unchanged, then generated ones."""
    written = CORPUS.read_text(encoding="utf-8").splitlines(keepends=True)[:WRITTEN]
    return "".join([*written, *(line(row) for row in generate(ROWS - WRITTEN))])


def line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.stdout.writelines(map(line, generate(int(sys.argv[1]))))
    else:
        CORPUS.write_text(corpus(), encoding="utf-8", newline="\n")
