from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.codec import Decoder
from events.transaction import Transaction
from simulator.columns import encode_transactions
from simulator.datasets import DatasetError, _identifier, _label, mapped_format, read_transactions

# Lines as they are in the published files.
# ruff: noqa: E501

HANDBOOK = """TRANSACTION_ID,TX_DATETIME,CUSTOMER_ID,TERMINAL_ID,TX_AMOUNT,TX_TIME_SECONDS,TX_FRAUD,TX_FRAUD_SCENARIO
0,2018-04-01 00:00:31,596,3156,57.16,31,0,0
1,2018-04-01 00:02:10,4961,3412,81.51,130,1,2
"""
PAYSIM = """step,type,amount,nameOrig,oldbalanceOrg,newbalanceOrig,nameDest,oldbalanceDest,newbalanceDest,isFraud,isFlaggedFraud
1,PAYMENT,9839.64,C1231006815,170136.0,160296.36,M1979787155,0.0,0.0,0,0
1,TRANSFER,181.0,C1305486145,181.0,0.0,C553264065,0.0,0.0,1,0
2,CASH_OUT,181.0,C840083671,181.0,0.0,C38997010,21182.0,0.0,1,0
"""
SPARKOV = """,trans_date_trans_time,cc_num,merchant,category,amt,first,last,gender,street,city,state,zip,lat,long,city_pop,job,dob,trans_num,unix_time,merch_lat,merch_long,is_fraud
0,2019-01-01 00:00:18,2703186189652095,"fraud_Rippin, Kub and Mann",misc_net,4.97,Jennifer,Banks,F,561 Perry Cove,Moravian Falls,NC,28654,36.0788,-81.1781,3495,"Psychologist, counselling",1988-03-09,0b242abb623afc578575680df30655b9,1325376018,36.011293,-82.048315,0
1,2019-01-01 00:00:44,630423337322,"fraud_Heller, Gutmann and Zieme",grocery_pos,107.23,Stephanie,Gill,F,43039 Riley Greens Suite 393,Orient,WA,99160,48.8878,-118.2105,149,Special educational needs teacher,1978-06-21,1f76529f8574734946361c461b024d99,1325376044,49.159046999999994,-118.186462,1
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "data.csv"
    path.write_text(text)
    return path


def read_one(path: Path, layout: str = "fraudstream", columns: dict[str, str] | None = None) -> pd.DataFrame:
    frame = pd.concat(read_transactions(path, layout, columns), ignore_index=True)
    for answer in Decoder(Transaction).decode(encode_transactions(frame)):
        assert isinstance(answer, Transaction), answer
    return frame


def ms(*when: int) -> int:
    return round(datetime(*when, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc, arg-type]


def test_the_handbook_with_its_original_names(tmp_path: Path) -> None:
    frame = read_one(written(tmp_path, HANDBOOK), "handbook")
    assert frame.to_dict("records")[1] == {
        "transaction_id": "1",
        "user_id": "4961",
        "event_time": ms(2018, 4, 1, 0, 2, 10),
        "amount": 81.51,
        "terminal_id": "3412",
        "is_fraud": 1,
        "fraud_scenario": "2",
    }
    assert frame["event_time"].dtype == "int64"


def test_the_handbook_as_parquet(tmp_path: Path) -> None:
    path = tmp_path / "transactions.parquet"
    pd.DataFrame(
        {
            "transaction_id": [7, 8, 9],
            "event_time": pd.to_datetime(
                ["2018-04-01", "2018-04-02 12:00:00.5", "2018-04-03"], format="ISO8601"
            ).as_unit("ms"),
            "customer_id": pd.array([1, 2, 3], dtype="int16"),
            "terminal_id": [4.0, 5.0, None],
            "amount": pd.array([1.5, 2.5, 3.5], dtype="float32"),
            "is_fraud": pd.array([0, 1, 0], dtype="int8"),
            "fraud_scenario": [0, 3, 0],
        }
    ).to_parquet(path, row_group_size=1)
    frame = pd.concat(read_transactions(path, "handbook", chunk_rows=2), ignore_index=True)
    assert frame["event_time"].tolist()[1] == ms(2018, 4, 2, 12) + 500
    assert frame["terminal_id"].tolist()[:1] == ["4"]
    assert frame["terminal_id"].isna().tolist() == [False, False, True]
    assert frame["user_id"].tolist() == ["1", "2", "3"]


def test_paysim(tmp_path: Path) -> None:
    path = written(tmp_path, PAYSIM)
    frame = pd.concat(read_transactions(path, "paysim", epoch=date(2026, 2, 1)), ignore_index=True)
    assert frame["transaction_id"].tolist() == ["1", "2", "3"]
    assert frame["event_time"].tolist() == [ms(2026, 2, 1, 1), ms(2026, 2, 1, 1), ms(2026, 2, 1, 2)]
    assert frame["transaction_type"].tolist() == ["payment", "transfer", "cash_out"]
    assert frame["receiver_id"].tolist() == frame["terminal_id"].tolist()
    assert frame["balance_before"].tolist() == [170136.0, 181.0, 181.0]
    assert frame["is_fraud"].tolist() == [0, 1, 1]
    assert read_one(path, "paysim")["user_id"].tolist() == ["C1231006815", "C1305486145", "C840083671"]


def test_sparkov(tmp_path: Path) -> None:
    frame = read_one(written(tmp_path, SPARKOV), "sparkov")
    first, second = frame.to_dict("records")
    assert first["user_id"] == "2703186189652095"
    assert first["transaction_id"] == "0b242abb623afc578575680df30655b9"
    assert first["terminal_id"].startswith("fraud_Rippin_Kub_and_Mann-")
    assert (first["latitude"], first["longitude"]) == (36.011293, -82.048315)
    assert (first["card_present"], first["channel"]) == (False, "online")
    assert (second["card_present"], second["channel"]) == (True, "pos")
    assert (first["currency"], first["country"], first["transaction_type"]) == ("USD", "US", "purchase")
    assert second["event_time"] == ms(2019, 1, 1, 0, 0, 44)
    assert frame["is_fraud"].tolist() == [0, 1]


def test_any_file_by_a_mapping_of_its_columns(tmp_path: Path) -> None:
    path = written(tmp_path, "who,when,much,what\n007,1700000000,5,café 1\n008,1700000060,6.5,\n")
    columns = {"user_id": "who", "event_time": "when", "amount": "much", "merchant_category": "what"}
    frame = read_one(path, columns=columns)
    assert frame["user_id"].tolist() == ["007", "008"]
    assert frame["event_time"].tolist() == [1_700_000_000_000, 1_700_000_060_000]
    assert frame["transaction_id"].tolist() == ["1", "2"]
    assert frame["merchant_category"].iloc[1] is None


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("2026-03-01", ms(2026, 3, 1)),
        ("2026-03-01 10:00:00", ms(2026, 3, 1, 10)),
        ("2026-03-01T10:00:00Z", ms(2026, 3, 1, 10)),
        ("2026-03-01T10:00:00+02:00", ms(2026, 3, 1, 8)),
        ("1772359200", ms(2026, 3, 1, 10)),
        ("1772359200000", ms(2026, 3, 1, 10)),
    ],
)
def test_times_in_many_forms(tmp_path: Path, when: str, expected: int) -> None:
    path = written(tmp_path, f"user_id,event_time,amount\na,{when},1\n")
    assert read_one(path)["event_time"].tolist() == [expected]


def test_dates_and_limit_choose_rows_over_chunks(tmp_path: Path) -> None:
    rows = "".join(f"u,2026-03-{day:02},{day}\n" for day in range(1, 31))
    path = written(tmp_path, "user_id,event_time,amount\n" + rows)
    chunks = read_transactions(
        path, start=datetime(2026, 3, 5), end=datetime(2026, 3, 20, tzinfo=UTC), limit=10, chunk_rows=4
    )
    frame = pd.concat(chunks, ignore_index=True)
    assert frame["amount"].tolist() == [float(day) for day in range(5, 15)]
    assert frame["transaction_id"].tolist() == [str(day) for day in range(5, 15)]


GOOD_ROW = "a,2026-03-01,1.0,0,purchase,FR,10.0.0.1\n"


@pytest.mark.parametrize(
    ("bad_row", "named"),
    [
        (",2026-03-01,1,0,purchase,FR,10.0.0.1", "column user_id, row 3: the value is missing"),
        ("a,yesterday,1,0,purchase,FR,10.0.0.1", "column event_time, row 3: 'yesterday'"),
        ("a,2026-02-30,1,0,purchase,FR,10.0.0.1", "column event_time, row 3"),
        ("a,1960-01-01,1,0,purchase,FR,10.0.0.1", "column event_time, row 3.*2000"),
        ("a,2150-01-01,1,0,purchase,FR,10.0.0.1", "column event_time, row 3.*2000"),
        ("a,2026-03-01,lots,0,purchase,FR,10.0.0.1", "column amount, row 3: 'lots' is not a number"),
        ("a,2026-03-01,-1,0,purchase,FR,10.0.0.1", "column amount, row 3.*within"),
        ("a,2026-03-01,inf,0,purchase,FR,10.0.0.1", "column amount, row 3.*within"),
        ("a,2026-03-01,,0,purchase,FR,10.0.0.1", "column amount, row 3: the value is missing"),
        ("a,2026-03-01,1,maybe,purchase,FR,10.0.0.1", "column is_fraud, row 3: 'maybe'"),
        ("a,2026-03-01,1,0,gift,FR,10.0.0.1", "column transaction_type, row 3: 'gift'"),
        ("a,2026-03-01,1,0,purchase,France,10.0.0.1", "column country, row 3: 'France'"),
        ("a,2026-03-01,1,0,purchase,FR,10.0.0.999", "column ip, row 3.*IP address"),
        ('"a,2026-03-01,1,0,purchase,FR,10.0.0.1', "unreadable after row 2"),
    ],
)
def test_a_bad_cell_is_named_by_column_and_row(tmp_path: Path, bad_row: str, named: str) -> None:
    header = "user_id,event_time,amount,is_fraud,transaction_type,country,ip\n"
    path = written(tmp_path, header + 2 * GOOD_ROW + bad_row + "\n" + GOOD_ROW)
    with pytest.raises(DatasetError, match=named):
        list(read_transactions(path, chunk_rows=2))


def test_a_mapped_column_is_named_as_in_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "who,when,much\na,2026-03-01,1\na,soon,1\n")
    columns = {"user_id": "who", "event_time": "when", "amount": "much"}
    with pytest.raises(DatasetError, match=r"column when \(for event_time\), row 2: 'soon'"):
        list(read_transactions(path, columns=columns))


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such file"):
        next(read_transactions(tmp_path / "none.csv"))
    with pytest.raises(DatasetError, match="suffix"):
        next(read_transactions(written(tmp_path, "").rename(tmp_path / "data.xml")))
    with pytest.raises(DatasetError, match="unreadable"):
        next(read_transactions(written(tmp_path, "")))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DatasetError, match="unreadable"):
        next(read_transactions(tmp_path / "bad.parquet"))
    (tmp_path / "latin.csv").write_bytes("user_id,event_time,amount\nJosé,2026-03-01,1\n".encode("latin-1"))
    with pytest.raises(DatasetError, match="unreadable"):
        next(read_transactions(tmp_path / "latin.csv"))


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    path = written(tmp_path, "user_id,amount\na,1\n")
    with pytest.raises(DatasetError, match="'event_time' for event_time; the file has user_id, amount"):
        next(read_transactions(path))
    with pytest.raises(DatasetError, match="'step' for event_time"):
        next(read_transactions(path, "paysim"))


def test_unknown_formats_and_wire_columns_are_refused() -> None:
    with pytest.raises(DatasetError, match="unknown format 'ieee'"):
        mapped_format("ieee")
    with pytest.raises(DatasetError, match="unknown wire column 'customer'"):
        mapped_format(columns={"customer": "x"})
    with pytest.raises(DatasetError, match="lacks amount"):
        mapped_format(columns={"user_id": "x", "event_time": "y"})


def test_a_mapping_goes_over_a_ready_format(tmp_path: Path) -> None:
    path = written(tmp_path, PAYSIM.replace("nameOrig,", "sender,"))
    frame = read_one(path, "paysim", {"user_id": "sender"})
    assert frame["user_id"].iloc[0] == "C1231006815"


@given(st.lists(st.text(min_size=1), min_size=2, max_size=20, unique=True))
def test_any_names_become_distinct_identifiers_and_labels(names: list[str]) -> None:
    rows = {name: (_identifier(name), _label(name)) for name in names}
    assert len({identifier for identifier, _ in rows.values()}) == len(names)
    assert len({label for _, label in rows.values()}) == len(names)
    frame = pd.DataFrame(
        {
            "transaction_id": [identifier for identifier, _ in rows.values()],
            "user_id": "u",
            "event_time": 10**12,
            "amount": 1.0,
            "merchant_category": [label for _, label in rows.values()],
        }
    )
    assert all(isinstance(a, Transaction) for a in Decoder(Transaction).decode(encode_transactions(frame)))
