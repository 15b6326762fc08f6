"""What anybody may write in place of a field, as JSON texts; further ones are as readers of JSON take them."""

VALUES: tuple[str, ...] = (
    *("null", "true", "false", "0", "1", "-1", "2.5", "1e300", "-1e300", "1e999", "NaN", "-Infinity"),
    *("9" * 400, "-" + "9" * 400, str(2**53), str(2**63), str(2**64), "253402300800"),
    *(
        '""',
        '"x"',
        '"\\ud800"',
        '"\\udc00x"',
        '"\\u0000"',
        '"a\\nb\\u001b[2J\\u202e"',
        '"' + "y" * 70_000 + '"',
    ),
    *(
        "[]",
        "{}",
        "[1]",
        '["\\ud800"]',
        '{"a": {"b": [NaN]}}',
        "[null, [1e999], true]",
        "[" * 500 + "]" * 500,
    ),
    *('"9999-12-31T23:59:59-23:59"', '"0001-01-01T00:00:00+23:59"', '"' + "9" * 5000 + '"'),
    '{"__type__": "decimal", "__value__": "sNaN"}',
    '{"__type__": "decimal", "__value__": "1e999999"}',
    '{"__type__": "bytes", "__value__": "x"}',
    '{"__type__": "datetime", "__value__": "0001-01-01T00:00:00"}',
)
