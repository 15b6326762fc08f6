"""The fields of a crontab are read as Celery reads them, its oddities included."""

from random import Random

import pytest
from celery.schedules import ParseException, crontab_parser
from celery.schedules import crontab as celery_crontab

from celeriac.errors import ConfigError
from celeriac.schedule.crontab import crontab
from celeriac.schedule.fields import (
    DAY_OF_MONTH,
    DAY_OF_WEEK,
    HOUR,
    MINUTE,
    MONTH_OF_YEAR,
    field_text,
    read_field,
)

UNITS = (MINUTE, HOUR, DAY_OF_WEEK, DAY_OF_MONTH, MONTH_OF_YEAR)
WORDS = ("mon", "Monday", "sun", "mar", "march", "DEC", "fri", "xyz", "moNKEY", "L", "W")


def piece(random):
    return random.choice(
        [
            str(random.randrange(70)),
            str(random.randrange(13)),
            random.choice(WORDS),
            "*",
            "-",
            "/",
            ",",
            " ",
            "\n",
            "+",
            "_",
            "#",
            "?",
            ".",
            "٣",
        ]
    )


def number(random):
    return (
        str(random.randrange(random.choice([7, 13, 32, 62])))
        if random.random() < 0.85
        else random.choice(WORDS)
    )


def part(random):
    if random.random() < 0.2:
        return "".join(piece(random) for _ in range(random.randrange(5)))
    text = random.choice(["*", number(random), f"{number(random)}-{number(random)}"])
    if random.random() < 0.3:
        text += f"/{random.choice([0, 1, 2, 3, 5, 15, 70, '', 'mon', '-2'])}"
    return text + random.choice([""] * 12 + ["-5", " ", "\n", "/2", "x"])


def celerys(unit, text):
    try:
        return crontab_parser(unit.count, unit.least).parse(text)
    except (ParseException, ValueError):
        return "refused"


def ours(unit, text):
    try:
        return set(read_field(unit, text).numbers)
    except ConfigError:
        return "refused"


def test_ten_thousand_texts_mean_what_they_mean_to_celery():
    random, read = Random(15), 0
    for _ in range(10_000):
        unit = random.choice(UNITS)
        text = ",".join(part(random) for _ in range(random.choice([1, 1, 1, 2, 3])))
        assert ours(unit, text) == celerys(unit, text), f"{unit.name} {text!r}"
        read += ours(unit, text) != "refused"
    assert read > 3000  # of both kinds there are many


@pytest.mark.parametrize(
    ("unit", "text", "numbers"),
    [
        (DAY_OF_WEEK, "fri-mon", {5, 6, 0, 1}),
        (HOUR, "22-4", {22, 23, 0, 1, 2, 3, 4}),
        (HOUR, "22-4/2", {22, 0, 2, 4}),
        (MINUTE, "10-5", {*range(10, 60), *range(6)}),
        (MINUTE, " 7 ", {7}),
    ],
)
def test_what_wraps_and_what_passes_without_a_word(unit, text, numbers):
    reading = read_field(unit, text)
    assert (set(reading.numbers), reading.oddities) == (numbers, ())
    assert celerys(unit, text) == numbers


@pytest.mark.parametrize(
    ("unit", "text", "numbers", "said"),
    [
        (MINUTE, "*/5-10", set(range(0, 60, 5)), "'*/5-10' is read as '*/5', the rest is ignored"),
        (DAY_OF_MONTH, "1-5-7", {1, 2, 3, 4, 5}, "'1-5-7' is read as '1-5', the rest is ignored"),
        (MINUTE, "mon", {1}, "'mon' is the name of a day, read as 1"),
        (DAY_OF_WEEK, "mar", {3}, "'mar' is the name of a month, read as 3"),
        (MINUTE, "*/70", {0}, "'*/70' is read as 0: the step is larger than the range"),
    ],
)
def test_what_means_something_else_than_it_seems_to_is_told(unit, text, numbers, said):
    reading = read_field(unit, text)
    assert (set(reading.numbers), reading.oddities) == (numbers, (said,))
    assert celerys(unit, text) == numbers
    schedule = crontab(**{unit.name: text})
    assert schedule.oddities() == [f"{unit.name}: {said}"]


@pytest.mark.parametrize("text", ["7", "5/10", "L", "5#2", "", "1,,2", "-1", "*/0", "*/", "*/x"])
def test_what_celery_refuses_is_refused_with_the_fields_name(text):
    assert celerys(DAY_OF_WEEK, text) == "refused"
    with pytest.raises(ConfigError, match="day_of_week"):
        crontab(day_of_week=text)


@pytest.mark.parametrize("given", [7, True, [0, 15], {15, 30}, range(0, 60, 20), (5,)])
def test_numbers_instead_of_text(given):
    assert set(read_field(MINUTE, field_text(MINUTE, given)).numbers) == celery_crontab(minute=given).minute


@pytest.mark.parametrize("given", [60, -1, [0, 60], 5.5, None, [None], []])
def test_what_is_no_minute_is_refused(given):
    with pytest.raises(ConfigError, match="minute"):
        crontab(minute=given)
